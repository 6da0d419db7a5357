"""What a list of events means: for each version the concepts it holds, in the order in which they were folded.

An event's version is its place in the list, and its meaning never changes. A version is the state of the event's branch
after it. Nothing here reads a file. A ledger may be long, and may come from elsewhere: everything takes time and room
as its length, not as its square, so a version's concepts are put together only when they are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, overload

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


class Step(NamedTuple):
    """How a version came about: by an earlier one, a concept more, some concepts less."""

    origin: int
    learned: int | None = None
    gone: frozenset[int] = frozenset()


class Folds(Sequence[Fold]):
    """The concepts of every version, from the steps that led to it; version 0 is the base and has none."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps) + 1

    @overload
    def __getitem__(self, version: int) -> Fold: ...
    @overload
    def __getitem__(self, version: slice) -> Sequence[Fold]: ...
    def __getitem__(self, version: int | slice) -> Fold | Sequence[Fold]:
        if isinstance(version, slice):
            return tuple(self[one] for one in range(*version.indices(len(self))))
        if not 0 <= version < len(self):
            raise IndexError(version)
        found: list[int] = []
        gone: set[int] = set()
        while version:
            origin, learned, without = self._steps[version - 1]
            gone |= without
            if learned is not None and learned not in gone:
                found.append(learned)
            version = origin
        return tuple(reversed(found))


@dataclass(frozen=True)
class Timeline:
    """Every version of a studio."""

    steps: tuple[Step, ...]
    """How each version came about, from version 1."""
    branches: Mapping[str, int]
    """For each branch its newest version."""
    branch: str
    """The branch that is learned on now."""
    forgotten: Mapping[int, int]
    """For each concept that was forgotten, by the version that learned it: the version that forgot it."""
    replaced: Mapping[int, Mapping[str, str]]
    """For a concept whose memory was computed anew: the file and its hash."""

    @property
    def folds(self) -> Folds:
        """The concepts that each version held in its time, forgotten ones among them; version 0 is the base."""
        return Folds(self.steps)

    def whole(self, version: int) -> bool:
        """Whether a version can still be rebuilt: nothing that it held was forgotten since."""
        return version in self._survey[0]

    def left(self, version: int) -> Fold:
        """What is still known of a version's concepts."""
        return tuple(concept for concept in self.folds[version] if concept not in self.forgotten)

    def holding(self, concepts: Collection[int]) -> list[int]:
        """The versions that held one of these concepts in their time."""
        held: list[frozenset[int]] = [frozenset()]
        for origin, learned, gone in self.steps:
            new = frozenset({learned}) if learned is not None and learned in concepts else frozenset()
            held.append((held[origin] | new) - gone)
        return [version for version, some in enumerate(held) if some]

    @property
    def reachable(self) -> frozenset[int]:
        """The concepts of all versions that can be rebuilt: those whose files are kept."""
        return self._survey[1]

    @cached_property
    def _survey(self) -> tuple[frozenset[int], frozenset[int]]:
        """The versions that are whole, and what they hold: by one walk over the tree of versions and back."""
        after: list[list[int]] = [[] for _ in range(len(self.steps) + 1)]
        for version, step in enumerate(self.steps, start=1):
            after[step.origin].append(version)
        whole: set[int] = set()
        reached: set[int] = set()
        held: set[int] = set()  # by the version where the walk is
        lost = 0  # how many of these were forgotten
        fresh: set[int] = set()  # those that were neither forgotten nor reached yet
        # A version is met twice: on the way there and, as its negative with what it took away, on the way back.
        walk: list[tuple[int, frozenset[int]]] = [(0, frozenset())]
        while walk:
            version, taken = walk.pop()
            place = abs(version)
            learned = self.steps[place - 1].learned if place else None
            if version < 0:
                held |= taken
                lost += len(taken)
                if learned is not None:
                    held.discard(learned)
                    fresh.discard(learned)
                    lost -= learned in self.forgotten
                continue
            if learned is not None:
                held.add(learned)
                if learned in self.forgotten:
                    lost += 1
                elif learned not in reached:
                    fresh.add(learned)
            taken = frozenset(one for one in self.steps[place - 1].gone if one in held) if place else frozenset()
            held -= taken
            lost -= len(taken)  # whatever was taken away by a forgetting is forgotten
            if not lost:
                whole.add(place)
                reached |= fresh
                fresh.clear()
            if place:
                walk.append((-place, taken))
            walk += [(one, frozenset()) for one in after[place]]
        return frozenset(whole), frozenset(reached)


def replay(events: Sequence[Happened]) -> Timeline:
    """The timeline of events in order. Raises ValueError, KeyError, IndexError or TypeError for what makes no sense."""
    steps: list[Step] = []
    branches, current = {MAIN: 0}, MAIN
    forgotten: dict[int, int] = {}
    replaced: dict[int, Mapping[str, str]] = {}
    for place, event in enumerate(events, start=1):
        if event.version != place:
            raise ValueError(f"event {place} says that it is version {event.version}")
        step = Step(branches[event.branch])
        if event.kind == "learn":
            step = step._replace(learned=place)
        elif event.kind == "rollback":
            step = Step(_earlier(event.what["to"], place))
        elif event.kind == "forget":
            gone = frozenset(event.what["of"])
            step = step._replace(gone=gone)
            forgotten |= dict.fromkeys(gone, place)
            replaced |= {int(concept): files for concept, files in event.what["files"].items()}
        elif event.kind == "branch":
            # The event is the current branch's; the new one begins at a version that was there before.
            branches[event.what["name"]] = _earlier(event.what["at"], place)
        elif event.kind == "delete-branch":
            del branches[event.what["name"]]
        elif event.kind not in ("switch", "rename"):
            raise ValueError(f"event {place} is of the unknown kind {event.kind!r}")
        steps.append(step)
        branches[event.branch], current = place, event.branch
    return Timeline(tuple(steps), branches, current, forgotten, replaced)


def _earlier(version: int, place: int) -> int:
    if not 0 <= version < place:
        raise IndexError(f"event {place} names the version {version}")
    return version
