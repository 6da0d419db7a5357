"""One row a run, with exactly the fields that a table or another program reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import files
from ..errors import SettingsError
from . import grid
from .making import shortened

FILE = "results.json"
FIELDS = (
    "method", "variant", "stream", "concepts", "seed", "steps", "a_mmd", "f_mmd", "kid", "image_alignment",
    "text_alignment", "retrieval", "learned_first10", "learned_last10", "forgetting", "heldout_loss",
    "seconds_per_concept", "peak_memory_mb", "trained_percent", "stored_percent", "command", "machine", "date",
    "commit",
)  # fmt: skip


def finished(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any], Path]]:
    """Of every finished cell of a folder of results: what it was made with, its result, and where it is.

    Raises SettingsError where there is no such folder, or nothing in it is finished.
    """
    if not (folder / grid.SETTINGS).is_file():
        do = f"Make one with: stamina bench customization --out {folder} (or classification)"
        raise SettingsError("is no folder of results", where=folder, do=do)
    found = []
    for where in grid.places(folder):
        result = grid.result(where)
        if result is not None:
            found.append((files.read_json(where / grid.CELL), result, where))
    if not found:
        raise SettingsError("has no finished run yet", where=folder, do="Run the benchmark to the end of one.")
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    """The finished cells with `FIELDS`, in the order of rows, lengths and seeds."""
    from .rows import ROWS

    order = {name: place for place, name in enumerate(ROWS)}
    made = []
    for described, result, _ in finished(folder):
        cell = described["cell"]
        known = {
            **result,
            **described["made"],
            "command": shortened(described["made"].get("command", "")),
            "method": described["depends"]["method"],
            "variant": cell["variant"],
            "stream": Path(cell["stream"]).stem,
            "concepts": cell["length"],
            "seed": cell["seed"],
        }
        made.append({field: known.get(field) for field in FIELDS})
    return sorted(made, key=lambda row: (order.get(row["variant"], len(order)), row["concepts"], row["seed"]))


def write(folder: Path, to: Path) -> list[dict[str, Any]]:
    """Write the rows of `folder` into `to`."""
    found = rows(folder)
    files.write_json(to / FILE, found)
    return found
