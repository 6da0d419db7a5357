"""The atlas: 200 faces and landmarks of the procedural world, each in four renditions; nothing is downloaded.

Its identities are of the *stream* pool, which the embedded ViT has never seen. As in ImageNet-R every class comes
plain, as a sketch, as pixel art and at night, and most of what the ViT was trained on was plain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from .. import files
from ..errors import SettingsError
from ..world import FAMILIES, WorldConcept
from ..world.renditions import RENDITIONS, redraw
from . import ClassStream, Labelled, Pictures

CLASSES = 200
TRAIN, TEST = 24, 12
SIDE = 64


@dataclass(frozen=True)
class Atlas:
    """What of it is drawn: classes alternate between faces and landmarks."""

    classes: int = CLASSES
    train: int = TRAIN
    test: int = TEST
    pool: str = "stream"
    """"tuning" for whoever chooses settings: other identities."""
    similar: int = 0
    """Of 1 and more, classes are siblings in litters of five, which differ in so many parts: the fewer the harder."""
    negative: bool = False
    """Every picture as its photographic negative, which the embedded ViT has never seen: its features of them are poor,
    and a method has to change them."""

    def __post_init__(self) -> None:
        if not (2 <= self.classes <= 10_000 and self.train >= 1 and self.test >= 1):
            found = f"{self.classes} classes, {self.train} train and {self.test} test views"
            raise SettingsError(f"there is no atlas of {found}", do="Give two classes or more, a view of each kind.")

    def name_of(self, label: int) -> str:
        """The class's name, such as 'face-0'."""
        return f"{('face', 'landmark')[label % 2]}-{label // 2}"

    def concept(self, label: int) -> WorldConcept:
        return WorldConcept(list(FAMILIES)[label % 2], self.pool, label // 2, self.similar)

    def views(self, label: int) -> np.ndarray:
        """All views of a class, the train views first, (train + test, 64, 64, 3) uint8.

        Test views are the same whatever the number of train views is.
        """
        numbers = [*range(self.train), *range(TRAIN, TRAIN + self.test)]
        if self.train > TRAIN:
            numbers = list(range(self.train + self.test))
        concept = self.concept(label)
        drawn = [
            redraw(np.asarray(concept.view(number).render(SIDE)), RENDITIONS[number % len(RENDITIONS)])
            for number in numbers
        ]
        found = np.stack(drawn)
        return 255 - found if self.negative else found


class Gallery(Pictures):
    """Some views of every class of an atlas, class by class; drawn, or read, when the first of them is looked at."""

    def __init__(self, drawn: Drawn, views: range) -> None:
        self.drawn, self.views = drawn, views

    def __len__(self) -> int:
        return self.drawn.described.classes * len(self.views)

    def at(self, place: int) -> Image.Image:
        label, view = divmod(place, len(self.views))
        return Image.fromarray(self.drawn.pixels[label, self.views[view]])


class Drawn:
    """All pictures of an atlas, kept in a folder where one is given."""

    def __init__(self, described: Atlas, cache: Path | None) -> None:
        self.described, self.cache = described, cache

    @cached_property
    def pixels(self) -> np.ndarray:
        """(classes, train + test, 64, 64, 3) uint8."""
        if self.cache is None:
            return self._draw()
        said = self.described
        look = "-negative" if said.negative else ""
        path = self.cache / f"atlas-{said.pool}-{said.similar}-{said.classes}-{said.train}-{said.test}{look}.npy"
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError):  # not there, or damaged: drawn again
            pixels = self._draw()
        self.cache.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        np.save(buffer, pixels, allow_pickle=False)
        files.write_bytes(path, buffer.getvalue())
        return pixels

    def _draw(self) -> np.ndarray:
        return np.stack([self.described.views(label) for label in range(self.described.classes)])


def atlas(described: Atlas | None = None, cache: Path | None = None) -> ClassStream:
    """The stream; 200 classes are drawn in about two minutes on one core, or read from the folder `cache`."""
    said = described or Atlas()
    drawn = Drawn(said, cache)
    views = {"train": range(said.train), "test": range(said.train, said.train + said.test)}
    parts = {
        name: Labelled(Gallery(drawn, some), tuple(label for label in range(said.classes) for _ in some))
        for name, some in views.items()
    }
    told = f"{said.classes} identities of the world's {said.pool} pool in {len(RENDITIONS)} renditions, "
    told += f"{said.train} train and {said.test} test views each"
    told += f", siblings that differ in {said.similar} parts" if said.similar else ""
    told += ", all as photographic negatives" if said.negative else ""
    names = tuple(said.name_of(label) for label in range(said.classes))
    return ClassStream("atlas", names, parts["train"], parts["test"], told)
