"""What a list of events means: for each version the concepts it holds, in the order in which they were folded.

An event's version is its place in the list, and its meaning never changes. A version is the state of the event's branch
after it. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MAIN = "main"
Fold = tuple[int, ...]
"""Concepts by the versions at which they were learned, in fold order."""


class Happened(Protocol):
    """As much of an event as its meaning needs."""

    @property
    def kind(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def branch(self) -> str: ...
    @property
    def what(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Timeline:
    """Every version of a studio."""

    folds: tuple[Fold, ...]
    """The concepts that each version held in its time, forgotten ones among them; version 0 is the base."""
    branches: Mapping[str, int]
    """For each branch its newest version."""
    branch: str
    """The branch that is learned on now."""
    forgotten: Mapping[int, int]
    """For each concept that was forgotten, by the version that learned it: the version that forgot it."""
    replaced: Mapping[int, Mapping[str, str]]
    """For a concept whose memory was computed anew: the file and its hash."""

    def whole(self, version: int) -> bool:
        """Whether a version can still be rebuilt: nothing that it held was forgotten since."""
        return not self.forgotten.keys() & set(self.folds[version])

    def left(self, version: int) -> Fold:
        """What is still known of a version's concepts."""
        return tuple(concept for concept in self.folds[version] if concept not in self.forgotten)

    @property
    def reachable(self) -> frozenset[int]:
        """The concepts of all versions that can be rebuilt: those whose files are kept."""
        return frozenset(c for version, fold in enumerate(self.folds) if self.whole(version) for c in fold)


def replay(events: Sequence[Happened]) -> Timeline:
    """The timeline of events in order. Raises ValueError, KeyError or IndexError for events that make no sense."""
    folds: list[Fold] = [()]
    branches, current = {MAIN: 0}, MAIN
    forgotten: dict[int, int] = {}
    replaced: dict[int, Mapping[str, str]] = {}
    for place, event in enumerate(events, start=1):
        if event.version != place:
            raise ValueError(f"event {place} says that it is version {event.version}")
        fold = folds[branches[event.branch]]
        if event.kind == "learn":
            fold = (*fold, place)
        elif event.kind == "rollback":
            fold = folds[event.what["to"]]
        elif event.kind == "forget":
            gone = event.what["of"]
            fold = tuple(concept for concept in fold if concept not in gone)
            forgotten |= dict.fromkeys(gone, place)
            replaced |= {int(concept): files for concept, files in event.what["files"].items()}
        elif event.kind == "branch":
            # The event is the current branch's; the new one begins at a version that was there before.
            at = event.what["at"]
            folds[at]
            branches[event.what["name"]] = at
        elif event.kind == "delete-branch":
            del branches[event.what["name"]]
        elif event.kind not in ("switch", "rename"):
            raise ValueError(f"event {place} is of the unknown kind {event.kind!r}")
        folds.append(fold)
        branches[event.branch], current = place, event.branch
    return Timeline(tuple(folds), branches, current, forgotten, replaced)
