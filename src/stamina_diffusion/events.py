"""Events: what can happen to a studio, what of it lasts in a hash, and what can be blanked without breaking one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import fitting

_LASTING = ("name", "word", "class_word", "method", "settings", "plan", "files", "weights", "consent", "licence")


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
    """The version at which it was learned; without undoing anything, 1 for the first concept."""
    hash: str
    """Of the event that learned it: of the event before and of everything that made this concept, but not of clocks
    and paths."""
    seconds: float
    learned: str
    """When, in ISO 8601, UTC."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that it was learned with."""
    weights: str = ""
    """The fingerprint of the sites that it changed, as they were right after it; empty where none was taken."""
    consent: str | None = None
    """Who agreed to its photos being learned, in the person's own words."""
    licence: str | None = None
    """What the photos may be used for, in the person's own words."""
    shown: str | None = None
    """Another name to show to people; its word in prompts stays."""
    classes: list[str] | None = None
    """Of a task of a classifier, the names of its classes in the order of their rows; its photos say theirs."""

    @property
    def folder(self) -> str:
        return f"{self.version:04d}-{self.name}"

    @property
    def title(self) -> str:
        """The name to show to people."""
        return self.shown or self.name

    @property
    def memory(self) -> str | None:
        """The file of what its method remembered up to it; it gets a new name when it is computed anew."""
        return next((file for file in self.files if file.startswith("memory")), None)


@dataclass(frozen=True)
class Event:
    """One thing that happened: 'learn', 'rollback', 'forget', 'rename', 'branch', 'switch' or 'delete-branch'."""

    kind: str
    version: int
    """Its place among the events, from 1; the studio's version after it."""
    branch: str
    """The branch that it happened on; after it, that branch is the current one."""
    time: str
    """When, in ISO 8601, UTC; not in the hash."""
    what: dict[str, Any]
    """What else there is to say, by kind; stays for good, so no name of a concept is here."""
    private: dict[str, Any] | None
    """What goes when its concept is forgotten: for 'learn' the concept itself, for 'rename' the shown name."""
    seal: str | None
    """The hash of the private part's lasting values; it stays when they go."""
    hash: str
    """Of the event before, or of the base, and of all of this but the time and the private part."""


WHAT: dict[str, dict[str, Any]] = {
    "learn": {},
    "rollback": {"to": int},
    "forget": {"of": list[int], "name": str, "reason": str | None, "files": dict[str, dict[str, str]]},
    "rename": {"of": int},
    "branch": {"name": str, "at": int},
    "switch": {"from": str},
    "delete-branch": {"name": str, "at": int},
}
"""What an event of a kind says."""


def check(event: Event) -> None:
    """Raise ValueError unless an event says what its kind says: a ledger may come from elsewhere."""
    fitting.check(event)
    for key, hint in WHAT[event.kind].items():
        if not fitting.fits(event.what[key], hint):
            raise ValueError(f"event {event.version} ({event.kind}) has {key} = {event.what[key]!r}"[:200])
    if event.kind == "rename" and event.private is not None and not isinstance(event.private["shown"], str):
        raise ValueError(f"event {event.version} shows no name")


def event_hash(previous: str, event: Event) -> str:
    """The hash of an event's lasting parts, chained to the hash before it."""
    lasting = {key: getattr(event, key) for key in ("kind", "version", "branch", "what", "seal")}
    return text_hash(f"{previous}\n{canonical(lasting)}")


def seal(private: Mapping[str, Any]) -> str:
    """The hash of a private part. Of a concept only what lasts counts, not clocks and paths."""
    if "photos" not in private:
        return text_hash(canonical(private))
    lasting = {key: private.get(key) for key in _LASTING}
    lasting["photos"] = [photo["sha256"] for photo in private["photos"]]
    if private.get("classes") is not None:
        lasting |= {"classes": private["classes"], "labels": [photo["class"] for photo in private["photos"]]}
    return text_hash(canonical(lasting))


def name_hash(name: str) -> str:
    """What a tombstone keeps of a name: enough to recognise it when it is said again."""
    return text_hash(name.lower())


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
