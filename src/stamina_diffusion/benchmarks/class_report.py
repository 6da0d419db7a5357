"""The page of the classification benchmark: adapter × merge × head, with figures, tables and `results.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..heads import HEADS
from ..methods.variants import MERGES
from . import class_comparison, class_results
from .class_comparison import BEST_BY, MEASURES, ClassCompared, Difference, best, differences, gather, of_head, summary
from .class_run import FOOTPRINT
from .comparison import Group
from .plots import REFERENCE, STYLE, Figure, curves, heat, named_beside, panels, plotting, saved, style_of
from .report_parts import Written, publish, section, shown, table
from .tables import csv_text, number

EVERY_WEIGHT, LOW_RANK = "every weight, or the head alone", "low-rank changes"
NOT_LOW_RANK = ("frozen", "ft", "ft++", "lwf", "slca")
PLANNED = ("batch", "schedule", "weight_decay", "clip_norm")
"""Fields of the plan in a row's section; its steps follow from the epochs and the pictures."""
AHEAD = REFERENCE
"""The row whose lead over every other is told."""


def write(folder: Path, to: Path) -> Written:
    """Write the page of a folder of results into `to`, which is there. Raises SettingsError where none is finished."""
    groups = gather(folder)
    class_results.write(folder, to)
    written = publish(
        "bench_classes.html",
        folder,
        to,
        groups,
        figures,
        _group,
        summary,
        measures=MEASURES,
        heads=list(HEADS),
    )
    for group in groups:
        for name, lines in (("changes", footprints(group)), ("differences", leads(group))):
            if len(lines) > 1:
                files.write_bytes(to / "tables" / f"{group.name}-{name}.csv", csv_text(lines).encode())
    return written


def footprints(group: Group) -> list[list[Any]]:
    """What each task's change was, mean over seeds: a line for each row and task, below the names of the columns."""
    found: list[list[Any]] = [["adapter", "merge", "seeds", "task", *FOOTPRINT]]
    for row in group.rows:
        known = {key: line for key in FOOTPRINT if (line := row.footprint(key)) is not None}
        for task in range(len(next(iter(known.values()), ()))):
            values = [_exact(known[key][task] if key in known else None) for key in FOOTPRINT]
            found.append([*row.labels.values(), len(row.seeds), task + 1, *values])
    return found


def leads(group: Group) -> list[list[Any]]:
    """How far `AHEAD` is ahead of each row in A_N, as a share of 1: a line a row and head, below the columns' names.

    Ends of the 95 % interval over seeds, where there are several, and of that over classes; 1 where none holds 0.
    """
    found: list[list[Any]] = [
        ["over", "head", "mean", "low_seeds", "high_seeds", "low_classes", "high_classes", "beyond"]
    ]
    for one in differences(group, AHEAD):
        ends = (one.seeds.mean, one.seeds.low, one.seeds.high, one.classes.low, one.classes.high)
        found.append([one.over, one.head, *map(_exact, ends), int(one.beyond)])
    return found


def _exact(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.6g}"


def figures(group: Group) -> list[Figure]:
    """Curves over the tasks for each head, and forgetting against accuracy of all cells of the grid, on equal seeds."""
    group = group.fair()
    titles = {row.name: _panel(row) for row in group.rows}
    found = []
    for head in HEADS:
        lines = {row.name: 100 * line for row in group.methods() if (line := row.over_time(head)) is not None}
        bounds = {row.name: 100 * entry.mean for row in group.rows
                  if row.is_bound and (entry := row.entries[f"{head}/{BEST_BY}"])}  # fmt: skip
        if lines:
            caption = f"Accuracy on all classes learned so far, head {head}. Dashed: all classes at once."
            name = f"accuracy-{head.replace(' ', '-')}"
            parts = panels(lines, titles.__getitem__, (EVERY_WEIGHT, LOW_RANK, *MERGES))
            found.append(curves(group, name, caption, lines, "accuracy so far, %", bounds, parts=parts))
    if group.methods():
        found.append(_trade(group))
    return found


def _panel(row: ClassCompared) -> str:
    """By how its changes are merged, or of those folded whole by what is learned."""
    if row.merge != "sum":
        return row.merge
    return EVERY_WEIGHT if row.adapter in NOT_LOW_RANK else LOW_RANK


