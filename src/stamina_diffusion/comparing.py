"""What differs between two versions of a studio, or of two studios on one base: concepts, weights, and pictures."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from . import sheets
from .backbones.diffusion.text_to_image import TextToImage
from .errors import StudioError
from .history import check_whole, find
from .ledger import Entry
from .methods import completed
from .settings import Draw
from .studio import Studio

PROMPT = "a photo of {}"
NOTHING = "a photo"
"""Drawn where neither side has learned a word."""
_PLACE = re.compile(r"(?P<folder>.+?)(?:@(?P<at>[^@/\\]+))?")


@dataclass(frozen=True)
class Place:
    """One version of one studio."""

    studio: Studio
    version: int

    @property
    def entries(self) -> list[Entry]:
        return self.studio.entries_at(self.version)

    @property
    def title(self) -> str:
        return f"{self.studio.folder.name}@{self.version}"


@dataclass(frozen=True)
class Layer:
    """How far a weight lies from the same weight on the other side."""

    name: str
    relative: float
    """‖W_A − W_B‖ / ‖W_A‖, Frobenius."""
    moved: float
    """Share of its entries that differ, in [0, 1]."""


@dataclass(frozen=True)
class Difference:
    """What changed from A to B."""

    a: str
    b: str
    only_a: list[str]
    only_b: list[str]
    """Words that only one side knows."""
    both: list[str]
    relearned: list[str]
    """Words of both sides that were learned from other photos, by another method or with other settings."""
    layers: list[Layer]
    """Weights that differ, the most different first."""

    def record(self) -> dict[str, Any]:
        return asdict(self)


def place_of(text: str) -> Place:
    """The place that `DIR` or `DIR@VERSION`, `DIR@BRANCH`, `DIR@NAME` names; without @ the studio's current version.

    Raises StudioError where there is no such studio, version, branch or concept.
    """
    whole = Path(text)
    match = _PLACE.fullmatch(text)
    if whole.is_dir() or match is None or match["at"] is None:
        studio, at = Studio.open(whole), None
    else:
        studio, at = Studio.open(Path(match["folder"])), match["at"]
    if at is None:
        version = studio.version
    elif at.isdecimal():
        version = int(at)
    elif at in studio.branches:
        version = studio.branches[at]
    else:
        version = find(studio.record, at, studio.record.learned_at.values()).version
    check_whole(studio, version)
    return Place(studio, version)


def compare(a: Place, b: Place) -> tuple[Difference, TextToImage, TextToImage]:
    """What differs, and both models. Raises StudioError for studios on different bases."""
    if a.studio.base["hash"] != b.studio.base["hash"]:
        raise StudioError(
            f"{a.studio.folder} and {b.studio.folder} stand on different bases", do="Compare studios of one base."
        )
    before, after = a.studio.rebuilt(a.version), b.studio.rebuilt(b.version)
    words_a, words_b = ({entry.word: entry for entry in place.entries} for place in (a, b))
    both = [word for word in words_a if word in words_b]
    difference = Difference(
        a.title,
        b.title,
        [word for word in words_a if word not in words_b],
        [word for word in words_b if word not in words_a],
        both,
        [word for word in both if _made(words_a[word]) != _made(words_b[word])],
        layers(before, after),
    )
    return difference, before, after


def _made(entry: Entry) -> tuple[object, ...]:
    photos = [photo["sha256"] for photo in entry.photos]
    return entry.method, completed(entry.method, entry.settings), entry.plan, entry.class_word, photos


def layers(before: TextToImage, after: TextToImage) -> list[Layer]:
    """The U-Net's weights that differ, the most different first."""
    found = []
    others = after.weight_sites("network")
    for name, site in before.weight_sites("network").items():
        gap = others[name].value - site.value
        if moved := int(gap.count_nonzero()):
            size = float(site.value.norm())
            relative = float(gap.norm()) / size if size else float("inf")
            found.append(Layer(name, relative, moved / gap.numel()))
    return sorted(found, key=lambda layer: -layer.relative)


def picture(
    difference: Difference, before: TextToImage, after: TextToImage, draw: Draw, samples: int = 4
) -> Image.Image:
    """Every word drawn by both sides from the same seeds, A above B; nothing where a side does not know the word."""
    words = [*difference.both, *difference.only_a, *difference.only_b]
    blocks = []
    for word in words or [NOTHING]:
        prompt = PROMPT.format(word) if words else word
        upper = [] if word in difference.only_b else _drawn(before, prompt, samples, draw)
        lower = [] if word in difference.only_a else _drawn(after, prompt, samples, draw)
        note = _said(difference, word)
        blocks.append(sheets.Block(word, note, upper, lower, labels=("A", "B"), absent="not known"))
    header = f"A: {difference.a}   B: {difference.b}"
    return sheets.concept_sheet(header, "from the same seeds", blocks, resolution=before.resolution)


def _drawn(backbone: TextToImage, prompt: str, samples: int, draw: Draw) -> list[Image.Image]:
    return backbone.draw([prompt] * samples, list(range(samples)), steps=draw.steps, guidance=draw.guidance)


def _said(difference: Difference, word: str) -> str:
    if word in difference.only_a:
        return f"only in {difference.a}"
    if word in difference.only_b:
        return f"only in {difference.b}"
    return "learned in another way" if word in difference.relearned else ""
