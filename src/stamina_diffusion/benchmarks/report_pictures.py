"""The small pictures of a report: photos of concepts, what was drawn of each, and matrices as colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import sheets
from ..errors import StaminaError
from . import strips
from .comparison import Compared, Group
from .concept_streams import subjects
from .grid import END, task_folder
from .plots import STYLE, Figure, heat, plotting, saved

SIDE, QUALITY = 64, 45
"""Pixels at which photos of a world's concept are rendered for the report, and how well a page's pictures are kept."""


def photos(made: Mapping[str, Any], names: Sequence[str], count: int) -> list[list[Image.Image]]:
    """The first training pictures of some concepts of a cell; [] where a manifest's photos are no longer there."""
    cell = made["cell"]
    try:
        known = {one.name: one for one in subjects(cell["stream"], cell["length"], cell["seed"])}
        return [list(known[name].training(count, SIDE)) for name in names]
    except (StaminaError, OSError, KeyError):  # the user's own photos may have moved: the numbers are still wanted
        return []


def then_and_final(where: Path, tasks: int, shown: int) -> Image.Image | None:
    """One column a concept: what was drawn when it was just learned above, what the final model draws below."""
    end = where / END / "final.png"
    if not end.is_file():
        return None
    final = strips.read(end)
    own = [task_folder(where, task) / "own.png" for task in range(tasks)]
    columns = []
    for place, row in enumerate(final):
        then = strips.read(own[place])[0][:shown] if own[place].is_file() else []
        columns.append([*then, *row[:shown]])
    if not columns:
        return None
    # Row by row: the k-th picture of every concept.
    order = [column[k] for k in range(len(columns[0])) for column in columns]
    return sheets.grid(order, len(columns), gap=2)


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


def drawings(group: Group, rows: Sequence[Compared]) -> Figure:
    """What each final model draws of the first, the middle and the last concept, of the first seed that all have."""
    common = set.intersection(*(set(row.seeds) for row in rows))
    shown = [row for row in rows if common] or rows[:1]
    seed = min(common) if common else shown[0].seeds[0]
    names = shown[0].found[shown[0].seeds.index(seed)]["concepts"]
    picked = sorted({0, len(names) // 2, len(names) - 1})
    across = 3
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
        return saved(pyplot, figure, f"drawings-{group.name}", caption, pictures=True)
