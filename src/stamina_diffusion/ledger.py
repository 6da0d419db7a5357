"""The ledger: what a studio was made from and everything that happened to it; one JSON file that notices being changed.

Events are only ever added, and each is chained to the one before it by a hash. What a person may want forgotten stands
in an event's private part, which enters the chain by a seal; so it can be blanked and the chain still be checked.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from . import events, files, fitting
from .bases import Base
from .errors import LedgerError, StudioError
from .events import Entry, Event, canonical, event_hash, name_hash, seal, text_hash
from .replay import Timeline, replay

FORMAT = 2
FILE = "ledger.json"
__all__ = ["FILE", "FORMAT", "Entry", "Event", "Ledger", "name_hash", "read"]
_FILE = re.compile(r"[A-Za-z0-9_-]+\.safetensors")
RESTORE = "Restore the file from a backup. The concepts' own files under concepts/ were not touched."


@dataclass(frozen=True)
class Ledger:
    """A studio's base and everything that happened, in order. Every change makes a new one; `write` commits it."""

    base: Base
    events: tuple[Event, ...] = ()

    @cached_property
    def timeline(self) -> Timeline:
        return replay(self.events)

    @property
    def version(self) -> int:
        """The number of events."""
        return len(self.events)

    @property
    def branch(self) -> str:
        return self.timeline.branch

    @property
    def branches(self) -> dict[str, int]:
        return dict(self.timeline.branches)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The concepts of the current version in fold order."""
        return self.entries_at(self.version)

    def entries_at(self, version: int) -> tuple[Entry, ...]:
        """What is still known of a version's concepts, in fold order; all of them where it can be rebuilt.

        Raises StudioError for a version that never was.
        """
        if not 0 <= version <= self.version:
            near = min(max(version, 0), self.version)
            raise StudioError(f"there is no version {version}", do=f"Versions go from 0 to {self.version}; say {near}?")
        return tuple(self.learned_at[concept] for concept in self.timeline.left(version))

    @cached_property
    def learned_at(self) -> dict[int, Entry]:
        """Every concept that was learned and not forgotten, by the version that learned it, as it is known now."""
        shown = {
            event.what["of"]: event.private["shown"]
            for event in self.events
            if event.kind == "rename" and event.private
        }
        return {
            event.version: self._entry(event, shown.get(event.version))
            for event in self.events
            if event.kind == "learn" and event.version not in self.timeline.forgotten
        }

    def _entry(self, event: Event, shown: str | None) -> Entry:
        names = {item.name for item in fields(Entry)}
        known = {key: value for key, value in (event.private or {}).items() if key in names}
        entry = Entry(**known | {"version": event.version, "hash": event.hash, "shown": shown})
        newer = self.timeline.replaced.get(event.version)
        if newer is None:
            return entry
        lasting = {file: found for file, found in entry.files.items() if file != entry.memory}
        return replace(entry, files=lasting | dict(newer))

    @property
    def head(self) -> str:
        """The hash that stands for everything that happened."""
        return self.events[-1].hash if self.events else self.base.hash

    @property
    def model(self) -> str:
        """The hash that stands for the model as it is now and for what its methods remember."""
        parts = [[entry.word, sorted(entry.files.items())] for entry in self.entries]
        return text_hash(canonical([self.base.hash, parts]))

    # -- what can happen -------------------------------------------------------------------------------------------

    def after(
        self,
        kind: str,
        what: Mapping[str, Any],
        *,
        private: dict[str, Any] | None = None,
        branch: str | None = None,
        time: str | None = None,
    ) -> Ledger:
        """The ledger with one more event: on the current branch and now, if nothing else is given."""
        time = time or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        sealed = seal(private) if private is not None else None
        event = Event(kind, self.version + 1, branch or self.branch, time, dict(what), private, sealed, "")
        event = replace(event, hash=event_hash(self.head, event))
        return Ledger(self.base, (*self.events, event))

    def learned(self, entry: Entry, *, branch: str | None = None) -> Ledger:
        """The ledger with one more concept; its version and hash are this ledger's to give."""
        private = {key: value for key, value in asdict(entry).items() if key not in ("version", "hash", "shown")}
        if entry.classes is None:
            del private["classes"]
        return self.after("learn", {}, private=private, branch=branch, time=entry.learned)

    def blanked(self, concepts: frozenset[int]) -> Ledger:
        """The ledger without the private parts of every event about these concepts; the chain is as it was."""

        def about(event: Event) -> int:
            return event.what["of"] if event.kind == "rename" else event.version

        events = (replace(event, private=None) if about(event) in concepts else event for event in self.events)
        return Ledger(self.base, tuple(events))

    def write(self, folder: Path) -> None:
        """Write the ledger atomically; this is the moment at which whatever happened is committed."""
        body = {"format": FORMAT, "base": self.base.record(), "events": [asdict(event) for event in self.events]}
        files.write_json(folder / FILE, body | {"checksum": _checksum(body)})


