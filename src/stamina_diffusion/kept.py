"""How well each concept is kept, after each version of a studio; light enough for `stamina log` to start at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import files, fitting

FILE = "kept.json"
FORMAT = 1


@dataclass(frozen=True)
class Row:
    """How well one concept is kept after some version."""

    name: str
    word: str
    kept: float | None
    """Similarity of its samples to those it had when it was just learned; 1 when nothing has changed."""
    photos: float | None
    """Similarity of its samples to its photos."""
    note: str = ""
    """What is missing, where a number is."""

    @property
    def words(self) -> str:
        """The row as a person reads it."""
        kept = "" if self.kept is None else f"kept {self.kept:.2f}"
        photos = "" if self.photos is None else f"like its photos {self.photos:.2f}"
        return ", ".join(filter(None, (kept, photos, self.note)))


def read(folder: Path) -> dict[int, list[Row]]:
    """The rows of every report in a studio's folder, by the version that it was made after."""
    return {number: [Row(**row) for row in found["rows"]] for number, found in _versions(folder).items()}


def newest(folder: Path) -> dict[str, Row]:
    """The last known row of each concept, by its name."""
    return {row.name: row for _, rows in sorted(read(folder).items()) for row in rows}


def write(folder: Path, version: int, rows: Sequence[Row], sheet: str) -> None:
    """Add the rows of one version, and the path of its sheet within the folder."""
    versions = _versions(folder) | {version: {"sheet": sheet, "rows": [asdict(row) for row in rows]}}
    files.write_json(
        folder / FILE, {"format": FORMAT, "versions": {str(key): versions[key] for key in sorted(versions)}}
    )


def _versions(folder: Path) -> dict[int, dict[str, Any]]:
    """What the file holds; nothing when it is missing or damaged, since no concept depends on it."""
    try:
        found = files.read_json(folder / FILE)
        if found["format"] != FORMAT:
            return {}
        versions = {int(number): dict(entry) for number, entry in found["versions"].items()}
        for entry in versions.values():
            for row in entry["rows"]:
                fitting.check(Row(**row))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return versions


def forget(folder: Path, name: str, versions: Collection[int]) -> None:
    """Take a concept's rows out, and the sheets of the versions that showed it."""
    found = _versions(folder)
    if (
        not any(row["name"] == name for entry in found.values() for row in entry["rows"])
        and not found.keys() & versions
    ):
        return
    left = {
        version: {
            "sheet": "" if version in versions else entry.get("sheet", ""),
            "rows": [row for row in entry["rows"] if row["name"] != name],
        }
        for version, entry in found.items()
    }
    files.write_json(folder / FILE, {"format": FORMAT, "versions": {str(key): left[key] for key in sorted(left)}})
