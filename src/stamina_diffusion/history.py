"""Going back, other branches, other names: everything that changes a studio's history by one event and no file.

A version is the number of events so far, so it always means the same. Each function here holds the studio's lock, adds
one event, and commits it by the replacement of the ledger.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import NameTakenError, StudioError, UnknownWordError, UnsafeNameError, nearest
from .ledger import Entry, Ledger, name_hash

if TYPE_CHECKING:
    from .studio import Studio

LONGEST_BRANCH, LONGEST_SHOWN = 40, 80
_BRANCH = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def rollback(studio: Studio, to: str | int) -> int:
    """See `Studio.rollback`."""
    with studio.writing():
        version = version_of(studio.record, to)
        check_whole(studio, version)
        if studio.record.timeline.folds[version] == studio.record.timeline.folds[studio.version]:
            return studio.version
        # What was dropped keeps its files, and may be old: better found damaged now than after the ledger says it is.
        for entry in studio.record.entries_at(version):
            for file in entry.files:
                studio.check_file(entry, file)
        studio.commit(studio.record.after("rollback", {"to": version}))
        return studio.version


def rename(studio: Studio, name: str, shown: str) -> int:
    """See `Studio.rename`."""
    shown = shown.strip()
    if not shown or len(shown) > LONGEST_SHOWN or not shown.isprintable():
        raise UnsafeNameError(
            f"{shown!r} cannot be shown as a name", do=f"Take one line of 1 to {LONGEST_SHOWN} printable characters."
        )
    with studio.writing():
        entry = find(studio.record, name, studio.record.entries)
        if entry.title != shown:
            # The salt keeps a forgotten name from being guessed from its seal.
            private = {"shown": shown, "salt": secrets.token_hex(16)}
            studio.commit(studio.record.after("rename", {"of": entry.version}, private=private))
        return studio.version


def create_branch(studio: Studio, name: str, at: int | None = None, *, switch: bool = False) -> int:
    """See `Studio.create_branch`."""
    with studio.writing():
        check_new_branch(studio.record, name)
        version = studio.version if at is None else at
        check_whole(studio, version)
        record = studio.record.after("branch", {"name": name, "at": version})
        if switch:
            # In the same replacement of the ledger: killed at any moment, the studio is the old one or the new one.
            record = record.after("switch", {"from": record.branch}, branch=name)
        studio.commit(record)
        return studio.version


def switch(studio: Studio, name: str) -> int:
    """See `Studio.switch`."""
    with studio.writing():
        check_branch(studio.record, name)
        if name != studio.record.branch:
            studio.commit(studio.record.after("switch", {"from": studio.record.branch}, branch=name))
        return studio.version


def delete_branch(studio: Studio, name: str) -> int:
    """See `Studio.delete_branch`."""
    with studio.writing():
        check_branch(studio.record, name)
        if name == studio.record.branch:
            raise StudioError(f"{name!r} is the branch you are on", do="Switch to another one first.")
        studio.commit(studio.record.after("delete-branch", {"name": name, "at": studio.record.branches[name]}))
        return studio.version


# -- what a person may have meant ----------------------------------------------------------------------------------


def find(record: Ledger, name: str, among: Iterable[Entry]) -> Entry:
    """The newest of some concepts that has a name or a word. Raises UnknownWordError with the nearest."""
    among = list(among)
    plain = name.removeprefix("<").removesuffix(">")
    found = [entry for entry in among if entry.name.lower() == plain.lower()]
    if found:
        return max(found, key=lambda entry: entry.version)
    for event in record.events:
        if event.kind == "forget" and event.what["name"] == name_hash(plain):
            raise UnknownWordError(
                f"{plain!r} was forgotten (version {event.version}, {event.time[:10]})",
                do="What is forgotten cannot be had back; learn it again from photos.",
            )
    known = list(dict.fromkeys(entry.name for entry in among))
    near = nearest(plain, known)
    hint = f"Did you mean {near!r}? " if near else ""
    raise UnknownWordError(
        f"there is no concept {plain!r} here",
        do=f"{hint}Concepts: {', '.join(known)}." if known else "Nothing has been learned yet.",
    )


def version_of(record: Ledger, to: str | int) -> int:
    """A version from its number, or from the name of the concept that it was the first to hold."""
    if isinstance(to, int):
        record.entries_at(to)
        return to
    if re.fullmatch(r"-?\d{1,9}", to.strip()):
        return version_of(record, int(to))
    return find(record, to, record.learned_at.values()).version


def check_whole(studio: Studio, version: int) -> None:
    """Raise StudioError for a version that never was, or that held what was forgotten since."""
    record = studio.record
    record.entries_at(version)
    timeline = record.timeline
    if timeline.whole(version):
        return
    gone = max(timeline.forgotten[concept] for concept in timeline.folds[version] if concept in timeline.forgotten)
    still = [v for v in range(record.version + 1) if timeline.whole(v)]
    raise StudioError(
        f"version {version} held a concept that was forgotten (version {gone}), so it cannot be rebuilt",
        where=studio.folder,
        do=f"Versions that can: {spans(still)}.",
    )


def spans(numbers: Iterable[int]) -> str:
    """
    >>> spans([0, 1, 2, 5, 7, 8])
    '0 to 2, 5, 7 to 8'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def check_branch_name(name: str) -> None:
    if not _BRANCH.fullmatch(name) or len(name) > LONGEST_BRANCH:
        raise UnsafeNameError(
            f"{name!r} cannot be a branch's name",
            do=f"Take letters, digits, - and _, a letter first, at most {LONGEST_BRANCH} in all: 'try-2'.",
        )


def check_new_branch(record: Ledger, name: str) -> None:
    """Raise UnsafeNameError or NameTakenError where no branch of this name can be made."""
    check_branch_name(name)
    for known, version in record.branches.items():
        if known.lower() == name.lower():
            raise NameTakenError(
                f"there is a branch {known!r} already (version {version})",
                do="Take another name, or go to it with: stamina branch DIR NAME --switch",
            )


def check_branch(record: Ledger, name: str) -> None:
    if name not in record.branches:
        near = nearest(name, record.branches)
        hint = f"Did you mean {near!r}? " if near else ""
        raise StudioError(f"there is no branch {name!r}", do=f"{hint}Branches: {', '.join(record.branches)}.")
