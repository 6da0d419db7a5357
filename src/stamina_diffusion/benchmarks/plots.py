"""How a figure of a comparison is drawn, as PNG and as SVG: its style, curves in panels, and a matrix as colours."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import sheets
from ..errors import SettingsError
from ..methods.variants import ABLATIONS, OURS, PAPER, SIBLINGS
from .comparison import Group
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


def curves(
    group: Group,
    name: str,
    caption: str,
    lines: Mapping[str, Array],
    label: str,
    bounds: Mapping[str, float | Array],
    smooth: bool = False,
    parts: Sequence[tuple[str, Sequence[str]]] | None = None,
) -> Figure:
    """Lines over the number of concepts or tasks; a bound is a level, or a value for each of them.

    `parts` are the panels, each with its title and its lines; those of `panels` if not given.
    """
    pyplot = plotting()
    parts = panels(lines) if parts is None else parts
    wide = len(parts) > 1
    with pyplot.rc_context(STYLE):
        if wide:
            down = -(-len(parts) // 2)
            size = (11, 4.3 * down)
            figure, grid = pyplot.subplots(down, 2, figsize=size, sharey=True, squeeze=False, layout="constrained")
        else:
            figure, grid = pyplot.subplots(1, 1, figsize=(7.2, 4.2), squeeze=False)
        for axes in grid.flat[len(parts) :]:
            axes.set_axis_off()
        for axes, (title, names) in zip(grid.flat, parts, strict=False):
            for other in (name for name in lines if name not in names):
                _line(axes, lines[other], smooth, False, color=GREY, linewidth=0.8, alpha=0.35)
            for place, one in enumerate(sorted(names, key=lambda name: name == REFERENCE)):
                _line(axes, lines[one], smooth, True, **style_of(one, place), label=one)
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


def _panel(name: str) -> str:
    """The panel of a row, or of the row that it varies: `c-lora, tuned so` stands with `c-lora`."""
    plain = name.partition(",")[0]
    return STAMINAS if plain == REFERENCE else PANEL_OF.get(name) or PANEL_OF.get(plain, OTHERS)


def panels(
    names: Collection[str], panel_of: Callable[[str], str] = _panel, titles: Sequence[str] = (*PANELS, OTHERS)
) -> list[tuple[str, list[str]]]:
    """Which lines stand together, under which of the titles: all of them while they are few, else those of a group.

    The reference stands in each.

    >>> panels(["lora", "stamina"])
    [('', ['lora', 'stamina'])]
    """
    if len(names) <= IN_ONE:
        return [("", list(names))]
    parts: dict[str, list[str]] = {title: [] for title in titles}
    for name in names:
        if name != REFERENCE:
            parts[panel_of(name)].append(name)
    shown = [name for name in names if name == REFERENCE]
    return [(title, [*some, *shown]) for title, some in parts.items() if some]


def _line(axes: Any, values: Array, smooth: bool, points: bool, **style: Any) -> None:
    """One curve over the number of concepts, where it is known; smoothed, with its points behind it."""
    known = np.flatnonzero(~np.isnan(values))
    if smooth:
        if points:
            axes.plot(known + 1, values[known], ".", color=style["color"], alpha=0.25, markersize=4)
        values = np.array([np.nanmedian(values[max(0, k - SMOOTH // 2) : k + SMOOTH // 2 + 1])
                           for k in range(len(values))])  # fmt: skip
    axes.plot(known + 1, values[known], **style)


def named_beside(axes: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
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


def style_of(name: str, place: int) -> dict[str, Any]:
    """How the line of a row is drawn, by its place in the panel; the reference in ink and thick, wherever it stands."""
    if name == REFERENCE:
        return {"color": INK, "linestyle": "-", "linewidth": 2.4}
    dash = DASHES[place // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": dash, "linewidth": 1.8}


def heat(values: Array, label: str, axes_labels: tuple[str, str], colours: str, limits: tuple[float, float]) -> str:
    """A matrix as colours, as a data address: WebP without loss, the smallest of what every browser shows."""
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
        return sheets.addressed(_few(buffer).convert("RGB"), "webp", 100, lossless=True)


def _few(drawn: io.BytesIO) -> Image.Image:
    """In the 256 colours that suit it best: it looks the same in a third of the size."""
    return Image.open(drawn).convert("RGB").quantize(256, kmeans=4)


def _small(drawn: io.BytesIO) -> bytes:
    small = io.BytesIO()
    _few(drawn).save(small, "PNG", optimize=True)
    return small.getvalue()


def saved(pyplot: Any, figure: Any, name: str, caption: str, pictures: bool = False) -> Figure:
    """Both forms of a figure, which is closed; `pictures` are JPEGs in the SVG, of about their own size in the PNG."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=75 if pictures else 120)
    figure.savefig(svg, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    small = brief(svg.getvalue())
    return Figure(name, caption, _small(png), EMBEDDED.sub(_as_jpeg, small) if pictures else small)


def brief(svg: bytes) -> bytes:
    """The same figure in two thirds of the bytes: styles that stand often get a name, and hundredths of a point do."""
    often = [style for style, count in Counter(STYLED.findall(svg)).most_common() if count > 3]
    names = {style: f"s{place}".encode() for place, style in enumerate(often)}
    rules = b"".join(b".%s{%s}" % (name, style) for style, name in names.items())
    svg = STYLED.sub(lambda found: b' class="%s"' % names[found[1]] if found[1] in names else found[0], svg)
    svg = svg.replace(b"</style>", rules + b"</style>", 1)
    svg = PLACED.sub(lambda found: FINE.sub(rb"\1", found[0]), svg)
    return re.sub(rb"\n\s+", b"\n", svg)


STYLED, PLACED, FINE = re.compile(rb' style="([^"]*)"'), re.compile(rb' (?:d|x|y)="[^"]*"'), re.compile(rb"(\.\d\d)\d+")
EMBEDDED = re.compile(rb"data:image/png;base64,([A-Za-z0-9+/=\s]+)")


def _as_jpeg(found: re.Match[bytes]) -> bytes:
    picture = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
    return sheets.addressed(picture, "jpeg", 60).encode()
