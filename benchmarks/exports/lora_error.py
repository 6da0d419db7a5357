"""How far is a LoRA of rank r from what was learned? The error of `--to lora` against rank, after each concept.

    python benchmarks/exports/lora_error.py --out benchmarks/exports

One studio on the embedded base learns concepts of the world one after another. After each, the change since the base is
factorized as the export does it, and ‖Δ − BA‖/‖Δ‖ of every layer is read at each rank; after the last, the real export
is made at a few ranks and its pictures are compared with the studio's, the same seeds.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import torch
from diffusers.utils import logging

from stamina_diffusion import files
from stamina_diffusion.exports import export
from stamina_diffusion.exports.lora import factorize
from stamina_diffusion.exports.source import Source, Wanted
from stamina_diffusion.photos import collect
from stamina_diffusion.settings import resolve
from stamina_diffusion.studio import Studio
from stamina_diffusion.world import FAMILIES, WorldConcept

matplotlib.use("Agg")
from matplotlib import pyplot

RANKS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def layers(studio: Studio) -> dict[int, dict[str, float]]:
    """For each rank the mean and the largest error of a layer."""
    moved = Source(studio).moved
    factors = [factorize(pair.after.double() - pair.before.double()) for pair in moved.values()]
    found = {rank: [some.error(rank) for some in factors] for rank in RANKS}
    return {rank: {"mean": statistics.mean(errors), "max": max(errors)} for rank, errors in found.items()}


def pictures(studio: Studio, rank: int, out: Path) -> dict[str, float]:
    """What the real export at a rank says of its pictures."""
    said: list[str] = []
    export(studio, "lora", out, Wanted(rank=rank), said.append)
    found = re.search(r"by ([\d.e+-]+) of 255 .* by ([\d.e+-]+)\.$", said[-1])
    assert found, said[-1]
    return {"rank": rank, "off": float(found[1]), "words_alone": float(found[2])}


def main(concepts: int, steps: int, method: str, drawn: list[int]) -> dict[str, Any]:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    settings = resolve("embedded", method, steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        studio = Studio.create(work / "studio")
        rows = []
        for index in range(concepts):
            concept = WorldConcept(list(FAMILIES)[index % len(FAMILIES)], "tuning", index)
            photos = collect(concept.photograph(work / "photos" / str(index)), resolution=64)
            studio.learn(photos, f"c{index}", method=settings.method, plan=settings.plan, class_word=concept.class_word)
            rows.append({"concepts": index + 1, "ranks": layers(studio)})
        shown = [pictures(studio, rank, work / f"lora-{rank}") for rank in drawn]
        exact: list[str] = []
        export(studio, "kohya", work / "kohya", Wanted(pictures=False), exact.append)
    return {
        "method": method,
        "steps": steps,
        "errors": rows,
        "pictures": shown,
        "kohya": exact[0],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "date": datetime.date.today().isoformat(),
    }


def plot(found: dict[str, Any], path: Path) -> None:
    """Mean error of a layer against rank, a line a number of concepts; the worst layer of the last in grey."""
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), dpi=120)
    rows = found["errors"]
    for place, row in enumerate(rows):
        values = [row["ranks"][rank]["mean"] for rank in RANKS]
        colour = pyplot.get_cmap("viridis")(place / max(1, len(rows) - 1) * 0.85)
        count = row["concepts"]
        axes.plot(
            RANKS, values, marker="o", ms=3, color=colour, label=f"{count} concept{'s' * (count > 1)}, mean layer"
        )
    worst = [rows[-1]["ranks"][rank]["max"] for rank in RANKS]
    axes.plot(RANKS, worst, "--", color="grey", lw=1, label=f"{rows[-1]['concepts']} concepts, worst layer")
    axes.set_xscale("log", base=2)
    axes.set_xticks(RANKS, [str(rank) for rank in RANKS])
    axes.set_ylim(0, 1)
    axes.set_xlabel("rank of the LoRA")
    axes.set_ylabel("‖Δ − BA‖ / ‖Δ‖")
    axes.set_title(f"LoRA export, embedded base, {found['method']}, {found['steps']} steps a concept", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--method", default="stamina")
    parser.add_argument("--drawn", type=int, nargs="*", default=[4, 16, 64])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    result = main(given.concepts, given.steps, given.method, given.drawn)
    result["command"] = (
        f"python benchmarks/exports/lora_error.py --concepts {given.concepts} --steps {given.steps} "
        f"--method {given.method} --drawn {' '.join(map(str, given.drawn))} --out benchmarks/exports"
    )
    files.write_json(given.out / "results.json", result)
    plot(result, given.out / "lora_error.png")
