"""What the page knows of the studio's history, from the small files that take no model to read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from .. import kept, ledger, sheets
from ..cli.looking import rows_of
from ..errors import StudioError
from ..kept import Row

STRIP_HEIGHT = 96


@dataclass(frozen=True)
class Concept:
    """A learned concept as the page shows it."""

    name: str
    shown: str
    word: str
    class_word: str | None
    version: int
    method: str
    steps: int
    photos: int
    learned: str
    strip: str | None
    """Its samples when it had just been learned, as a data address."""
    kept: float | None
    like: float | None
    note: str


@dataclass(frozen=True)
class History:
    """A studio at a glance."""

    folder: Path
    base: str
    head: str
    version: int
    concepts: tuple[Concept, ...]
    rows: dict[int, list[Row]]
    """What was measured after each version."""
    undo: int | None = None
    """The version to return to, when the last thing that happened was going back."""

    @property
    def words(self) -> list[str]:
        return [concept.word for concept in self.concepts]

    def named(self, name: str) -> Concept | None:
        return next((concept for concept in self.concepts if concept.name == name), None)

    def table(self) -> list[tuple[str, list[Row | None]]]:
        """The kept rows as concept × version that learned one; None before a concept was learned."""
        by_version = [{row.name: row for row in self.rows.get(one.version, [])} for one in self.concepts]
        return [(one.word, [rows.get(one.name) for rows in by_version]) for one in self.concepts]


def read(folder: Path) -> History:
    """The history of the studio in a folder. Raises StudioError, LedgerError."""
    if not (folder / ledger.FILE).is_file():
        raise StudioError("is not a studio", where=folder, do=f"Make one with: stamina init {folder}")
    record = ledger.read(folder)
    by_version = kept.read(folder)
    rows = rows_of(record, by_version)
    concepts = tuple(_concept(folder, entry, rows.get(entry.name)) for entry in record.entries)
    undo = record.version - 1 if record.events and record.events[-1].kind == "rollback" else None
    return History(folder, record.base.source, record.head, record.version, concepts, by_version, undo)


def head(folder: Path) -> str:
    """What changes when the studio does."""
    return ledger.read(folder).head


def pending(folder: Path) -> list[str]:
    """Names of concepts whose learning was interrupted."""
    return sorted(path.parent.name for path in (folder / "unfinished").glob("*/request.json"))


def strip(folder: Path, name: str) -> str | None:
    """The samples of a concept, small, as a data address; None when there are none."""
    return shrunk(folder / "samples" / f"{name}.png", STRIP_HEIGHT)


def shrunk(path: Path, height: int) -> str | None:
    """A picture file, at most so high, as a data address; None where there is no picture."""
    try:
        return _shrunk(path, height, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _shrunk(path: Path, height: int, _changed: int) -> str:
    with Image.open(path) as picture:
        return inline(picture, height)


def inline(picture: Image.Image, height: int) -> str:
    """A picture as a data address, shrunk to a height where it is higher."""
    picture = picture.convert("RGB")
    if picture.height > height:
        picture = picture.resize((max(1, round(picture.width * height / picture.height)), height))
    return sheets.addressed(picture, "webp", 88)


def _concept(folder: Path, entry: ledger.Entry, row: Row | None) -> Concept:
    return Concept(
        name=entry.name,
        shown=entry.title,
        word=entry.word,
        class_word=entry.class_word,
        version=entry.version,
        method=entry.method,
        steps=entry.steps,
        photos=len(entry.photos),
        learned=entry.learned[:16].replace("T", " "),
        strip=strip(folder, entry.name),
        kept=row and row.kept,
        like=row and row.photos,
        note=row.note if row else "",
    )
