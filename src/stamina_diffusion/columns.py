"""What was measured of each version of a studio: one folder a version, named after the model that was measured.

The name is a hash of the base and of every change that the model is made of. A version that became another model (by a
rollback, a removal, another branch) therefore has no column until it is measured, and never one that is not its own.
Small pictures stand beside the numbers, so that a page of all versions needs no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import files, fitting

if TYPE_CHECKING:
    from .ledger import Entry

FOLDER = "measured"
FORMAT = 2
"""A column of another one was measured in another way: it counts as not measured."""
_FILE = "column.json"


@dataclass(frozen=True)
class Cell:
    """One concept after one version."""

    kept: float | None
    """Similarity of its samples to those of when it had just been learned, by the encoder."""
    photos: float | None
    """Similarity of its samples to its photos, by the encoder."""
    loss_photos: float | None
    """Held-out denoising loss on its photos; None when they are no longer there."""
    loss_samples: float | None
    """Held-out denoising loss on what the model drew of it when it had just been learned."""
    bleed: dict[str, float] = field(default_factory=dict)
    """Similarity of its samples to the photos of every concept, by the encoder."""
    note: str = ""
    """What is missing, where a number is."""


@dataclass(frozen=True)
class Column:
    """Everything that was measured of one version."""

    version: int
    """The one in which its newest concept was learned."""
    head: str
    encoder: str | None
    missing: str
    """Why there is no encoder, where there is none."""
    cells: dict[str, Cell]
    drift: dict[str, float]
    """For each generic prompt how far the U-Net's predictions are from the base's, relative to their size."""
    capacity: dict[str, Any]
    """`capacity.Meter` of the version's newest concept, as plain values."""
    seconds: float

    def whole(self, concepts: int) -> bool:
        """Whether all of so many concepts were looked at, and the base's drift: an older version may be sketched."""
        return len(self.cells) == concepts and bool(self.drift)


def head_of(base: str, entries: Iterable[Entry]) -> str:
    """The hash of the model that a base (by its hash) becomes with these concepts, in 32 hexadecimal digits."""
    changes = [[entry.word, entry.files.get("change.safetensors", "")] for entry in entries]
    return hashlib.sha256(json.dumps([base, changes]).encode()).hexdigest()[:32]


def read(studio: Path, head: str) -> Column | None:
    """The column of a model; None when it was never measured, or is damaged: no concept depends on it."""
    try:
        found = files.read_json(studio / FOLDER / head / _FILE)
        if found.pop("format") != FORMAT or found["head"] != head:
            return None
        cells = {name: Cell(**cell) for name, cell in found.pop("cells").items()}
        column = Column(cells=cells, **found)
        for part in (column, *cells.values()):
            fitting.check(part)
        return column
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(studio: Path, column: Column, pictures: Mapping[str, bytes]) -> None:
    """Keep a column, and its strips of pictures (JPEG) by concept; the numbers come last."""
    folder = studio / FOLDER / column.head
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        files.write_bytes(folder / f"{name}.jpg", data)
    files.write_json(folder / _FILE, {"format": FORMAT, **asdict(column)})


def picture(studio: Path, head: str, name: str) -> bytes | None:
    """The strip of pictures of a concept in a column."""
    try:
        return (studio / FOLDER / head / f"{name}.jpg").read_bytes()
    except OSError:
        return None
