"""Streams of concepts to learn one after another: of the procedural world, or of a manifest of real photos.

`mixed` is the papers' kind, faces and landmarks in a seeded order; `similar` is the hard case, siblings that share all
but two parts of their identity; `tuning` is of a pool that no other stream is of, for the choice of hyper-parameters.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from .. import seeds
from ..concepts import word_of
from ..errors import SettingsError, nearest
from ..world import LITTER, WorldConcept

WORLD = ("mixed", "faces", "landmarks", "similar", "tuning")
LEAST, MOST = 2, 500
FIRST_TEST_VIEW = 100
SHARED = 2
"""How many parts of their identity siblings of `similar` have for themselves."""


class Subject(abc.ABC):
    """Something that can be learned: its name, the word for its kind, and pictures of it."""

    name: str
    class_word: str

    @property
    def word(self) -> str:
        return word_of(self.name)

    @abc.abstractmethod
    def training(self, count: int, resolution: int) -> tuple[Image.Image, ...]:
        """The pictures that it is learned from."""

    @abc.abstractmethod
    def test(self, count: int, resolution: int, training: int = 0) -> tuple[Image.Image, ...]:
        """At most `count` others than the first `training` that it is learned from."""


@dataclass(frozen=True)
class WorldSubject(Subject):
    """A concept of the procedural world."""

    concept: WorldConcept

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return f"{self.concept.family.removesuffix('s')}-{self.concept.index}"

    @property
    def class_word(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.concept.class_word

    def training(self, count: int, resolution: int) -> tuple[Image.Image, ...]:
        return _views(self.concept, 0, count, resolution)

    def test(self, count: int, resolution: int, training: int = 0) -> tuple[Image.Image, ...]:
        return _views(self.concept, FIRST_TEST_VIEW, count, resolution)


@lru_cache(maxsize=2000)
def _views(concept: WorldConcept, first: int, count: int, resolution: int) -> tuple[Image.Image, ...]:
    # Kept for the next cell of this process: a view takes longer to render than to learn from.
    return tuple(concept.view(first + place).render(resolution) for place in range(count))


def subjects(stream: str, length: int, seed: int) -> list[Subject]:
    """The first `length` concepts of a stream of the world or a manifest's path, in the order of `seed`."""
    if stream not in WORLD:
        from .manifest import read_manifest

        found: Sequence[Subject] = read_manifest(Path(stream)).subjects[:length]
    else:
        found = [WorldSubject(concept) for concept in _world(stream, length)]
    order = np.random.default_rng(seeds.derive(seed, "order", stream if stream in WORLD else "manifest", length))
    return [found[place] for place in order.permutation(len(found))]


def _world(stream: str, length: int) -> list[WorldConcept]:
    pool = "tuning" if stream == "tuning" else "stream"
    if stream in ("faces", "landmarks"):
        return [WorldConcept(stream, pool, place) for place in range(length)]
    similar = SHARED if stream == "similar" else 0
    # Siblings stand in whole litters as far as the length allows: faces first, then landmarks.
    faces = -(-length // 2)
    if similar and length > LITTER:
        faces = round(faces / LITTER) * LITTER
    return [WorldConcept("faces", pool, place, similar) for place in range(faces)] + [
        WorldConcept("landmarks", pool, place, similar) for place in range(length - faces)
    ]


def check_stream(stream: str, length: int, training: int, test: int) -> None:
    """Raise SettingsError for an unknown stream (with the nearest), a length it does not have, or too few pictures."""
    if stream not in WORLD:
        if not stream.endswith(".toml"):
            near = nearest(stream, WORLD)
            hint = f"Did you mean {near!r}? " if near else ""
            do = f"{hint}Streams: {', '.join(WORLD)}, or the path of a manifest that ends in .toml."
            raise SettingsError(f"there is no stream {stream!r}", where="--stream", do=do)
        from .manifest import check_manifest

        check_manifest(Path(stream), length, training, test)
    elif not LEAST <= length <= MOST:
        raise SettingsError(f"a stream of {length} concepts", where="--concepts", do=f"Take {LEAST} to {MOST}.")
