"""The gate: a concept that would cost an earlier one too much is learned, measured, and not let in.

Where the base has an encoder, what counts is by how much a concept's kept score falls; elsewhere, by what share its
held-out denoising loss rises. Both are measured on the model before and the model after, in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from . import columns, features, measure, report
from .errors import RefusedError
from .settings import Draw, Report

if TYPE_CHECKING:
    from .backbones.diffusion.text_to_image import TextToImage
    from .studio import Entry, Studio


@dataclass
class Gate:
    """What `Studio.learn` takes as `accept`: it refuses when an earlier concept falls by more than `limit`."""

    studio: Studio
    limit: float
    draw: Draw
    report: Report
    keep_branch: str | None = None
    """The branch that a refused concept is kept on, if it is."""
    drawn: dict[str, list[Image.Image]] = field(default_factory=dict)
    """What the new model drew of the earlier concepts, so that a report need not draw it again."""
    falls: dict[str, float] = field(default_factory=dict)
    """By how much each earlier concept fell; negative where it gained."""

    def __post_init__(self) -> None:
        self._encoder, _ = features.encoder_for(self.studio.base)
        self._before: dict[str, float] = {}
        self._shown: dict[str, Sequence[Image.Image]] = {}
        self._marks: dict[str, features.Remembered] = {}

    def prepare(self) -> None:
        """Measure the studio as it is, before anything is learned.

        Raises RefusedError for a concept that cannot be measured, since the gate could not promise anything about it.
        """
        backbone = self.studio.backbone()
        column = columns.read(self.studio.folder, report.model_hash(self.studio, len(self.studio.entries)))
        for entry in self.studio.entries:
            if self._encoder is None:
                self._shown[entry.name] = self._judged_on(backbone, entry)
                self._before[entry.name] = self._loss(backbone, entry)
                continue
            mark = features.recall(self.studio.concept_folder(entry), self._encoder)
            cell = column.cells.get(entry.name) if column else None
            if mark and cell and cell.kept is not None:
                self._marks[entry.name], self._before[entry.name] = mark, cell.kept
                continue
            now = self._encoder(self._pictures(backbone, entry))
            # Without samples of when it was learned, what it is now is what must not get lost.
            self._marks[entry.name] = mark or features.Remembered(now, now, {})
            self._before[entry.name] = features.kept(now, self._marks[entry.name].samples)

    def __call__(self, entry: Entry, backbone: TextToImage) -> None:
        """Raise RefusedError when an earlier concept falls by more than the limit."""
        for earlier in self.studio.entries:
            self.falls[earlier.name] = self._fall(earlier, backbone)
        worst = sorted(self.falls.items(), key=lambda fall: -fall[1])
        over = [f"<{name}> {self._words(fall)}" for name, fall in worst if fall > self.limit]
        if over:
            raise RefusedError(
                f"{entry.word} was learned but not let in: {', '.join(over)} "
                f"(the limit is {self._amount(self.limit)}); {self._where_it_is()}",
                do="Take fewer steps, a lower rate (--set rate=...), a method that protects what was learned, "
                "or a higher --max-forgetting.",
            )

    def _where_it_is(self) -> str:
        if self.keep_branch is None:
            return "the studio is as it was"
        return f"it is kept on the branch {self.keep_branch}, and this branch is as it was"

    def _fall(self, entry: Entry, backbone: TextToImage) -> float:
        if self._encoder is None:
            before = self._before[entry.name]
            return self._loss(backbone, entry) / before - 1 if before else 0.0
        self.drawn[entry.name] = self._pictures(backbone, entry)
        now = features.kept(self._encoder(self.drawn[entry.name]), self._marks[entry.name].samples)
        return self._before[entry.name] - now

    def _pictures(self, backbone: TextToImage, entry: Entry) -> list[Image.Image]:
        return report.draw_concept(self.studio, backbone, entry, self._encoder, self.draw, self.report)

    def _judged_on(self, backbone: TextToImage, entry: Entry) -> Sequence[Image.Image]:
        """The pictures that a concept's loss is measured on: all its photos, else its first samples."""
        photos = report.source_photos(entry, backbone.resolution)
        whole = [photo for photo in photos if photo is not None]
        found = whole if len(whole) == len(photos) else report.learned_samples(self.studio, entry)
        if not found:
            raise RefusedError(
                f"the gate cannot judge {entry.word}: its photos are gone, and no report drew samples of it",
                where=self.studio.folder,
                do=f"Draw its samples with: stamina report {self.studio.folder}",
            )
        return found

    def _loss(self, backbone: TextToImage, entry: Entry) -> float:
        # The same pictures before and after, also when a photo is moved meanwhile.
        return measure.held_out_loss(backbone, report.PROMPT.format(entry.word), self._shown[entry.name])

    def _words(self, fall: float) -> str:
        if self._encoder is None:
            return f"gets a denoising loss {self._amount(fall)} higher"
        return f"falls by {self._amount(fall)} of its kept score"

    def _amount(self, value: float) -> str:
        return f"{100 * value:.3g} %" if self._encoder is None else f"{value:.3g}"
