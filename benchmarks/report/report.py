"""How long does the report page of a long-lived studio take? Cold, where nothing was measured yet, and warm.

    OMP_NUM_THREADS=2 python benchmarks/report/report.py --out benchmarks/report/results.json

Concepts of the procedural world are learned on the embedded base without reports, in few steps, since their number is
what counts; then `stamina report` is given twice as a process of its own, imports included. Seconds depend on what else
the machine does: the CPU seconds of the process stand beside them, and the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import forks


def stamina(*arguments: object) -> dict[str, float]:
    """Give a command as a process: its seconds, and its CPU seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-m", "stamina_diffusion", *map(str, arguments)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(cpu, 1)}


def learned(folder: Path, concepts: int, steps: int) -> None:
    """A studio of so many concepts, faces and landmarks in turn, learned in one go."""
    from stamina_diffusion import files, sheets, world

    lines = ["version = 1", f"steps = {steps}"]
    for number in range(concepts):
        concept = world.WorldConcept(("faces", "landmarks")[number % 2], "stream", number)
        place = folder / "photos" / f"c{number}"
        place.mkdir(parents=True)
        for view in range(6):
            files.write_bytes(place / f"{view}.png", sheets.png(concept.view(view).render(64)))
        lines += [
            "[[concept]]",
            f'name = "c{number}"',
            f'photos = "photos/c{number}"',
            f'class = "{concept.class_word}"',
        ]
    (folder / "stream.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    stamina("init", folder / "studio")
    stamina("learn", folder / "studio", "--stream", folder / "stream.toml", "--no-report", "--tracker", "none")


def main(concepts: int, steps: int, keep: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        if not (folder / "studio").exists():
            learned(folder, concepts, steps)
        load = os.getloadavg()[0]
        page = folder / "report.html"
        cold = stamina("report", folder / "studio", "--html", page)
        warm = stamina("report", folder / "studio", "--html", page)
        return {
            "concepts": concepts,
            "steps_of_each": steps,
            "cold": cold,
            "warm": warm,
            "page_megabytes": round(page.stat().st_size / 1e6, 2),
            "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count(),
            "load_before": round(load, 1),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="leave the studio and the page in this folder; or use those there")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(given.concepts, given.steps, given.keep)
    command = "python benchmarks/report/report.py"
    command += f" --concepts {given.concepts}" if given.concepts != 20 else ""
    found |= forks.facts(command + (f" --steps {given.steps}" if given.steps != 4 else ""))
    print(json.dumps(found, indent=2))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
