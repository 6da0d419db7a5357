"""The procedural world: an endless supply of faces and landmarks with an identity, seen in many views, with captions.

It is the data of the embedded base model and of the offline benchmarks: no third-party picture, no real person. A
*concept* has an identity drawn from its seed; each *view* draws what does not belong to the identity (pose, light,
clothing, sky, weather ...). The same (family, pool, index, view) gives the same picture on every machine, up to the
last digit of its libm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import faces, landmarks

FAMILIES: Mapping[str, Any] = {"faces": faces, "landmarks": landmarks}
"""The modules that know how to draw a family; their order is part of every seed."""

CLASS_WORDS = {"faces": "person", "landmarks": "landmark"}

POOLS = {"base": 0, "prior": 1_000_000, "tuning": 2_000_000, "stream": 3_000_000}
"""Where each pool's range of a million seeds starts: what is pre-trained on, tuned on and reported on never meet."""

POOL_SIZE = 1_000_000
LITTER = 5
"""With `similar=k`, concepts come in litters of this many siblings."""


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key))


@dataclass(frozen=True)
class WorldConcept:
    """One thing of the world that can be learned: a face or a landmark.

    `similar=0` draws the identity freely. `similar=k` makes it one of a litter of five siblings (indices 5m to 5m+4)
    that share their ancestor's identity but for k parts each: the smaller k, the harder they are to tell apart.
    """

    family: str
    pool: str
    index: int
    similar: int = 0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family {self.family!r}: choose one of {', '.join(FAMILIES)}")
        if self.pool not in POOLS:
            raise ValueError(f"unknown pool {self.pool!r}: choose one of {', '.join(POOLS)}")
        if not 0 <= self.index < POOL_SIZE:
            raise ValueError(f"index {self.index} is outside the pool: choose 0 to {POOL_SIZE - 1}")
        if not 0 <= self.similar <= len(FAMILIES[self.family].PARTS):
            raise ValueError(f"similar={self.similar}: {self.family} have {len(FAMILIES[self.family].PARTS)} parts")

    @property
    def seed(self) -> int:
        return POOLS[self.pool] + self.index

    @property
    def class_word(self) -> str:
        return CLASS_WORDS[self.family]

    @property
    def _key(self) -> tuple[int, int]:
        return list(FAMILIES).index(self.family), self.seed

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes it this one and no other: its factors, by name."""
        module = FAMILIES[self.family]
        if not self.similar:
            return module.draw_identity(_rng(0, *self._key))
        family, seed = self._key
        ancestor = module.draw_identity(_rng(3, family, seed - self.index % LITTER))
        rng = _rng(4, family, seed)
        own = module.draw_identity(rng)
        parts = rng.choice(sorted(module.PARTS), self.similar, replace=False)
        return ancestor | {key: own[key] for part in parts for key in module.PARTS[part]}

    def view(self, number: int) -> View:
        """View `number` of this concept; any number from 0 on."""
        return View(self, number)

    def photograph(self, folder: Path, count: int = 6, size: int = 64) -> Path:
        """Write its first `count` views as photos `0.png`, `1.png` ... into a new folder; the answer is the folder."""
        folder.mkdir(parents=True)
        for number in range(count):
            self.view(number).render(size).save(folder / f"{number}.png")
        return folder


@dataclass(frozen=True)
class View:
    """One picture of a concept, with its words."""

    concept: WorldConcept
    number: int

    @cached_property
    def nuisance(self) -> dict[str, Any]:
        """What this view draws beside the identity."""
        rng = _rng(1, *self.concept._key, self.concept.similar, self.number)
        return FAMILIES[self.concept.family].draw_nuisance(rng, self.concept.identity)

    def render(self, size: int = 64) -> Image.Image:
        """The picture, RGB, size × size."""
        return FAMILIES[self.concept.family].render(self.concept.identity, self.nuisance, size)

    @cached_property
    def attributes(self) -> dict[str, str]:
        """Every factor of the view in words: factor → grade."""
        return FAMILIES[self.concept.family].attributes(self.concept.identity, self.nuisance)

    def kept(self, variant: int) -> tuple[dict[str, str], np.random.Generator]:
        """The factors that caption `variant` names, and the generator that goes on to phrase them."""
        rng = _rng(2, *self.concept._key, self.concept.similar, self.number, variant)
        share = rng.uniform(0.1, 0.6)
        return {name: grade for name, grade in self.attributes.items() if rng.random() < share}, rng

    def caption(self, variant: int = 0) -> str:
        """A sentence in plain English that names a random part of the factors; each `variant` names another part."""
        kept, rng = self.kept(variant)
        return FAMILIES[self.concept.family].phrase(kept, rng)


def grades(family: str) -> Mapping[str, tuple[str, ...]]:
    """Every factor of a family that has words, with all its grades."""
    return FAMILIES[family].GRADES


def sheet(pool: str = "stream", *, concepts: int = 6, views: int = 8, size: int = 64, similar: int = 0) -> Image.Image:
    """A contact sheet: one row a concept, `concepts` of each family, one column a view."""
    gap = max(2, size // 16)
    rows = [WorldConcept(family, pool, i, similar) for family in FAMILIES for i in range(concepts)]
    picture = Image.new("RGB", (views * (size + gap) + gap, len(rows) * (size + gap) + gap), "white")
    for r, row in enumerate(rows):
        for v in range(views):
            picture.paste(row.view(v).render(size), (gap + v * (size + gap), gap + r * (size + gap)))
    return picture