def _checksum(body: Mapping[str, Any]) -> str:
    return text_hash(canonical(body))


# -- reading -------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Ledger:
    """The ledger of a studio folder: its checksum, every seal and the chain of hashes checked. Raises LedgerError."""
    path = folder / FILE
    body = _body(path)
    try:
        base = Base(**body["base"])
        if body["format"] == 1:
            from . import ledger_1

            record = ledger_1.migrated(path, base, body["concepts"])
        else:
            record = Ledger(base, tuple(Event(**event) for event in body["events"]))
        _check_chain(path, record)
        # Everything that is derived is derived once here, so that what makes no sense is found at the door.
        _ = record.timeline, record.entries
        for event in record.events:
            events.check(event)
        for part in (base, *record.learned_at.values()):
            fitting.check(part)
        if not all(_FILE.fullmatch(file) for entry in record.learned_at.values() for file in entry.files):
            raise ValueError("a concept has a file that is none of a concept's")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise LedgerError(f"is damaged: {str(error)[:300]}", where=path, do=RESTORE) from error
    return record


def _body(path: Path) -> dict[str, Any]:
    """What the file holds, its format and checksum checked."""
    try:
        body = files.read_json(path)
    except ValueError as error:
        raise LedgerError(f"is damaged: it is no JSON ({error})", where=path, do=RESTORE) from error
    if not isinstance(body, dict) or "format" not in body:
        raise LedgerError("is damaged: it has no format", where=path, do=RESTORE)
    if type(body["format"]) is not int or not 1 <= body["format"] <= FORMAT:
        raise LedgerError(
            f"has format {body['format']!r}, and this program reads up to {FORMAT}",
            where=path,
            do="Install a newer stamina-diffusion.",
        )
    found = body.pop("checksum", None)
    if found != _checksum(body):
        raise LedgerError("was changed by hand or damaged: its checksum does not fit", where=path, do=RESTORE)
    return body


def _check_chain(path: Path, record: Ledger) -> None:
    previous = record.base.hash
    for place, event in enumerate(record.events, start=1):
        name = (event.private or {}).get("name")
        what = f"event {place} ({event.kind}{f' {name}' if name else ''})"
        unsealed = event.private is not None and event.seal != seal(event.private)
        if event.version != place or unsealed or event.hash != event_hash(previous, event):
            raise LedgerError(f"{what} does not fit its hash", where=path, do=RESTORE)
        if event.kind == "learn" and event.private is None and place not in record.timeline.forgotten:
            raise LedgerError(f"{what} has lost its concept, and nobody asked for it", where=path, do=RESTORE)
        if event.kind == "learn" and event.private is not None and not _safe(event.private):
            raise LedgerError(f"{what} has a name that is no name", where=path, do=RESTORE)
        previous = event.hash


def _safe(concept: Mapping[str, Any]) -> bool:
    """Whether a concept's names lead nowhere but into its own folder: a studio may come from elsewhere."""
    name, places = concept["name"], concept["files"]
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", name) and concept["word"] == f"<{name}>"
    return bool(plain) and all(map(_FILE.fullmatch, places))
