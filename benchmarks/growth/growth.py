"""Does anything grow with the number of concepts? Step time, memory and drawing time at concept 1 and at concept 50.

    python benchmarks/growth/growth.py --out benchmarks/growth/results.json

One studio on the embedded base learns 50 concepts of the world, a few steps each (what is timed is the step, not what
it learns). Step times are medians over the concept's steps without the first two; drawing times are medians of draws
of the base and of the model with all concepts, taken in turns in one process.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from diffusers.utils import logging

from stamina_diffusion import files
from stamina_diffusion.learn import Step
from stamina_diffusion.photos import Photo, collect
from stamina_diffusion.settings import resolve
from stamina_diffusion.studio import Studio
from stamina_diffusion.world import FAMILIES, WorldConcept

ENDS = 5
"""Concepts at each end of the sequence that are compared."""


def photos_of(folder: Path, index: int) -> tuple[Photo, ...]:
    concept = WorldConcept(list(FAMILIES)[index % len(FAMILIES)], "tuning", index)
    return collect(concept.photograph(folder), resolution=64)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def draw_seconds(studio: Studio, version: int, prompt: str) -> float:
    backbone = studio.rebuilt(version)
    backbone.draw([prompt], [0], steps=5)
    began = time.perf_counter()
    backbone.draw([prompt] * 4, [0, 1, 2, 3], steps=25)
    return time.perf_counter() - began


def main(concepts: int, steps: int) -> dict[str, object]:
    logging.set_verbosity_error()
    seconds: list[float] = []
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        studio = Studio.create(work / "studio")
        settings = resolve("embedded", "stamina", steps=steps)
        for index in range(concepts):
            moments: list[float] = []

            def watch(step: Step, moments: list[float] = moments) -> None:
                moments.append(time.perf_counter())

            photos = photos_of(work / "photos" / str(index), index)
            studio.learn(photos, f"c{index}", method=settings.method, plan=settings.plan, watch=watch)
            gaps = [after - before for before, after in itertools.pairwise(moments[2:])]
            seconds.append(statistics.median(gaps))
            peaks.append(peak_mib())
        prompt = "a photo of a person smiling"
        pairs = [(draw_seconds(studio, 0, prompt), draw_seconds(studio, concepts, prompt)) for _ in range(5)]
        change = studio.concept_folder(studio.entries[-1]) / "change.safetensors"
        stored = change.stat().st_size
    first, last = statistics.median(seconds[:ENDS]), statistics.median(seconds[-ENDS:])
    base, grown = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "concepts": concepts,
        "steps": steps,
        "step_seconds_first": round(first, 4),
        "step_seconds_last": round(last, 4),
        "step_ratio": round(last / first, 3),
        "step_seconds_spread": [round(min(seconds), 4), round(max(seconds), 4)],
        "peak_mib_after_first": round(peaks[0]),
        "peak_mib_after_last": round(peaks[-1]),
        "draw_seconds_base": round(base, 3),
        "draw_seconds_grown": round(grown, 3),
        "draw_ratio": round(grown / base, 3),
        "draw_seconds_each": [[round(a, 3), round(b, 3)] for a, b in pairs],
        "stored_bytes_of_the_last_concept": stored,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, default=50)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(given.concepts, given.steps)
    found["command"] = f"python benchmarks/growth/growth.py --concepts {given.concepts} --steps {given.steps}"
    print(json.dumps(found, indent=2))
    if given.out:
        files.write_json(given.out, found)
