"""Ledgers of format 1: a plain list of concepts, each chained to the one before it; read, and written as format 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bases import Base
from .errors import LedgerError
from .events import Entry, canonical, text_hash
from .ledger import RESTORE, Ledger
from .replay import MAIN


def migrated(path: Path, base: Base, concepts: Sequence[Mapping[str, Any]]) -> Ledger:
    """The same history as events, after a check of the old chain. Raises LedgerError."""
    record, previous = Ledger(base), base.hash
    for place, concept in enumerate(concepts, start=1):
        if concept["version"] != place or concept["hash"] != _hash(previous, concept):
            raise LedgerError(f"concept {place} ({concept['name']}) does not fit its hash", where=path, do=RESTORE)
        previous = concept["hash"]
        record = record.learned(_entry(concept), branch=MAIN)
    return record


def _entry(concept: Mapping[str, Any]) -> Entry:
    known = Entry.__dataclass_fields__
    return Entry(**{key: value for key, value in concept.items() if key in known})


def _hash(previous: str, concept: Mapping[str, Any]) -> str:
    """The hash of format 1."""
    names = ("name", "word", "class_word", "method", "settings", "plan", "files", "version")
    lasting = {key: concept[key] for key in names} | {"photos": [photo["sha256"] for photo in concept["photos"]]}
    return text_hash(f"{previous}\n{canonical(lasting)}")
