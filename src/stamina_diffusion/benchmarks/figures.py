"""Figures of a comparison, each as PNG and as SVG: curves over the number of concepts, and grids of what is drawn."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import SettingsError
from ..methods.variants import ABLATIONS, OURS, PAPER, SIBLINGS
from . import strips
from .comparison import Compared, Group
from .grid import END, committed
from .rows import BOUNDS

Array = NDArray[np.floating]
COLOURS = ("#2b62c9", "#d66a1e", "#1f8a5b", "#b03060", "#7b52c7", "#0f9bb0", "#a07c00")
DASHES = ("-", "--", ":", "-.")
INK = "#111827"
REFERENCE = "stamina"
"""The row that is drawn in ink, and in every panel."""
STAMINAS, OTHERS = "STAMINA, its parts and forms", "others"
PANELS: Mapping[str, Collection[str]] = {
    "the papers' methods": PAPER,
    STAMINAS: ABLATIONS,
    "later methods": SIBLINGS,
    "the guard": OURS,
}
PANEL_OF = {name: title for title, rows in PANELS.items() for name in rows}
IN_ONE = 10
"""Lines that one panel may hold; more are drawn by their group, the others of them in grey."""
GREY = "#8b93a1"
BOUND_DASHES = dict(zip(BOUNDS, ((6, 3), (3, 2), (1, 2)), strict=True))
ALL_OF_THEM = 0.999
"""The share of entries from which on a change counts as moving all of them."""
SMOOTH = 5
"""Concepts that the plasticity curve takes the median of."""
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e7ee",
    "axes.edgecolor": "#9aa4b4",
    "svg.hashsalt": "stamina",
    "figure.dpi": 110,
    "savefig.bbox": "tight",
}


class Figure(NamedTuple):
    """A picture in both forms."""

    name: str
    caption: str
    png: bytes
    svg: bytes
    wide: bool = False
    """Of several panels: a page gives it a row of its own."""


def plotting() -> Any:
    """matplotlib's pyplot, without a display. Raises SettingsError where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        do = "Run: pip install 'stamina-diffusion[bench]'"
        raise SettingsError("figures need the package matplotlib", do=do) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def figures(group: Group) -> list[Figure]:
    """Every figure that the group has data for."""
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
    if drawn := [row for row in group.rows if (row.places[0] / END / "final.png").is_file()]:
        found.append(_drawings(group, drawn))
    return found


def _knowledge(group: Group, rows: Sequence[Compared]) -> Figure:
    lines = {row.name: 100 * values for row in rows if (values := row.over_time()) is not None}
    caption = (
        "How much of the frozen base's held-out loss is gone, mean of all concepts learned so far. "
        "Dashed: the bounds at the end."
    )
    return curves(group, "knowledge", caption, lines, "gain of all concepts so far, %", _bounds(group))


