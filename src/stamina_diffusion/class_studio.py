"""A classifier's studio: folder, ledger, lock and recovery of a text-to-image model's, and tasks of classes in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor

from . import bases, heads
from .backbones import vit
from .concepts import Task
from .errors import LedgerError, NameTakenError, OtherKindError, SettingsError, StudioError
from .heads import Head, MakeHead, Statistics, of_thin
from .ledger import Entry
from .photos import Photo
from .plan import Plan
from .sites import Site
from .studio import Studio
from .toml_tables import unknown

STATISTICS = "statistics.safetensors"
"""In a task's folder: of each of its classes the mean and covariance of the features; no picture."""
TRAINED, BEST = "trained", "aligned"
HEADS: dict[str, MakeHead] = {
    TRAINED: heads.HEADS["local softmax"],
    BEST: heads.HEADS["aligned"],
    "nearest-mean": heads.HEADS["nearest mean"],
}
"""By the names of the command line. The best is that of the benchmark of classification (docs/classification.md)."""


class ClassStudio(Studio):
    """A folder that holds a classifier with a history; a photo's caption is the name of its class."""

    network: ClassVar[Literal["pipeline", "vit"]] = "vit"
    made_by: ClassVar[str] = "stamina classify init"

    @classmethod
    def _find(cls, base: str, revision: str | None, variant: str | None, config: Path | None) -> bases.Base:
        found = bases.find_vit(base, revision=revision)
        vit.load(found.folder())  # what is no ViT is refused before anything is written
        return found

    @property
    def classes(self) -> list[str]:
        """Every class that it knows, the oldest first."""
        return [name for entry in self.entries for name in entry.classes or ()]

    @property
    def taught(self) -> dict[str, str]:
        """Every picture that it has learned from, by its hash."""
        return {
            photo["sha256"]: f"{photo['file']!r} of class {photo.get('class')!r}, which {entry.title} learned from"
            for entry in self.entries
            for photo in entry.photos
        }

    def check_classes(self, names: Sequence[str]) -> None:
        """Raise NameTakenError for a class that was learned already."""
        known = {name.casefold(): name for name in self.classes}
        for name in names:
            if name.casefold() in known:
                taken = known[name.casefold()]
                raise NameTakenError(
                    f"the class {taken!r} was learned already", do="Leave it out, or rename its folder."
                )

    def check_taught(self) -> None:
        """Raise StudioError where no class was learned yet."""
        if not self.classes:
            do = f"Teach it with: stamina classify learn {self.folder} FOLDER_OF_CLASS_FOLDERS"
            raise StudioError("has learned no class yet", where=self.folder, do=do)

    def bare(self) -> vit.VisionTransformer:  # type: ignore[override]
        """The base without a class, on the CPU."""
        return vit.load(self._record.base.folder())

    def classifier(self, head: str | None = "trained") -> vit.VisionTransformer:
        """The classifier of the newest version under a head of `HEADS`; None for the best that there is.

        Raises SettingsError for an unknown head, LedgerError where a task has no statistics to make it of, and what
        `backbone` raises.
        """
        # Of one task alone the softmax was over all classes that there are: nothing is left to align.
        several = len(self.entries) > 1 and all(STATISTICS in entry.files for entry in self.entries)
        head = head or (BEST if several else TRAINED)
        if head not in HEADS:
            raise SettingsError(unknown(head, HEADS, "there is no head", "Heads:"), where="--head")
        classifier: vit.VisionTransformer = self.backbone()  # type: ignore[assignment]
        if head == TRAINED or not self.entries:
            return classifier
        known = self.statistics()
        own = classifier.head
        trained = Head(own.weight.detach().cpu(), own.bias.detach().cpu())
        # The studio's own classifier keeps the head that later tasks are learned with.
        other = vit.VisionTransformer(
            copy.deepcopy(classifier.network), classifier.sight, classifier.learned, matrices=classifier.matrices
        )
        other.set_head(*HEADS[head](trained, known))
        return other

    def statistics(self) -> Statistics:
        """The mean and covariance of every class that it knows, each as the network saw it when it was learned.

        Raises LedgerError where they were not kept, or are not what was written.
        """
        parts = []
        for entry in self.entries:
            path = self.concept_folder(entry) / STATISTICS
            if STATISTICS not in entry.files:
                what = f"{entry.title} was learned before statistics of classes were kept"
                raise LedgerError(what, where=path, do="Take --head trained.")
            try:
                parts.append(of_thin(self.read_checked(entry, STATISTICS)))
            except (KeyError, ValueError, RuntimeError, IndexError) as error:
                do = "Get the studio again from where it came."
                raise LedgerError(f"holds no statistics of classes: {error}", where=path, do=do) from error
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.joined(part)
        return whole

    def _beside(self, backbone: vit.VisionTransformer, concept: Task) -> Mapping[str, Mapping[str, Tensor]]:  # type: ignore[override]
        return {STATISTICS: backbone.statistics(concept).thin()}

    def built(self, entries: Sequence[Entry]) -> vit.VisionTransformer:  # type: ignore[override]
        """The base with the recorded changes of some tasks, folded in their order."""
        classifier = self.bare()
        for entry in entries:
            self.fold_recorded(classifier, entry)
        return classifier.to(torch.device(PartialState().device or "cpu"))

    def fold_recorded(self, backbone: vit.VisionTransformer, entry: Entry) -> dict[str, Site]:  # type: ignore[override]
        recorded = self.read_checked(entry, "change.safetensors")
        try:
            return backbone.restore(_task(entry), recorded)
        except (KeyError, IndexError, ValueError, RuntimeError, SettingsError, NameTakenError) as error:
            # Its hash is right, so it was written like this: for another base, or to do harm.
            path = self.concept_folder(entry) / "change.safetensors"
            do = "Get the studio again from where it came."
            raise LedgerError(f"does not fit the base: {error}", where=path, do=do) from error

    def _concept(  # type: ignore[override]
        self,
        backbone: vit.VisionTransformer,
        photos: Sequence[Photo],
        name: str,
        plan: Plan,
        class_word: str | None,
    ) -> Task:
        classes = tuple(dict.fromkeys(photo.caption or "" for photo in photos))
        self.check_classes(classes)
        side = backbone.sight.resize or backbone.sight.side
        pictures = tuple(photo.load(side) for photo in photos)
        place = {label: row for row, label in enumerate(classes)}
        labels = tuple(place[photo.caption or ""] for photo in photos)
        return Task(name, pictures, class_word=class_word, classes=classes, labels=labels)


