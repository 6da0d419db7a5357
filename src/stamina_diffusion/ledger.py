"""The ledger: what a studio was made from and what it learned, in order; one JSON file that notices being changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from . import files
from .bases import Base
from .errors import LedgerError

FORMAT = 1
FILE = "ledger.json"
_RESTORE = "Restore the file from a backup. The concepts' own files under concepts/ were not touched."


@dataclass(frozen=True)
class Entry:
    """One learned concept."""

    name: str
    word: str
    class_word: str | None
    method: str
    settings: dict[str, Any]
    plan: dict[str, Any]
    steps: int
    seed: int
    photos: list[dict[str, str]]
    """For each photo its file name, the path it was read from, and the SHA-256 of its bytes."""
    density: float | None
    """Share of the weights' entries that moved; None when only the word was learned."""
    final_loss: float
    """Mean denoising loss of the last tenth of the steps."""
    files: dict[str, str]
    """The concept's files and the SHA-256 of each."""
    version: int
    """The model's version after this concept: 1 for the first."""
    hash: str
    """Of the previous entry's hash and of everything that made this concept, but not of clocks and paths."""
    seconds: float
    learned: str
    """When, in ISO 8601, UTC."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that it was learned with."""

    @property
    def folder(self) -> str:
        return f"{self.version:04d}-{self.name}"


def entry_hash(previous: str, entry: Mapping[str, Any]) -> str:
    """The hash of an entry's lasting parts, chained to the hash before it."""
    lasting = {
        key: entry[key] for key in ("name", "word", "class_word", "method", "settings", "plan", "files", "version")
    }
    lasting["photos"] = [photo["sha256"] for photo in entry["photos"]]
    return hashlib.sha256(f"{previous}\n{_canonical(lasting)}".encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Ledger:
    """A studio's base and its concepts in order."""

    base: Base
    entries: tuple[Entry, ...] = ()

    @property
    def version(self) -> int:
        return len(self.entries)

    @property
    def head(self) -> str:
        """The hash that stands for the model as it is now."""
        return self.entries[-1].hash if self.entries else self.base.hash

    def write(self, folder: Path) -> None:
        """Write the ledger atomically; this is the moment at which a concept is committed."""
        body = {"format": FORMAT, "base": self.base.record(), "concepts": [asdict(entry) for entry in self.entries]}
        files.write_json(folder / FILE, body | {"checksum": _checksum(body)})


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(body).encode()).hexdigest()


def read(folder: Path) -> Ledger:
    """The ledger of a studio folder. Raises LedgerError that says what is damaged."""
    path = folder / FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LedgerError(f"is damaged: it is no JSON ({error})", where=path, do=_RESTORE) from error
    if not isinstance(body, dict) or "format" not in body:
        raise LedgerError("is damaged: it has no format", where=path, do=_RESTORE)
    if not isinstance(body["format"], int) or body["format"] > FORMAT:
        raise LedgerError(
            f"has format {body['format']!r}, and this program reads up to {FORMAT}",
            where=path,
            do="Install a newer stamina-diffusion.",
        )
    found = body.pop("checksum", None)
    if found != _checksum(body):
        raise LedgerError("was changed by hand or damaged: its checksum does not fit", where=path, do=_RESTORE)
    try:
        base = Base(**body["base"])
        entries = tuple(Entry(**_known(entry)) for entry in body["concepts"])
    except (KeyError, TypeError) as error:
        raise LedgerError(f"is damaged: {error}", where=path, do=_RESTORE) from error
    _check_chain(path, base, entries)
    return Ledger(base, entries)


def _known(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(Entry)}
    return {key: value for key, value in entry.items() if key in names}


def _check_chain(path: Path, base: Base, entries: Sequence[Entry]) -> None:
    previous = base.hash
    for place, entry in enumerate(entries, start=1):
        if entry.version != place or entry.hash != entry_hash(previous, asdict(entry)):
            raise LedgerError(f"concept {place} ({entry.name}) does not fit its hash", where=path, do=_RESTORE)
        previous = entry.hash
