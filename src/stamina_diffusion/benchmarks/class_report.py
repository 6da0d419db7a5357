"""The page of the classification benchmark: adapter × merge × head, with figures, tables and `results.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..heads import HEADS
from . import class_comparison, class_results
from .class_comparison import BEST_BY, MEASURES, ClassCompared, Difference, best, differences, gather, of_head, summary
from .comparison import Group
from .figures import GREY, STYLE, Figure, colour_of, curves, heat, plotting, saved
from .report_parts import Written, inline, publish, section, shown, table

MARKS = dict(zip(HEADS, "osD", strict=True))
PLANNED = ("batch", "schedule", "weight_decay", "clip_norm")
"""Fields of the plan in a row's section; its steps follow from the epochs and the pictures."""
AHEAD = "stamina"
"""The row whose lead over every other is told."""
CURVES = 10
"""Rows that a figure of curves shows: the plain ones first, as gathered; more could not be told apart."""


def write(folder: Path, to: Path) -> Written:
    """Write the page of a folder of results into `to`, which is there. Raises SettingsError where none is finished."""
    groups = gather(folder)
    class_results.write(folder, to)
    return publish(
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


def figures(group: Group) -> list[Figure]:
    """Curves over the tasks for each head, and forgetting against accuracy of all cells of the grid."""
    found = []
    for head in HEADS:
        lines = {row.name: 100 * line for row in _plain(group) if (line := row.over_time(head)) is not None}
        bounds = {row.name: 100 * entry.mean for row in group.rows
                  if row.is_bound and (entry := row.entries[f"{head}/{BEST_BY}"])}  # fmt: skip
        if lines:
            caption = f"Accuracy on all classes learned so far, head {head}. Dashed: all classes at once."
            name = f"accuracy-{head.replace(' ', '-')}"
            found.append(curves(group, name, caption, lines, "accuracy so far, %", bounds))
    if any(not row.is_bound for row in group.rows):
        found.append(_trade(group))
    return found


def _plain(group: Group) -> list[ClassCompared]:
    return [row for row in group.rows if not row.is_bound][:CURVES]


def _trade(group: Group) -> Figure:
    """Forgotten against known at the end: the corner wanted is above and to the left."""
    pyplot = plotting()
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7.2, 5.0))
        for place, row in enumerate(row for row in group.rows if not row.is_bound):
            for head, mark in MARKS.items():
                lost, known = (row.entries[f"{head}/{key}"] for key in ("f_chaudhry", BEST_BY))
                if lost is None or known is None:
                    continue
                spread = [100 * (one.deviation or 0) for one in (lost, known)]
                axes.errorbar(100 * lost.mean, 100 * known.mean, xerr=spread[0], yerr=spread[1], fmt=mark, elinewidth=1,
                              color=colour_of(place)[0], markersize=6,
                              label=row.name if mark == "o" else None)  # fmt: skip
        for head, mark in MARKS.items():
            axes.plot([], [], mark, color=GREY, label=f"head: {head}")
        axes.set_xlabel("forgotten (Chaudhry), points; bars: deviation over seeds")
        axes.set_ylabel("accuracy on all classes at the end, %")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
        caption = "Forgetting against accuracy: above knows more at the end, to the left has forgotten less."
        return saved(pyplot, figure, f"trade-{group.name}", caption)


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
        "pictures": [{"head": head, "png": inline("png", _matrix(found))}
                     for head, found in pictures if found is not None],
    }  # fmt: skip


def _matrix(found: class_comparison.Array) -> bytes:
    return heat(100 * np.asarray(found), "accuracy, %", ("task", "after task"), "Blues", (0, 100))