def open_any(folder: Path) -> Studio:
    """The studio in a folder, whichever kind it is: what looks at history alone is the same for both."""
    try:
        return Studio.open(folder)
    except OtherKindError:
        return ClassStudio.open(folder)


def _task(entry: Entry) -> Task:
    """A task of which only the name and the classes are known."""
    classes = tuple(entry.classes or ())
    blank = Image.new("RGB", (1, 1))
    return Task(entry.name, (blank,) * len(classes), classes=classes, labels=tuple(range(len(classes))))


def named(classifier: vit.VisionTransformer, photos: Sequence[Photo], top: int = 1) -> list[list[tuple[str, float]]]:
    """For each photo the `top` classes with their shares of 1, the likeliest first."""
    side = classifier.sight.resize or classifier.sight.side
    shares: Tensor = classifier.predict([photo.load(side) for photo in photos]).softmax(1)
    best = shares.topk(min(top, shares.shape[1]), 1)
    return [
        [(classifier.learned[row], share) for row, share in zip(rows, found, strict=True)]
        for rows, found in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def accuracy(classifier: vit.VisionTransformer, photos: Sequence[Photo]) -> Mapping[str, float]:
    """For each class of some photos, by their captions, the share that is named right.

    Raises SettingsError for a class that was not learned.
    """
    unknown = sorted({photo.caption or "" for photo in photos} - {*classifier.learned})
    if unknown:
        known = ", ".join(classifier.learned[:20])
        raise SettingsError(f"the class {unknown[0]!r} was not learned", do=f"Known classes: {known}.")
    right: dict[str, list[bool]] = {}
    for photo, ((name, _),) in zip(photos, named(classifier, photos), strict=True):
        right.setdefault(photo.caption or "", []).append(name == photo.caption)
    return {name: sum(found) / len(found) for name, found in right.items()}
