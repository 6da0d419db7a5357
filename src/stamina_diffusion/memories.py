"""What methods remember: whether it fits what was recorded, and what it is without a concept that is forgotten.

Both by doing the last steps again over the recorded changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from . import files
from .adopting import method_of
from .deltas import Delta
from .errors import LedgerError, SettingsError, StudioError
from .events import Entry
from .ledger import Ledger
from .method import Change, Memory
from .sites import Site, changes_in, is_word

if TYPE_CHECKING:
    from .studio import Studio


def rewritten(studio: Studio, record: Ledger, gone: frozenset[int]) -> dict[str, dict[str, str]]:
    """Write anew, beside the old ones, the memories that hold what is forgotten: by concept the file and its hash."""
    timeline, known = record.timeline, record.learned_at
    lines = {version: timeline.left(version) for version in timeline.reachable - gone}
    affected = {version: line for version, line in lines.items() if gone & set(line)}
    last: tuple[tuple[int, ...], Memory] = ((), {})

    def along(line: tuple[int, ...]) -> Memory:
        """What is remembered after these concepts, in order, none of them gone."""
        nonlocal last
        if not line or line == last[0]:
            return last[1] if line else {}
        entry = known[line[-1]]
        if line[-1] in affected:
            last = (line, remembered(studio, entry, along(line[:-1])))
        else:
            last = (line, studio.memory_of(entry))
        return last[1]

    written: dict[str, dict[str, str]] = {}
    for version, line in sorted(affected.items(), key=lambda item: item[1]):
        entry = known[version]
        _check_replay(studio, entry, known[line[-2]] if len(line) > 1 else None)
        memory = along(tuple(concept for concept in line if concept not in gone))
        written[str(version)] = {}
        if memory:
            path = studio.concept_folder(entry) / f"memory-{record.version + 1:04d}.safetensors"
            files.write_tensors(path, memory, {"concept": entry.name, "word": entry.word})
            written[str(version)] = {path.name: files.sha256(path)}
    return written


def checked(studio: Studio) -> Memory:
    """What the methods kept of a studio's concepts so far, as the next one gets it.

    Raises LedgerError where a part is missing or of another shape than its concept's change gives: a past that is not
    there would not be spared, and nobody would see it.
    """
    entries = studio.entries
    if not entries:
        return {}
    entry, memory = entries[-1], studio.memory_of(entries[-1])
    try:
        expected = remembered(studio, entry, studio.memory_of(entries[-2]) if len(entries) > 1 else {})
    except SettingsError:  # a method that needs more than the changes; what it kept cannot be foretold
        return memory
    except (KeyError, IndexError, ValueError, RuntimeError):
        expected = None
    if expected is None or any(key not in memory or memory[key].shape != expected[key].shape for key in expected):
        raise LedgerError(
            f"what {entry.method} remembers does not fit the concept's change",
            where=studio.concept_folder(entry) / str(entry.memory or "memory.safetensors"),
            do="Get the studio again from where it came, or roll back to before the concept.",
        )
    return memory


def remembered(studio: Studio, entry: Entry, memory: Memory) -> Memory:
    """What a concept's method remembers after it, from its recorded change and what was remembered before it."""
    recorded = changes_in(studio.read_checked(entry, "change.safetensors"))
    changes = {
        name: Change(Site(name, "token" if is_word(name) else "weight", nn.Module(), ""), Delta(), value)
        for name, value in recorded.items()
    }
    with torch.no_grad():
        return method_of(entry).remember(changes, memory)


def _check_replay(studio: Studio, entry: Entry, previous: Entry | None) -> None:
    """Raise StudioError unless the recorded change gives the recorded memory, which a new one then may be made like."""
    memory = remembered(studio, entry, studio.memory_of(previous) if previous else {})
    recorded = studio.memory_of(entry)
    same = memory.keys() == recorded.keys() and all(torch.equal(memory[name], recorded[name]) for name in recorded)
    if not same:
        raise StudioError(
            f"what {entry.method} remembers of {entry.name!r} cannot be computed anew from the recorded changes",
            where=studio.folder,
            do="Nothing was changed. Roll back to before the concept to be forgotten, and learn the later ones again.",
        )
