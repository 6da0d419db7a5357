"""Which cells are run: rows on one stream, of one length, with some seeds; or several such runs from a file.

version = 1
[[run]]
methods = ["c-lora", "stamina"]   # rows or groups, as --methods has them; "all" if not given
stream = "mixed"
concepts = 50
seeds = [0, 1, 2]
[[run]]
methods = ["all"]
concepts = 20
seeds = [0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..toml_tables import checked, read_toml, table
from .grid import Cell
from .rows import Row, chosen


@dataclass(frozen=True)
class Asked:
    """Rows on one stream."""

    methods: tuple[str, ...] = ("all",)
    stream: str = "mixed"
    concepts: int = 50
    seeds: tuple[int, ...] = (0, 1, 2)


def read_runs(path: Path) -> list[Asked]:
    """The runs of a file, in its order. Raises SettingsError."""
    found = read_toml(path, ["run"]).get("run")
    if not isinstance(found, list) or not found:
        raise SettingsError("there is no [[run]] in it", where=path, do="Write one for each stream and length.")
    runs = [Asked(**checked(Asked, "[[run]]", table(values, "[[run]]", path), path)) for values in found]
    for run in runs:
        if not run.seeds or len(set(run.seeds)) != len(run.seeds) or min(run.seeds) < 0:
            what = f"[[run]] seeds is {list(run.seeds)}"
            raise SettingsError(what, where=path, do="Give whole numbers of 0 or more, each once.")
    return runs


def cells_of(asked: Sequence[Asked], tuned: Mapping[str, Mapping[str, Any]]) -> tuple[list[Row], list[Cell]]:
    """The rows, and the cells in the order in which they are begun, each once. Raises SettingsError for a row's name.

    Seeds go outside rows, so that a run that is stopped half-way has whole tables of its first seeds.
    """
    rows, cells = {}, {}
    for run in asked:
        some = chosen(",".join(run.methods), tuned)
        rows |= {row.name: row for row in some}
        made = (Cell(row.name, run.stream, run.concepts, seed) for seed in run.seeds for row in some)
        cells |= dict.fromkeys(made)
    return list(rows.values()), list(cells)
