"""What A_mmd is made of: how alike the photos of a concept are, its drawings, and the two to each other.

    python benchmarks/customization/parts.py out/customization --to benchmarks/customization/parts.json

A_mmd = 1000 (photos + drawings − 2 between), each a mean of the quadratic kernel over pairs of different pictures, then
over concepts. It reads the drawings of finished cells of the embedded base, so those of which only numbers were
unpacked are left out; what `--to` holds of them stays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from stamina_diffusion import files
from stamina_diffusion.benchmarks import grid, results, strips
from stamina_diffusion.benchmarks.concept_streams import subjects
from stamina_diffusion.benchmarks.eyes import Array, Embedded
from stamina_diffusion.metrics.images import quadratic

SIDE = 64


def within(features: Array) -> float:
    """The mean kernel of two different pictures among some."""
    k = quadratic(features, features)
    return float((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)))


def parts(cell: dict[str, Any], where: Path, views: int, eyes: Embedded) -> dict[str, float]:
    """The three means of a finished cell, and the A_mmd that they make."""
    known = subjects(cell["stream"], cell["length"], cell["seed"])
    photos = [eyes.look(one.test(views, SIDE)) for one in known]
    drawn = [eyes.look(row) for row in strips.read(where / grid.END / "final.png")]
    alike = float(np.mean([within(x) for x in photos]))
    drawings = float(np.mean([within(y) for y in drawn]))
    between = float(np.mean([quadratic(x, y).mean() for x, y in zip(photos, drawn, strict=True)]))
    found = {
        "photos": alike,
        "drawings": drawings,
        "between": between,
        "a_mmd": 1000 * (alike + drawings - 2 * between),
    }
    return {name: float(f"{value:.4g}") for name, value in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args()
    eyes = Embedded(None)
    views = files.read_json(given.folder / grid.SETTINGS)["settings"]["protocol"]["test_views"]
    made: dict[str, Any] = json.loads(given.to.read_text()) if given.to.is_file() else {}
    for described, result, where in results.finished(given.folder):
        cell = described["cell"]
        if (where / grid.END / "final.png").is_file():
            found = parts(cell, where, views, eyes)
            if abs(found["a_mmd"] - result["a_mmd"]) > 1:
                raise SystemExit(f"{where}: the drawings give A_mmd {found['a_mmd']}, its row says {result['a_mmd']}")
            made[f"{cell['variant']}, {cell['length']} concepts, seed {cell['seed']}"] = found
            print(cell["variant"], cell["seed"], found)
    files.write_json(given.to, dict(sorted(made.items())))
