"""Which figures a comparison of methods has: curves over the number of concepts, and points of each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .comparison import Compared, Group, ends
from .grid import committed
from .plots import GREY, REFERENCE, SMOOTH, STYLE, Figure, curves, named_beside, plotting, saved, style_of
from .report_pictures import drawings, has_pictures

ALL_OF_THEM = 0.999
"""The share of entries from which on a change counts as moving all of them."""


def figures(group: Group) -> list[Figure]:
    """Every figure that the group has data for, on the seeds that all its methods have."""
    group = group.fair()
    sequential = [row for row in group.rows if row.matrix() is not None]
    found = []
    if sequential and group.length > 2:
        found.append(_knowledge(group, sequential))
        found.append(_first(group, sequential))
        found.append(_plasticity(group, sequential))
        if (dense := _density(group, sequential)) is not None:
            found.append(dense)
    if len(sequential) > 1:
        found.append(_trade(group, sequential))
    if (certified := _certificates(group, sequential)) is not None:
        found.append(certified)
    if drawn := [row for row in group.rows if has_pictures(row.places[0])]:
        found.append(drawings(group, drawn))
    return found


def _knowledge(group: Group, rows: Sequence[Compared]) -> Figure:
    lines = {row.name: 100 * values for row in rows if (values := row.over_time()) is not None}
    caption = (
        "How much of the frozen base's held-out loss is gone, mean of all concepts learned so far. "
        "Dashed: the bounds at the end."
    )
    return curves(group, "knowledge", caption, lines, "gain of all concepts so far, %", _bounds(group))


def _first(group: Group, rows: Sequence[Compared]) -> Figure:
    count = ends(group.length)
    lines = {row.name: 100 * values for row in rows if (values := row.over_time(count)) is not None}
    caption = f"The same for the first {count} concepts alone, as later ones are learned: its fall is forgetting."
    return curves(group, "first-concepts", caption, lines, f"gain of the first {count}, %", _bounds(group))


def _plasticity(group: Group, rows: Sequence[Compared]) -> Figure:
    lines = {row.name: 100 * values for row in rows if (values := row.when_learned()) is not None}
    caption = (
        f"How well each concept was learned when its turn came, median of {SMOOTH} neighbours, faint the concepts "
        "themselves (a few may lie outside): its fall is saturation, where the bounds, dashed, do not fall "
        "with it; not all concepts are equally hard."
    )
    bounds = {row.name: 100 * row.each("gain") for row in group.rows if row.is_bound}
    return curves(group, "plasticity", caption, lines, "gain when just learned, %", bounds, smooth=True)


def _density(group: Group, rows: Sequence[Compared]) -> Figure | None:
    """Of rows whose change does not move every entry: the share that each concept's does, mean over seeds."""
    lines = {}
    for row in rows:
        shares = [[task.get("density") for task in committed(where)] for where in row.places]
        if all(None not in one and len(one) == group.length for one in shares):
            lines[row.name] = 100 * np.mean(np.array(shares, dtype=float), axis=0)
    lines = {name: values for name, values in lines.items() if values.min() < 100 * ALL_OF_THEM}
    if not lines:
        return None
    caption = "The share of the entries that each concept's change moves: what the masks left open."
    return curves(group, "density", caption, lines, "entries moved, %", {})


def _bounds(group: Group) -> dict[str, float]:
    return {row.name: 100 * entry.mean for row in group.rows if row.is_bound and (entry := row.entries["gain"])}


def _trade(group: Group, rows: Sequence[Compared]) -> Figure:
    """Learned when learned against forgotten since: the corner wanted is above and to the left."""
    pyplot = plotting()
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7.2, max(4.2, 0.27 * len(rows))))
        points = []
        # The reference last, as in curves, so that a row has one colour in both where they fit one panel.
        for place, row in enumerate(sorted(rows, key=lambda row: row.name == REFERENCE)):
            forgotten, learned = row.entries["forgetting"], row.when_learned()
            if forgotten is None or learned is None:
                continue
            x, y = 100 * forgotten.mean, 100 * float(learned.mean())
            low, high = (100 * (value if value is not None else forgotten.mean) for value in forgotten[1:3])
            colour = style_of(row.name, place)["color"]
            axes.errorbar(x, y, xerr=[[max(0, x - low)], [max(0, high - x)]], fmt="o", color=colour,
                          markersize=6, elinewidth=1)  # fmt: skip
            points.append((x, y, row.name, colour))
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_xlabel("forgotten at the end, points of gain (95 % interval)")
        axes.set_ylabel("gain when just learned, mean, %")
        named_beside(axes, points)
        caption = "Learning against forgetting: above is learned better, to the left is kept better."
        return saved(pyplot, figure, f"trade-{group.name}", caption)


def _certificates(group: Group, rows: Sequence[Compared]) -> Figure | None:
    """Of guarded rows: each concept's certificate against what it took from the earlier ones when it was learned."""
    points: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for found, where in zip(row.found, row.places, strict=True):
            matrix, learned = np.array(found["matrix"], dtype=float), committed(where)
            for time in range(1, len(learned)):
                lost = 100 * float((matrix[time - 1, :time] - matrix[time, :time]).mean())
                if "certificate" in learned[time] and not np.isnan(lost):
                    xs, ys = points.setdefault(row.name, ([], []))
                    xs.append(learned[time]["certificate"])
                    ys.append(lost)
    if not points:
        return None
    pyplot = plotting()
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7.2, 4.2))
        for place, (title, (xs, ys)) in enumerate(points.items()):
            axes.plot(xs, ys, "o", color=style_of(title, place)["color"], markersize=4, alpha=0.7, label=title)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("certificate: largest share of an earlier prompt's keys and values that moves")
        axes.set_ylabel("gain lost by earlier concepts, points")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
        caption = "The guard's certificate of each concept against what the earlier concepts lost when it was learned."
        return saved(pyplot, figure, f"certificates-{group.name}", caption)
