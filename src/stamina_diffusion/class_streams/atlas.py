"""The atlas: 200 faces and landmarks of the procedural world, each in four renditions; nothing is downloaded.

Its identities are of the *stream* pool, which the embedded ViT has never seen. As in ImageNet-R every class comes
plain, as a sketch, as pixel art and at night, and most of what the ViT was trained on was plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from ..errors import SettingsError
from ..world import FAMILIES, WorldConcept
from ..world.renditions import RENDITIONS, redraw
from . import ClassStream, Labelled

CLASSES = 200
TRAIN, TEST = 24, 12
SIDE = 64


class Rendered(Sequence[Image.Image]):
    """Pictures (N, H, W, 3) uint8 of an array as PIL's."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    @overload
    def __getitem__(self, place: int) -> Image.Image: ...
    @overload
    def __getitem__(self, place: slice) -> Rendered: ...
    def __getitem__(self, place: int | slice) -> Image.Image | Rendered:
        return Rendered(self.pixels[place]) if isinstance(place, slice) else Image.fromarray(self.pixels[place])


@dataclass(frozen=True)
class Atlas:
    """What of it is drawn: classes alternate between faces and landmarks."""

    classes: int = CLASSES
    train: int = TRAIN
    test: int = TEST
    pool: str = "stream"
    """"tuning" for whoever chooses settings: other identities."""

    def __post_init__(self) -> None:
        if not (2 <= self.classes <= 10_000 and self.train >= 1 and self.test >= 1):
            found = f"{self.classes} classes, {self.train} train and {self.test} test views"
            raise SettingsError(f"there is no atlas of {found}", do="Give two classes or more, a view of each kind.")

    def name_of(self, label: int) -> str:
        """The class's name, such as 'face-0'."""
        return f"{('face', 'landmark')[label % 2]}-{label // 2}"

    def concept(self, label: int) -> WorldConcept:
        return WorldConcept(list(FAMILIES)[label % 2], self.pool, label // 2)

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
        return np.stack(drawn)


def atlas(described: Atlas | None = None, cache: Path | None = None) -> ClassStream:
    """The stream, rendered anew (200 classes take about two minutes on one core) or read from the folder `cache`."""
    described = described or Atlas()
    pixels = _kept(described, cache)
    shown = {"train": pixels[:, : described.train], "test": pixels[:, described.train :]}
    parts = {
        name: Labelled(
            Rendered(some.reshape(-1, *some.shape[2:])),
            tuple(int(label) for label in np.repeat(np.arange(described.classes), some.shape[1])),
        )
        for name, some in shown.items()
    }
    return ClassStream(
        "atlas",
        tuple(described.name_of(label) for label in range(described.classes)),
        parts["train"],
        parts["test"],
        told=f"{described.classes} identities of the world's {described.pool} pool in {len(RENDITIONS)} renditions, "
        f"{described.train} train and {described.test} test views each",
    )


def _kept(described: Atlas, cache: Path | None) -> np.ndarray:
    if cache is None:
        return _rendered(described)
    name = f"atlas-{described.pool}-{described.classes}-{described.train}-{described.test}.npy"
    path = cache / name
    if path.is_file():
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            path.unlink()  # half written by a process that was killed: drawn again
    pixels = _rendered(described)
    cache.mkdir(parents=True, exist_ok=True)
    from io import BytesIO

    from ..files import write_bytes

    buffer = BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
    return pixels


def _rendered(described: Atlas) -> np.ndarray:
    return np.stack([described.views(label) for label in range(described.classes)])