def _first(group: Group, rows: Sequence[Compared]) -> Figure:
    count = min(10, max(1, group.length // 2))
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


def curves(
    group: Group,
    name: str,
    caption: str,
    lines: Mapping[str, Array],
    label: str,
    bounds: Mapping[str, float | Array],
    smooth: bool = False,
) -> Figure:
    """Lines over the number of concepts or tasks; a bound is a level, or a value for each of them."""
    pyplot = plotting()
    parts = panels(lines)
    wide = len(parts) > 1
    with pyplot.rc_context(STYLE):
        if wide:
            down = -(-len(parts) // 2)
            figure, grid = pyplot.subplots(down, 2, figsize=(11, 4.3 * down), sharey=True, layout="constrained")
        else:
            figure, grid = pyplot.subplots(1, 1, figsize=(7.2, 4.2), squeeze=False)
        for axes in grid.flat[len(parts) :]:
            axes.set_axis_off()
        for axes, (title, names) in zip(grid.flat, parts, strict=False):
            for other in lines.keys() - set(names):
                _line(axes, lines[other], smooth, False, color=GREY, linewidth=0.8, alpha=0.35)
            styles = [colour_of(place) for place in range(len(names))]
            for one, (colour, dash) in zip([name for name in names if name != REFERENCE], styles, strict=False):
                _line(axes, lines[one], smooth, True, color=colour, linestyle=dash, linewidth=1.8, label=one)
            if REFERENCE in names:
                _line(axes, lines[REFERENCE], smooth, True, color=INK, linewidth=2.4, label=REFERENCE)
            for one, value in bounds.items():
                # Named in the legend, not beside the lines: bounds lie close together.
                dashes = (0, BOUND_DASHES.get(one, (6, 3)))
                style = {"color": GREY, "linewidth": 1.1, "linestyle": dashes, "label": one}
                if isinstance(value, np.ndarray):
                    _line(axes, value, smooth, False, **style)
                else:
                    axes.axhline(value, **style)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel(f"{group.counted} learned")
            if axes in grid[:, 0]:
                axes.set_ylabel(label)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if smooth:
                axes.set_ylim(*_inner(lines.values()))
            where = ("upper center", (0.5, -0.13)) if wide else ("center left", (1.01, 0.5))
            axes.legend(loc=where[0], bbox_to_anchor=where[1], frameon=False, fontsize=9, ncols=2 if wide else 1)
        return saved(pyplot, figure, f"{name}-{group.name}", caption)._replace(wide=wide)


def _inner(lines: Iterable[Array]) -> tuple[float, float]:
    """Limits that hold 98 % of the values with room around: one concept that failed shall not flatten all others."""
    low, high = np.nanpercentile(np.concatenate(list(lines)), (1, 99))
    room = 0.25 * max(high - low, 1e-6)
    return float(low - room), float(high + room)


def panels(names: Collection[str]) -> list[tuple[str, list[str]]]:
    """Which lines stand together, under which title: all of them while they are few, else those of a group.

    >>> panels(["lora", "stamina"])
    [('', ['lora', 'stamina'])]
    """
    if len(names) <= IN_ONE:
        return [("", list(names))]
    parts: dict[str, list[str]] = {title: [] for title in (*PANELS, OTHERS)}
    for name in names:
        if name != REFERENCE:
            parts[_panel(name)].append(name)
    shown = [name for name in names if name == REFERENCE]
    return [(title, [*some, *shown]) for title, some in parts.items() if some]


def _panel(name: str) -> str:
    """The panel of a row, or of the row that it varies: `c-lora, tuned so` stands with `c-lora`."""
    plain = name.partition(",")[0]
    return PANEL_OF.get(name) or (STAMINAS if plain == REFERENCE else PANEL_OF.get(plain, OTHERS))


def _line(axes: Any, values: Array, smooth: bool, points: bool, **style: Any) -> None:
    """One curve over the number of concepts, where it is known; smoothed, with its points behind it."""
    known = np.flatnonzero(~np.isnan(values))
    if smooth:
        if points:
            axes.plot(known + 1, values[known], ".", color=style["color"], alpha=0.25, markersize=4)
        values = np.array([np.nanmedian(values[max(0, k - SMOOTH // 2) : k + SMOOTH // 2 + 1])
                           for k in range(len(values))])  # fmt: skip
    axes.plot(known + 1, values[known], **style)


def colour_of(place: int) -> tuple[str, str]:
    """The colour and dash of line `place`, different for as many as there are rows."""
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]


def _trade(group: Group, rows: Sequence[Compared]) -> Figure:
    """Learned when learned against forgotten since: the corner wanted is above and to the left."""
    pyplot = plotting()
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7.2, max(4.2, 0.27 * len(rows))))
        points = []
        for place, row in enumerate(rows):
            forgotten, learned = row.entries["forgetting"], row.when_learned()
            if forgotten is None or learned is None:
                continue
            x, y = 100 * forgotten.mean, 100 * float(learned.mean())
            low, high = (100 * (value if value is not None else forgotten.mean) for value in forgotten[1:3])
            colour = INK if row.name == REFERENCE else colour_of(place)[0]
            axes.errorbar(x, y, xerr=[[max(0, x - low)], [max(0, high - x)]], fmt="o", color=colour,
                          markersize=6, elinewidth=1)  # fmt: skip
            points.append((x, y, row.name, colour))
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_xlabel("forgotten at the end, points of gain (95 % interval)")
        axes.set_ylabel("gain when just learned, mean, %")
        _named_beside(axes, points)
        caption = "Learning against forgetting: above is learned better, to the left is kept better."
        return saved(pyplot, figure, f"trade-{group.name}", caption)


def _named_beside(axes: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names in a column on the right, in the order of their points' heights, each with a thin line to its point."""
    ordered = sorted(points, key=lambda point: point[1])
    low, high = axes.get_ylim()
    heights = [(y - low) / (high - low) for _, y, *_ in ordered]
    gap = 1 / max(len(ordered), 12)
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + gap)
    heights[-1:] = [min(1.0, height) for height in heights[-1:]]
    for place in range(len(heights) - 2, -1, -1):
        heights[place] = min(heights[place], heights[place + 1] - gap)
    for (x, y, name, colour), height in zip(ordered, heights, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.5, "relpos": (0, 0.5)}
        axes.annotate(name, (x, y), (1.03, height), textcoords="axes fraction", va="center", fontsize=9,
                      color=colour, arrowprops=line)  # fmt: skip


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
            axes.plot(xs, ys, "o", color=colour_of(place)[0], markersize=4, alpha=0.7, label=title)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("certificate: largest share of an earlier prompt's keys and values that moves")
        axes.set_ylabel("gain lost by earlier concepts, points")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
        caption = "The guard's certificate of each concept against what the earlier concepts lost when it was learned."
        return saved(pyplot, figure, f"certificates-{group.name}", caption)


def matrix_picture(row: Compared) -> bytes | None:
    """The gains of each concept (across) after each one was learned (down), as a PNG."""
    matrix = row.matrix()
    if matrix is None:
        return None
    limit = max(1e-6, float(np.nanmax(np.abs(matrix)))) * 100
    return heat(100 * matrix, "gain, %", ("concept", "after concept"), "RdBu", (-limit, limit))


def bleed_picture(row: Compared) -> bytes | None:
    """How alike what each word draws (down) is to each concept's pictures (across), of the first seed, as a PNG."""
    bleed = row.found[0].get("bleed")
    if bleed is None:
        return None
    values = np.array(bleed, dtype=float)
    return heat(values, "cosine", ("pictures of concept", "word of concept"), "Blues", (values.min(), values.max()))


def heat(values: Array, label: str, axes_labels: tuple[str, str], colours: str, limits: tuple[float, float]) -> bytes:
    pyplot = plotting()
    with pyplot.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = pyplot.subplots(figsize=(3.6, 3.0))
        size, (low, high) = len(values), limits
        extent = (0.5, values.shape[1] + 0.5, size + 0.5, 0.5)
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest", extent=extent)
        axes.set_xlabel(axes_labels[0])
        axes.set_ylabel(axes_labels[1])
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True)
        figure.colorbar(image, ax=axes, label=label)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        pyplot.close(figure)
        return buffer.getvalue()


def _drawings(group: Group, rows: Sequence[Compared]) -> Figure:
    """What each final model draws of the first, the middle and the last concept, of the first seed that all have."""
    common = set.intersection(*(set(row.seeds) for row in rows))
    shown = [row for row in rows if common] or rows[:1]
    seed = min(common) if common else shown[0].seeds[0]
    names = shown[0].found[shown[0].seeds.index(seed)]["concepts"]
    picked = sorted({0, len(names) // 2, len(names) - 1})
    across = 3
    from .report_pictures import photos

    lines: list[tuple[str, list[list[Image.Image]]]] = []
    first = shown[0]
    pictures = photos(first.made[first.seeds.index(seed)], [names[place] for place in picked], across)
    if pictures:
        lines.append(("photos", pictures))
    for row in shown:
        rows_ = strips.read(row.places[row.seeds.index(seed)] / END / "final.png")
        lines.append((row.name, [rows_[place][:across] for place in picked]))
    pyplot = plotting()
    with pyplot.rc_context({**STYLE, "axes.grid": False}):
        size = (0.72 * across * len(picked) + 2.4, 0.72 * len(lines) + 0.4)
        figure, axes = pyplot.subplots(len(lines), len(picked), figsize=size, squeeze=False)
        for line, (title, groups) in zip(axes, lines, strict=True):
            for place, (ax, pictures_) in enumerate(zip(line, groups, strict=True)):
                ax.imshow(np.concatenate([np.asarray(one) for one in pictures_], axis=1), interpolation="lanczos")
                ax.set_xticks([])
                ax.set_yticks([])
                for spine in ax.spines.values():
                    spine.set_visible(False)
                if not place:
                    ax.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
        for ax, place in zip(axes[0], picked, strict=True):
            ax.set_title(f"concept {place + 1}: {names[place]}", fontsize=9)
        figure.subplots_adjust(wspace=0.04, hspace=0.06)
        caption = f"What each final model draws of the first, the middle and the last concept (seed {seed})."
        return saved(pyplot, figure, f"drawings-{group.name}", caption)


def saved(pyplot: Any, figure: Any, name: str, caption: str) -> Figure:
    parts = {}
    for form in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=120 if form == "png" else None, metadata={"Date": None} if form == "svg"
                       else None)  # fmt: skip
        parts[form] = buffer.getvalue()
    pyplot.close(figure)
    return Figure(name, caption, parts["png"], parts["svg"])
