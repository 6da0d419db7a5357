"""The small pictures of a report: photos of concepts, what was drawn of each, and matrices as colours."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .. import sheets
from ..errors import StaminaError
from . import strips
from .concept_streams import subjects
from .grid import END, task_folder

SIDE = 64
"""Pixels at which photos of a world's concept are rendered for the report."""


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


def inline(picture: Image.Image) -> str:
    """A picture as a data address of a JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
