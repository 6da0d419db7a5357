"""Photos that came through the page: few, small enough, under names of our own, in a private folder that goes away."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..photo_decoding import OTHER_KINDS, SUFFIXES
from ..photos import Examination, examine

PHOTO_LIMIT = 40
BYTE_LIMIT = 40_000_000
"""Of one photo."""


@dataclass(frozen=True)
class Refusal:
    """A file that was not taken, under the name that the person knows it by."""

    name: str
    why: str


class Tray:
    """The photos that one visitor has dropped so far. A file's name is only ever shown, never used as a path.

    A copy is named after its content, so that the same photos, dropped in another order after an interruption, are
    the same request to the studio.
    """

    def __init__(self, root: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tray-", dir=root))
        self.names: dict[Path, str] = {}
        """The copies, and how each file was called."""

    def add(self, sources: Sequence[Path]) -> list[Refusal]:
        """Take copies of uploaded files and remove the files; the answer is what was not taken, and why."""
        refused = []
        for source in dict.fromkeys(sources):  # the same file twice is kept once by the server
            try:
                refused += self._take(source)
            finally:
                source.unlink(missing_ok=True)
        return refused

    def _take(self, source: Path) -> list[Refusal]:
        if len(self.names) >= PHOTO_LIMIT:
            return [Refusal(source.name, f"{PHOTO_LIMIT} photos are enough: this one was left out.")]
        if source.stat().st_size > BYTE_LIMIT:
            return [
                Refusal(source.name, f"It is larger than {BYTE_LIMIT // 1_000_000} MB. Save it smaller, as a JPEG.")
            ]
        with open(source, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        suffix = source.suffix.lower()
        copy = self.folder / f"{digest[:32]}{suffix if suffix in SUFFIXES or suffix in OTHER_KINDS else '.bin'}"
        if any(known.stem == copy.stem for known in self.names):
            return [Refusal(source.name, "This photo was dropped already; it counts once.")]
        shutil.copyfile(source, copy)
        self.names[copy] = source.name
        return []

    def examine(self, resolution: int) -> Examination:
        """Look the photos over, as `stamina doctor` does."""
        return examine(sorted(self.names), resolution=resolution)

    def drop_unfit(self, seen: Examination) -> None:
        """Remove the files that cannot be used; what is left can be learned from."""
        for finding in seen.errors:
            if finding.path in self.names:
                del self.names[finding.path]
                finding.path.unlink(missing_ok=True)

    def copy_to(self, folder: Path) -> list[Path]:
        """Copies for a lesson that may have to wait while the tray is filled anew."""
        folder.mkdir(parents=True)
        return [Path(shutil.copyfile(path, folder / path.name)) for path in sorted(self.names)]

    def remove(self) -> None:
        """Delete every photo of the tray."""
        self.names.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
