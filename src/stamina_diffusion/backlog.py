"""What was not measured yet: which versions, how much of each, and the measuring of it, each by its own model.

Where looking at every concept of every version would take long, of an older version only the concept that it had just
learned is looked at: enough to say how much was lost since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState

from . import columns, features, kept
from .report import Watch, look_at_version, model_hash
from .settings import Draw, Report

if TYPE_CHECKING:
    from .backbones.diffusion.text_to_image import TextToImage
    from .studio import Studio

CELLS_AT_ONCE = 60
"""How often a concept is looked at before older versions are measured by their newest concept only."""
SKETCH = Report(samples=2, steps=12)
"""At most so many samples are drawn then, where there are none yet to be drawn again as they were."""


def missing(studio: Studio, *, every: bool = False) -> list[int]:
    """How many concepts the models know that were not measured, or not whole, or by another encoder than now.

    An older version that was measured by its newest concept only is not missing, unless `every` cell is asked for.
    """
    encoder, _ = features.encoder_for(studio.base)
    newest, found = len(studio.entries), []
    for place in range(1, newest + 1):
        column = columns.read(studio.folder, model_hash(studio, place))
        whole = column and all(cell.loss_samples is not None for cell in column.cells.values())
        wanted = place if every or place == newest else 1
        if (
            not column
            or not whole
            or len(column.cells) < wanted
            or column.encoder != (encoder.name if encoder else None)
        ):
            found.append(place)
    return found


def plan(studio: Studio, *, every: bool = False) -> dict[int, int]:
    """For each model that `missing` names, at how many of its concepts, the newest, `complete` will look."""
    todo = missing(studio, every=every)
    if every or sum(todo) <= CELLS_AT_ONCE:
        return {place: place for place in todo}
    return {place: place if place == len(studio.entries) else 1 for place in todo}


def complete(
    studio: Studio, *, draw: Draw, report: Report, watch: Watch = lambda done, of: None, every: bool = False
) -> list[int]:
    """Measure the models that `missing` names as `plan` says, each made from the base; the answer is which they were.

    Oldest first, because a concept's first samples are drawn by the model that had just learned it.
    """
    todo = plan(studio, every=every)
    total, before = sum(count + 1 for count in todo.values()), 0
    sketched = any(count < place for place, count in todo.items())
    how = Report(min(report.samples, SKETCH.samples), min(report.steps, SKETCH.steps)) if sketched else report
    for place, backbone in _models(studio, list(todo)):

        def advance(done: int, _: int, before: int = before) -> None:
            watch(before + done, total)

        looks = look_at_version(studio, place, backbone, draw, report, advance, samples=how, look_at=todo[place])
        before += todo[place] + 1
        version = studio.entries[place - 1].version
        if len(kept.read(studio.folder).get(version, [])) < len(looks):
            kept.write(studio.folder, version, [look.row for look in looks], "")
    return list(todo)


def _models(studio: Studio, places: Sequence[int]) -> Iterator[tuple[int, TextToImage]]:
    """The model with the studio's first `place` concepts, for each place in rising order: one model, folded on."""
    if list(places) == [len(studio.entries)]:
        yield places[0], studio.backbone()
        return
    backbone, folded = studio.bare(), 0
    device = torch.device(PartialState().device or "cpu")
    for place in places:
        backbone.to(torch.device("cpu"))  # folded where `Studio.built` folds, so that the bits are its bits
        for entry in studio.entries[folded:place]:
            studio.fold_recorded(backbone, entry)
        folded = place
        yield place, backbone.to(device)
