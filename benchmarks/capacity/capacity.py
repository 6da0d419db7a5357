"""Is the forecast any good? Forecast concept k + 1 from the first k on the embedded base, then learn it and compare.

    python benchmarks/capacity/capacity.py --concepts 12 --streams 2 --out benchmarks/capacity/results.json

Streams of concepts of the world are learned one after another and measured as `stamina learn` does. From the third
concept on, two things are forecast before each is learned: the mean fall of the earlier concepts' kept score, and how
like its photos the new one is when just learned. For each: the mean absolute error of the forecast, that of saying
that it will be as with the last concept, and how often the truth lay in the 80 % interval.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging

from stamina_diffusion import files, report, summary
from stamina_diffusion.forecast import Forecast, falls_of_the_earlier, known_when_learned
from stamina_diffusion.photos import collect
from stamina_diffusion.settings import Resolved, resolve
from stamina_diffusion.studio import Studio
from stamina_diffusion.world import FAMILIES, WorldConcept


def history(work: Path, stream: int, concepts: int, settings: Resolved) -> dict[str, list[float]]:
    """Learn one stream; the answer is what happened: falls and overlaps from the second concept on, and likenesses."""
    studio = Studio.create(work / "studio")
    for place in range(concepts):
        thing = WorldConcept(list(FAMILIES)[place % len(FAMILIES)], "tuning", 100 * stream + place)
        photos = collect(thing.photograph(work / "photos" / str(place)), resolution=64)
        _, model = studio.learn(photos, f"c{place}", method=settings.method, plan=settings.plan)
        report.after_learning(studio, model, draw=settings.draw, report=settings.report)
        print(f"stream {stream}: concept {place + 1} of {concepts}", flush=True)
    found = summary.summarize(studio)
    seen = found["forecast"]
    known = found["figures"]["like_photos"]["learned_when_learned"]
    return {"falls": seen["observed_falls"], "overlaps": seen["observed_overlaps"], "known": known}


def judged(stream: Mapping[str, list[float]]) -> dict[str, list[dict[str, float]]]:
    """For each concept from the third on: what was forecast of it from those before, and what came."""
    falls, overlaps, known = stream["falls"], stream["overlaps"], stream["known"]
    lost, learned = [], []
    for before in range(2, len(falls)):
        lost.append(
            _compared(falls_of_the_earlier(falls[:before], overlaps[:before]), falls[before - 1], falls[before])
        )
    for before in range(2, len(known)):
        learned.append(_compared(known_when_learned(known[:before]), known[before - 1], known[before]))
    return {"earlier_fall": lost, "next_known": learned}


def _compared(said: Forecast | None, last: float, came: float) -> dict[str, float]:
    assert said is not None
    return {"forecast": said.mean, "low": said.low, "high": said.high, "as_last_time": last, "came": came}


def figures(rows: Sequence[Mapping[str, float]]) -> dict[str, float | int | None]:
    """Errors of the forecast and of the plain rule, and how often the interval held."""
    if not rows:
        return {"forecasts": 0, "mean_absolute_error": None, "as_last_time_error": None, "in_interval": None}
    errors = [abs(row["forecast"] - row["came"]) for row in rows]
    plain = [abs(row["as_last_time"] - row["came"]) for row in rows]
    inside = [row["low"] <= row["came"] <= row["high"] for row in rows]
    return {
        "forecasts": len(rows),
        "mean_absolute_error": round(sum(errors) / len(rows), 4),
        "as_last_time_error": round(sum(plain) / len(rows), 4),
        "in_interval": round(sum(inside) / len(rows), 3),
    }


def commit() -> str | None:
    """The commit of the code that ran, with a + where it was changed; None outside a repository."""
    try:
        where = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": True}
        name = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **where).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], **where).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{name}+" if dirty else name


def main(concepts: int, streams: int, settings: Resolved) -> dict[str, Any]:
    logging.set_verbosity_error()
    seen, rows = [], {"earlier_fall": [], "next_known": []}
    for stream in range(streams):
        with tempfile.TemporaryDirectory() as folder:
            seen.append(history(Path(folder), stream, concepts, settings))
        for what, some in judged(seen[-1]).items():
            rows[what] += some
    return {
        "figures": {what: figures(some) for what, some in rows.items()},
        "rows": rows,
        "streams": seen,
        "concepts": concepts,
        "method": settings.method.name,
        "settings": settings.method.settings(),
        "plan": settings.plan.settings(),
        "report": {"samples": settings.report.samples, "steps": settings.report.steps},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, default=12)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--method", default="stamina")
    parser.add_argument("--preset", default="embedded", help="a preset of the embedded base, or a TOML file")
    parser.add_argument("--steps", type=int, help="the preset's if not given")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    changes = dict(pair.split("=", 1) for pair in given.set)
    settings = resolve(given.preset, given.method, overrides=changes, steps=given.steps)
    found = main(given.concepts, given.streams, settings)
    found["command"] = (
        f"python benchmarks/capacity/capacity.py --concepts {given.concepts} --streams {given.streams} "
        f"--method {given.method}"
        + (f" --preset {given.preset}" if given.preset != "embedded" else "")
        + (f" --steps {given.steps}" if given.steps else "")
        + "".join(f" --set {pair}" for pair in given.set)
    )
    print(json.dumps(found["figures"], indent=2))
    if given.out:
        files.write_json(given.out, found)
