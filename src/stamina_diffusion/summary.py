"""A studio's columns as matrices, figures and a forecast: plain data, for the page and for `stamina report --json`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from . import capacity, columns, forecast
from .columns import Cell, Column
from .forecast import LEARNED_LIMITS, LIMITS, Forecast
from .metrics import continual

if TYPE_CHECKING:
    from .studio import Studio

Matrix = list[list[float | None]]
"""Version × concept; None above the diagonal, and where nothing was measured."""


def heads(studio: Studio) -> list[str]:
    """The hash of the model after each version, the first concept's first."""
    entries = studio.entries
    return [columns.head_of(studio.base["hash"], entries[: place + 1]) for place in range(len(entries))]


def measured(studio: Studio) -> list[Column | None]:
    """The column of each version of the studio as it is now; None where that model was not measured yet."""
    return [columns.read(studio.folder, head) for head in heads(studio)]


def summarize(studio: Studio) -> dict[str, Any]:
    """Everything that a report says, without its pictures; numbers that were not measured are None."""
    entries, found = studio.entries, measured(studio)
    names = [entry.name for entry in entries]
    newest = found[-1] if found else None
    pictures = {name: _loss_source(found, name) for name in names}
    kept, likeness = (_matrix(found, names, lambda cell, _, key=key: getattr(cell, key)) for key in ("kept", "photos"))
    loss = _matrix(found, names, lambda cell, name: getattr(cell, f"loss_{pictures[name]}") if pictures[name] else None)
    rise = relative(loss)
    figures = {
        "kept": _figures(kept, 1.0),
        "like_photos": _figures(likeness, 1.0),
        # A loss is better when it is lower: forgetting is its rise, relative to when the concept was learned.
        "loss": _figures(rise, -1.0)
        | {"average": _figures(loss, 1.0)["average"], "learned_when_learned": _diagonal(loss)},
    }
    meters = [capacity.from_plain(column.capacity) if column else None for column in found]
    return {
        "studio": studio.folder.name,
        "base": studio.base,
        "version": studio.version,
        "concepts": [
            {key: getattr(entry, key) for key in ("name", "word", "class_word", "method", "steps", "density", "hash")}
            | {"loss_on": pictures[entry.name]}
            for entry in entries
        ],
        "versions": [
            {
                "version": entry.version,
                "newest": entry.name,
                "measured": column is not None,
                "whole": column is not None and column.whole(place),
                "head": head,
            }
            for place, (entry, column, head) in enumerate(zip(entries, found, heads(studio), strict=True), start=1)
        ],
        "encoder": newest.encoder if newest else None,
        "missing": newest.missing if newest else "",
        "notes": list(dict.fromkeys(cell.note for cell in newest.cells.values() if cell.note)) if newest else [],
        "kept": kept,
        "like_photos": likeness,
        "loss": loss,
        "figures": figures,
        "bleed": [[newest.cells[a].bleed.get(b) if a in newest.cells else None for b in names] for a in names]
        if newest and newest.encoder
        else None,
        "drift": _drift(found),
        "capacity": _capacity(meters, names),
        "forecast": _forecasts(kept, likeness, rise, loss, meters),
    }


def _matrix(found: Sequence[Column | None], names: Sequence[str], value: Callable[[Cell, str], float | None]) -> Matrix:
    return [[value(c.cells[name], name) if c and name in c.cells else None for name in names] for c in found]


def _loss_source(found: Sequence[Column | None], name: str) -> str | None:
    """The pictures that all columns measured a concept's loss on: its photos, else its first samples.

    A loss on photos and one on samples cannot be compared, so one kind stands for the whole row.
    """
    cells = [column.cells[name] for column in found if column and name in column.cells]
    for source in ("photos", "samples"):
        if cells and all(getattr(cell, f"loss_{source}") is not None for cell in cells):
            return source
    # Measured in some columns only, as when photos were moved and no samples were drawn: the newest decides.
    newest = cells[-1] if cells else None
    return next((s for s in ("photos", "samples") if newest and getattr(newest, f"loss_{s}") is not None), None)


def relative(loss: Matrix) -> Matrix:
    """Each loss over what it was when the concept had just been learned, minus 1."""
    first = [loss[place][place] for place in range(len(loss))]
    return [
        [None if value is None or not start else value / start - 1 for value, start in zip(row, first, strict=True)]
        for row in loss
    ]


def _array(matrix: Matrix) -> np.ndarray:
    return np.array([[np.nan if value is None else value for value in row] for row in matrix], dtype=float)


