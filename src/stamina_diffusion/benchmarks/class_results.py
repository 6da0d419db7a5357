"""What runs of the classification benchmark found: one row a run and head, and their means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import files
from ..heads import HEADS
from .class_rows import ROWS
from .making import shortened
from .results import FILE, finished

RESULT = (
    *("adapter", "merge", "head", "stream", "tasks", "seed", "a_macro", "a_micro", "average_incremental"),
    *("f_coda", "f_chaudhry", "bwt", "trained_percent", "added_parameters", "seconds"),
)
"""What a row of `results.json` says of a run, beside who made it: accuracies and forgetting are shares of 1, and None
where a run does not define them (joint training has no before and after)."""

MADE = ("command", "machine", "date", "commit")
SHOWN = ("a_macro", "a_micro", "average_incremental", "f_coda", "f_chaudhry", "bwt")


def rows(folder: Path) -> list[dict[str, Any]]:
    """One row for each finished run and head, in the order of the table. Raises SettingsError where there is none."""
    order = {name: place for place, name in enumerate(ROWS)}
    known = sorted(
        finished(folder),
        key=lambda run: (run[0]["cell"]["stream"], run[0]["cell"]["length"], order.get(run[0]["cell"]["variant"], 0),
                         run[0]["cell"]["seed"]),
    )  # fmt: skip
    made = []
    for described, result, _ in known:
        who = {key: described["made"].get(key) for key in MADE}
        who["command"] = shortened(who["command"] or "")
        made += [{key: row[key] for key in RESULT} | who for row in result["results"]]
    return made


def write(folder: Path, to: Path | None = None) -> list[dict[str, Any]]:
    """Write `results.json` of a folder of results into it, or into another; the answer is its rows."""
    found = rows(folder)
    files.write_json((to or folder) / FILE, found)
    return found


def means(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each adapter, merge, head, stream and length its means over seeds, its spread, and how many seeds there are.

    A measure's spread is the standard deviation of the sample, None for one seed.

    >>> runs = [{"adapter": "lora", "merge": "sum", "head": "aligned", "stream": "atlas", "tasks": 5, "seed": seed,
    ...          "a_macro": 0.5 + seed / 10} | dict.fromkeys(SHOWN[1:]) for seed in (0, 2)]
    >>> (row,) = means(runs)
    >>> round(row["a_macro"], 2), round(row["a_macro_spread"], 2), row["seeds"], row["f_coda"]
    (0.6, 0.14, 2, None)
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in found:
        groups.setdefault(tuple(row[key] for key in ("adapter", "merge", "head", "stream", "tasks")), []).append(row)
    answers = []
    for (adapter, merge, head, stream, tasks), own in groups.items():
        mean: dict[str, Any] = {"adapter": adapter, "merge": merge, "head": head, "stream": stream, "tasks": tasks}
        for key in SHOWN:
            values = [one[key] for one in own if one[key] is not None]
            mean[key] = statistics.fmean(values) if values else None
            mean[f"{key}_spread"] = statistics.stdev(values) if len(values) > 1 else None
        answers.append({**mean, "seeds": len(own)})
    heads = list(HEADS)
    return sorted(answers, key=lambda row: (row["stream"], row["tasks"], heads.index(row["head"])))
