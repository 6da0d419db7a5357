"""The small pictures of a report: photos of concepts, what was drawn of each, and matrices as colours."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import files, sheets
from ..errors import StaminaError
from . import strips
from .comparison import Compared, Group
from .concept_streams import subjects
from .grid import CELL, END, places, task_folder
from .plots import STYLE, Figure, heat, plotting, saved

SIDE, QUALITY, GAP = 64, 45, 2
"""Pixels at which photos of a world's concept are rendered for the report, how well a page's pictures are kept, and the
pixels between them."""
SHOWN = 2
"""Pictures of each concept, when it was just learned and at the end."""
KEPT = "page.webp"
"""At a cell's end: its pictures as a page shows them, taken from one, where those that were drawn are gone."""
_DETAILS = re.compile(r'<details id="([^"]*)">(.*?)</details>', re.DOTALL)
_DRAWN = re.compile(
    r'<figure class="drawn"><img src="data:image/webp;base64,([^"]*)" alt=""><figcaption>[^<]*\(seed (\d+)\)'
)


def photos(made: Mapping[str, Any], names: Sequence[str], count: int) -> list[list[Image.Image]]:
    """The first training pictures of some concepts of a cell; [] where a manifest's photos are no longer there."""
    cell = made["cell"]
    try:
        known = {one.name: one for one in subjects(cell["stream"], cell["length"], cell["seed"])}
        return [list(known[name].training(count, SIDE)) for name in names]
    except (StaminaError, OSError, KeyError):  # the user's own photos may have moved: the numbers are still wanted
        return []


def then_and_final(where: Path) -> str | None:
    """One column a concept: what was drawn when it was just learned above, what the final model draws below.

    The answer is a data address, as it stood on the page if it was taken from one; None where there are no pictures.
    """
    end, kept = where / END / "final.png", where / END / KEPT
    if not end.is_file():
        return sheets.address("webp", kept.read_bytes()) if kept.is_file() else None
    columns = []
    for task, row in enumerate(strips.read(end)):
        own = task_folder(where, task) / "own.png"
        then = strips.read(own)[0][:SHOWN] if own.is_file() else []
        columns.append([*then, *row[:SHOWN]])
    # Row by row: the k-th picture of every concept.
    order = [column[k] for k in range(len(columns[0])) for column in columns]
    return sheets.addressed(sheets.grid(order, len(columns), gap=GAP), "webp", QUALITY)


def has_pictures(where: Path) -> bool:
    """Whether there is anything that `final` could show of a cell."""
    return any((where / END / name).is_file() for name in ("final.png", KEPT))


def final(where: Path, tasks: int) -> list[list[Image.Image]] | None:
    """What the final model draws of each concept, `SHOWN` of it; None where there are no pictures."""
    end, kept = where / END / "final.png", where / END / KEPT
    if end.is_file():
        return [row[:SHOWN] for row in strips.read(end)]
    if not kept.is_file():
        return None
    page = Image.open(kept).convert("RGB")
    step = (page.width + GAP) // tasks
    side, top = step - GAP, page.height + GAP - SHOWN * step
    return [
        [page.crop((x, y, x + side, y + side)) for y in range(top, page.height, step)]
        for x in range(0, page.width, step)
    ]


def take_back(page: Path, folder: Path) -> int:
    """Keep with each finished cell of `folder` its pictures as a report shows them; the answer is of how many.

    A page has those of the first seed of each row.
    """
    text = page.read_text()
    shown = {
        (anchor, int(seed)): data
        for anchor, section in _DETAILS.findall(text)
        for data, seed in _DRAWN.findall(section)
    }
    count = 0
    for where in places(folder):
        cell = files.read_json(where / CELL)["cell"]
        data = shown.get((anchor(f"{cell['stream']}-{cell['length']}-{cell['variant']}"), cell["seed"]))
        if data is not None and (where / END).is_dir():
            files.write_bytes(where / END / KEPT, base64.b64decode(data))
            count += 1
    return count


def anchor(text: str) -> str:
    """Where a page says more of a row.

    >>> anchor("atlas-10-stamina, averaged")
    'atlas-10-stamina-averaged'
    """
    return text.replace(" ", "-").replace(",", "")


def matrix_picture(row: Compared) -> str | None:
    """The gains of each concept (across) after each one was learned (down)."""
    matrix = row.matrix()
    if matrix is None:
        return None
    limit = max(1e-6, float(np.nanmax(np.abs(matrix)))) * 100
    return heat(100 * matrix, "gain, %", ("concept", "after concept"), "RdBu", (-limit, limit))


def bleed_picture(row: Compared) -> str | None:
    """How alike what each word draws (down) is to each concept's pictures (across), of the first seed."""
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
    lines: list[tuple[str, list[list[Image.Image]]]] = []
    first = shown[0]
    pictures = photos(first.made[first.seeds.index(seed)], [names[place] for place in picked], SHOWN)
    if pictures:
        lines.append(("photos", pictures))
    for row in shown:
        drawn = final(row.places[row.seeds.index(seed)], len(names))
        if drawn is not None:
            lines.append((row.name, [drawn[place] for place in picked]))
    pyplot = plotting()
    with pyplot.rc_context({**STYLE, "axes.grid": False}):
        size = (
            0.74 * SHOWN * len(picked),
            0.74 * len(lines),
        )  # without the names, for which room is made when it is saved
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
            ax.set_title(f"concept {place + 1}\n{names[place]}", fontsize=9)
        figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.04, hspace=0.06)
        caption = f"What each final model draws of the first, the middle and the last concept (seed {seed})."
        return saved(pyplot, figure, f"drawings-{group.name}", caption, pictures=True)