def _figures(matrix: Matrix, sign: float) -> dict[str, Any]:
    """Average, forgetting by both definitions, and learned-when-learned; None where a cell they need is missing."""
    figures: dict[str, Any] = {"learned_when_learned": _diagonal(matrix)}
    if not _known(matrix):
        return figures | dict.fromkeys(("average", "forgetting_max", "forgetting_since"))
    scores = sign * _array(matrix)
    return figures | {
        "average": sign * continual.average(scores),
        "forgetting_max": continual.forgetting_max(scores),
        "forgetting_since": continual.forgetting_since(scores),
    }


def _known(matrix: Matrix) -> bool:
    """Whether every concept was measured when it was just learned, and now."""
    return bool(matrix) and all(value is not None for value in (*matrix[-1], *_diagonal(matrix)))


def _diagonal(matrix: Matrix) -> list[float | None]:
    return [matrix[place][place] for place in range(len(matrix))]


def _drift(found: Sequence[Column | None]) -> dict[str, list[float | None]]:
    prompts = dict.fromkeys(prompt for column in found if column for prompt in column.drift)
    return {prompt: [column.drift.get(prompt) if column else None for column in found] for prompt in prompts}


def _capacity(meters: Sequence[capacity.Meter | None], names: Sequence[str]) -> dict[str, Any]:
    """The newest concept's layers, and for each pair of concepts how much their changes meet."""
    # Row: the concept when it was newest; column: each concept before it.
    pairs = {
        part: [
            [
                None if meter is None or name not in meter.overlaps else getattr(meter.overlaps[name], part)
                for name in names
            ]
            for meter in meters
        ]
        for part in ("share", "cosine")
    }
    newest = meters[-1] if meters else None
    norms = {
        name: {site: layer.norm for site, layer in meter.layers.items()} if meter else None
        for name, meter in zip(names, meters, strict=True)
    }
    return {
        "layers": {site: asdict(layer) for site, layer in newest.layers.items()} if newest else {},
        "norms": norms,
        "overlap_share": pairs["share"],
        "overlap_cosine": pairs["cosine"],
    }


def _forecasts(
    kept: Matrix, likeness: Matrix, rise: Matrix, loss: Matrix, meters: Sequence[capacity.Meter | None]
) -> dict[str, Any]:
    """What one more concept is forecast to cost, by the encoder where all was measured with one, else by the loss."""
    by = "kept" if _known(kept) and _known(likeness) else "loss"
    scores, signs = (kept, -1.0) if by == "kept" else (rise, 1.0)
    learned = _diagonal(likeness if by == "kept" else loss)
    falls: list[float] = []
    overlaps: list[float] = []
    for place in range(1, len(scores)):
        meter = meters[place]
        pairs = list(zip(scores[place - 1][:place], scores[place][:place], strict=True))
        if meter is not None and all(a is not None and b is not None for a, b in pairs):
            falls.append(sum(signs * (after - before) for before, after in pairs) / place)  # type: ignore[operator]
            overlaps.append(meter.overlap)
    known = [value for value in learned if value is not None]
    lost = forecast.falls_of_the_earlier(falls, overlaps)
    next_known = forecast.known_when_learned(known) if len(known) == len(learned) else None
    return {
        "by": by,
        "earlier_fall": asdict(lost) if lost else None,
        "earlier_fall_limit": LIMITS[by],
        "next_known": asdict(next_known) if next_known else None,
        "observed_falls": falls,
        "observed_overlaps": overlaps,
        "warnings": warnings(by, lost, next_known, known),
    }


def warnings(by: str, lost: Forecast | None, known: Forecast | None, learned: Sequence[float]) -> list[str]:
    """A line for each forecast that crosses its limit."""
    said = []
    if lost and lost.mean > LIMITS[by]:
        if by == "kept":
            told = f"the earlier concepts are forecast to lose {lost.mean:.2f} of their kept score on average"
            span = f"{lost.low:.2f} to {lost.high:.2f}; limit {LIMITS[by]:.2f}"
        else:
            told = f"the earlier concepts' denoising loss is forecast to rise by {100 * lost.mean:.0f} % on average"
            span = f"{100 * lost.low:.0f} to {100 * lost.high:.0f} %; limit {100 * LIMITS[by]:.0f} %"
        said.append(f"with one more concept {told} ({span}; {lost.rule}, from {lost.points} observations)")
    if known and len(learned) >= forecast.RECENT:
        start = sum(learned[: forecast.RECENT]) / forecast.RECENT
        change, limit = known.mean / start - 1, LEARNED_LIMITS[by]
        if start > 0 and ((limit < 0 and change < limit) or (limit > 0 and change > limit)):
            what = "likeness to its photos" if by == "kept" else "denoising loss"
            said.append(
                f"the next concept's {what} is forecast to be {known.mean:.2f} when just learned, and the first ones "
                f"had {start:.2f} ({known.low:.2f} to {known.high:.2f}; {known.rule}, from {known.points} observations)"
            )
    return said
