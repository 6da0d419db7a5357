"""What lies behind a run's numbers: the parts of its A_mmd, R@1 of its first and last concepts when just learned (of
bounds at the end), what share of the weights it moved after its first concept, how long its words are, how much the
guard holds.

    python benchmarks/customization/inside.py out/customization --to benchmarks/customization/inside.json

A_mmd = 1000 (photos + drawings − 2 between), each a mean of the quadratic kernel over pairs of different pictures,
then over concepts. Its parts want a finished cell's drawings, lengths and directions its last state: where only numbers
were unpacked, what `--to` holds of them stays. Beside it, differences.csv has how far one row is ahead of another on
the same concepts, and saturation.csv how far R@1 when just learned is higher for the last concepts than for the first,
both with the interval over concepts (bootstrap, 95 %).
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from stamina_diffusion import files
from stamina_diffusion.benchmarks import grid, results, strips
from stamina_diffusion.benchmarks.concept_streams import subjects
from stamina_diffusion.benchmarks.eyes import Array, Embedded
from stamina_diffusion.benchmarks.judging import ENDS
from stamina_diffusion.benchmarks.rows import BOUNDS
from stamina_diffusion.benchmarks.tables import csv_text
from stamina_diffusion.methods.guard import SPAN
from stamina_diffusion.metrics import continual
from stamina_diffusion.metrics.images import mmd_terms

SIDE = 64


def parts(photos: list[Array], where: Path, eyes: Embedded) -> dict[str, float]:
    """The three means of a finished cell, and the A_mmd that they make."""
    drawn = [eyes.look(row) for row in strips.read(where / grid.END / "final.png")]
    terms = [mmd_terms(x, y) for x, y in zip(photos, drawn, strict=True)]
    alike, drawings, between = (float(one) for one in np.mean(terms, axis=0))
    a_mmd = 1000 * (alike + drawings - 2 * between)
    return {"photos": alike, "drawings": drawings, "between": between, "a_mmd": a_mmd}


def of_ends(each: dict[str, Any]) -> dict[str, float]:
    """Saturation as R@1 shows it."""
    then = each.get("retrieval_then") or each["retrieval"]
    ends = {"retrieval_first": float(np.mean(then[:ENDS])), "retrieval_last": float(np.mean(then[-ENDS:]))}
    return ends | ({"gain_then_least": min(each["gain_then"])} if "gain_then" in each else {})


def of_density(where: Path) -> dict[str, float]:
    """The share of the weights' entries that concepts after the first moved."""
    moved = [row["density"] for row in grid.committed(where)[1:] if row.get("density") is not None]
    if not moved:
        return {}
    return {"density": float(np.mean(moved)), "density_least": min(moved), "density_most": max(moved)}


def of_state(where: Path) -> dict[str, float]:
    """The mean length of the words' embeddings; of a guarded row its span's directions and its largest certificate."""
    rows = grid.committed(where)
    kept = grid.task_folder(where, len(rows) - 1) / grid.STATE
    if not kept.is_file():
        return {}
    state = files.read_tensors(kept)
    words = [float(value.norm()) for name, value in state.items() if name.startswith("word/")]
    found = {"word_length": float(np.mean(words))} if words else {}
    if (span := state.get(f"memory/{SPAN}")) is not None:
        found["directions"] = span.shape[1]
    if certificates := [row["certificate"] for row in rows if "certificate" in row]:
        found["certificate_max"] = max(certificates)
    return found


DIFFERENCES = ("retrieval", "retrieval_then", "image_alignment")


def differences(found: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """A line for each two methods of one stream and length, seed and measure; the second is the one behind.

    Where both have several seeds, a line more has the mean over these for each concept: seeds differ in order only.
    """
    lines: list[list[object]] = [["stream", "concepts", "seed", "measure", "row", "over", "mean", "low", "high"]]
    by_row: dict[tuple[str, int], dict[str, dict[int, dict[str, Array]]]] = {}
    for described, result in found:
        cell = described["cell"]
        if described["depends"]["of"] not in BOUNDS:
            row = by_row.setdefault((cell["stream"], cell["length"]), {}).setdefault(cell["variant"], {})
            # Concepts in an order that all seeds share.
            order = np.argsort(result["concepts"])
            row[cell["seed"]] = {key: np.array(result["each"][key])[order] for key in DIFFERENCES}
    for (stream, length), rows in by_row.items():
        for (name, each), (other, others) in itertools.combinations(rows.items(), 2):
            seeds = sorted(each.keys() & others.keys())
            for some in [[seed] for seed in seeds] + ([seeds] if len(seeds) > 1 else []):
                for key in DIFFERENCES:
                    ahead = np.mean([each[seed][key] - others[seed][key] for seed in some], axis=0)
                    names = [name, other]
                    if ahead.mean() < 0:
                        ahead, names = -ahead, names[::-1]
                    of = continual.bootstrap(ahead)
                    numbers = (f"{value:.4g}" for value in (of.mean, of.low, of.high))
                    lines.append([stream, length, " ".join(map(str, some)), key, *names, *numbers])
    return csv_text(lines)


def saturation(found: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """A line for each continual row of two times ENDS concepts or more: R@1 when just learned, of all its seeds."""
    ends: dict[tuple[str, int, str], list[tuple[list[float], list[float]]]] = {}
    for described, result in found:
        cell, then = described["cell"], result["each"].get("retrieval_then")
        if described["depends"]["of"] not in BOUNDS and cell["length"] >= 2 * ENDS:
            row = ends.setdefault((cell["stream"], cell["length"], cell["variant"]), [])
            row.append((then[:ENDS], then[-ENDS:]))
    lines: list[list[object]] = [["stream", "concepts", "row", "seeds", "first", "last", "last - first", "low", "high"]]
    for row, some in ends.items():
        first, last = np.concatenate(some, axis=1)
        of = continual.bootstrap(last - first)
        lines.append([*row, len(some), *(f"{value:.4g}" for value in (first.mean(), last.mean(), *of))])
    return csv_text(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args()
    eyes = Embedded(None)
    views = files.read_json(given.folder / grid.SETTINGS)["settings"]["protocol"]["test_views"]
    photos: dict[tuple[str, int, int], list[Array]] = {}
    made: dict[str, Any] = files.read_json(given.to) if given.to.is_file() else {}
    finished = results.finished(given.folder)
    for described, result, where in finished:
        cell = described["cell"]
        found = of_ends(result["each"]) | of_density(where) | of_state(where)
        if (where / grid.END / "final.png").is_file():
            stream = (cell["stream"], cell["length"], cell["seed"])
            if stream not in photos:
                photos[stream] = [eyes.look(one.test(views, SIDE)) for one in subjects(*stream)]
            found |= parts(photos[stream], where, eyes)
            if abs(found["a_mmd"] - result["a_mmd"]) > 1:
                raise SystemExit(f"{where}: the drawings give A_mmd {found['a_mmd']}, its row says {result['a_mmd']}")
        name = f"{cell['variant']}, {cell['length']} concepts, seed {cell['seed']}"
        made[name] = made.get(name, {}) | {key: float(f"{value:.4g}") for key, value in found.items()}
        print(name, flush=True)
    files.write_json(given.to, dict(sorted(made.items())))
    compared = [(described, result) for described, result, _ in finished]
    files.write_bytes(given.to.with_name("differences.csv"), differences(compared).encode())
    files.write_bytes(given.to.with_name("saturation.csv"), saturation(compared).encode())