def _trade(group: Group) -> Figure:
    """Forgotten against known at the end, a panel for each head: the corner wanted is above and to the left."""
    pyplot = plotting()
    rows = group.methods()
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(1, len(HEADS), figsize=(17, max(4.2, 0.24 * len(rows))))
        for axes, head in zip(grid, HEADS, strict=True):
            points = []
            for place, row in enumerate(rows):
                lost, known = (row.entries[f"{head}/{key}"] for key in ("f_chaudhry", BEST_BY))
                if lost is None or known is None:
                    continue
                x, y, colour = 100 * lost.mean, 100 * known.mean, style_of(row.name, place)["color"]
                bars = [100 * (one.deviation or 0) for one in (lost, known)]
                axes.errorbar(x, y, xerr=bars[0], yerr=bars[1], fmt="o", elinewidth=1, color=colour, markersize=6)
                points.append((x, y, row.name, colour))
            axes.set_title(f"head: {head}", fontsize=10)
            axes.set_xlabel("forgotten (Chaudhry), points")
            named_beside(axes, points)
        grid[0].set_ylabel("accuracy on all classes at the end, %")
        figure.subplots_adjust(wspace=0.8)
        caption = (
            "Forgetting against accuracy, bars the deviation over seeds: above knows more at the end, to the left has "
            "forgotten less."
        )
        return saved(pyplot, figure, f"trade-{group.name}", caption)._replace(wide=True)


def _group(group: Group, drawn: Sequence[Figure]) -> dict[str, Any]:
    first = best(group)
    return {
        "stream": group.stream,
        "length": group.length,
        "told": group.rows[0].depends["told"],
        "best": first and {"row": first[0], "head": first[1], "a": _percent(group, *first)},
        "bounds": [{"row": row.name, "head": head, "a": _percent(group, row.name, head)}
                   for row in group.rows if row.is_bound for head in HEADS],
        "summary": table(summary(group)),
        "tables": [{"head": head, **table(of_head(group, head))} for head in HEADS],
        "figures": shown(drawn),
        "ahead": AHEAD,
        "differences": _differences(differences(group, AHEAD)),
        "rows": [_row(row, group) for row in group.rows],
    }  # fmt: skip


def _percent(group: Group, name: str, head: str) -> str:
    entry = next(row for row in group.rows if row.name == name).entries[f"{head}/{BEST_BY}"]
    return "–" if entry is None else f"{100 * entry.mean:.1f}"


def _differences(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """One line for each other row: its difference under every head."""
    lines: dict[str, dict[str, Any]] = {}
    for one in found:
        over = "" if one.seeds.low is None else f"{100 * one.seeds.low:+.1f} … {100 * (one.seeds.high or 0):+.1f} seeds"
        among = f"{100 * one.classes.low:+.1f} … {100 * one.classes.high:+.1f} classes"
        told = {"mean": f"{100 * one.seeds.mean:+.1f}".replace("-", "−"), "seeds": over.replace("-", "−")}
        lines.setdefault(one.over, {})[one.head] = told | {"classes": among.replace("-", "−"), "beyond": one.beyond}
    return [{"over": over, "cells": [cells[head] for head in HEADS]} for over, cells in lines.items()]


def _row(row: ClassCompared, group: Group) -> dict[str, Any]:
    pictures = [(head, row.matrix(head)) for head in HEADS]
    return {
        **section(row, group, row.depends["of"], PLANNED),
        "seeds": ", ".join(str(seed) for seed in row.seeds),
        "undefined": [
            {"measure": one.title, "why": why}
            for key, why in row.undefined().items()
            for one in MEASURES
            if one.key == key
        ],
        "footprint": _by_task(row),
        "pictures": [{"head": head, "shown": _matrix(found)}
                     for head, found in pictures if found is not None],
    }  # fmt: skip


def _by_task(row: ClassCompared) -> list[dict[str, str]]:
    """What each task's change was, one line a measure."""
    known = {one: line for one in MEASURES if one.key in FOOTPRINT and (line := row.footprint(one.key)) is not None}
    return [
        {"measure": one.title, "told": ", ".join("–" if np.isnan(value) else number(value, one) for value in line)}
        for one, line in known.items()
    ]


def _matrix(found: class_comparison.Array) -> str:
    return heat(100 * np.asarray(found), "accuracy, %", ("task", "after task"), "Blues", (0, 100))
