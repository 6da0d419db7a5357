"""What was not measured yet: which versions, how much of each, and the measuring of it, each by its own model.

Where looking at every concept of every version would take long, of an older version only the concept that it had just
learned is looked at: enough to say how much was lost since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
SKETCH = Report(samples=2, steps=6)
"""At most so many samples are drawn then, where there are none yet to be drawn again as they were."""


def missing(studio: Studio, *, every: bool = False) -> list[int]:
    """How many concepts the models know that were not measured, or not whole, or by another encoder than now.

    An older version that was measured by its newest concept only is not missing, unless `every` cell is asked for.
    """
    encoder, _ = features.encoder_for(studio.base)
    newest, found = len(studio.entries), []
    for place in range(1, newest + 1):
        column = columns.read(studio.folder, model_hash(studio, place))
        sound = (
            column
            and column.encoder == (encoder.name if encoder else None)
            # A sketch has the loss on the photos only, if it could be had.
            and all(
                cell.loss_samples is not None or (cell.loss_photos is not None and not column.whole(place))
                for cell in column.cells.values()
            )
        )
        if not column or not sound or ((every or place == newest) and not column.whole(place)):
            found.append(place)
    return found


def plan(studio: Studio, *, every: bool = False) -> dict[int, int]:
    """For each model that `missing` names, at how many of its concepts `complete` will look; 0 for a sketch.

    A sketch looks at the newest concept alone, and not at the base's drift.
    """
    todo = missing(studio, every=every)
    whole = every or sum(todo) <= CELLS_AT_ONCE
    return {place: place if whole or place == len(studio.entries) else 0 for place in todo}


def length(planned: Mapping[int, int]) -> int:
    """How many times `complete` will say that it is further."""
    return sum((count or 1) + 1 for count in planned.values())


def complete(
    studio: Studio, *, draw: Draw, report: Report, watch: Watch = lambda done, of: None, every: bool = False
) -> list[int]:
    """Measure the models that `missing` names as `plan` says, each made from the base; the answer is which they were.

    Oldest first, because a concept's first samples are drawn by the model that had just learned it.
    """
    todo = plan(studio, every=every)
    total, before = length(todo), 0
    sketched = 0 in todo.values()
    how = Report(min(report.samples, SKETCH.samples), min(report.steps, SKETCH.steps)) if sketched else report
    for place, backbone in _models(studio, list(todo)):

        def advance(done: int, _: int, before: int = before) -> None:
            watch(before + done, total)

        looks = look_at_version(studio, place, backbone, draw, report, advance, samples=how, sketch=not todo[place])
        before += (todo[place] or 1) + 1
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
