"""Is a studio what its ledger says? Every hash anew, the model rebuilt and compared to the bit, and what can be saved.

Nothing is changed here. A file is *damaged* when its bytes are not those that were written, *missing* when it is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import files
from .errors import LedgerError, StaminaError
from .fingerprints import fingerprint
from .history import spans
from .ledger import Entry

if TYPE_CHECKING:
    from .studio import Studio

Verdict = Literal["damaged", "missing", "unknown", "differs", "base"]
CHANGE, STATISTICS = "change.safetensors", "statistics.safetensors"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    what: Verdict
    path: str
    """Within the studio's folder; the base's place for the base."""
    said: str
    do: str


@dataclass(frozen=True)
class Verified:
    """What was looked at and what was found."""

    files: int
    """Files whose hash was computed."""
    versions: list[int]
    """Versions whose model was rebuilt and is, to the bit, the one that was learned."""
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        """Whether everything that the model needs is as it was written; files that nobody knows do no harm."""
        return all(finding.what == "unknown" for finding in self.findings)

    def record(self) -> dict[str, Any]:
        return {"sound": self.sound, **asdict(self)}


def verify(studio: Studio, watch: Callable[[str], None] = lambda doing: None) -> Verified:
    """Check a studio whose ledger could be read. Raises nothing for what it finds; see `Verified.findings`."""
    record = studio.record
    reachable = [entry for version, entry in record.learned_at.items() if version in record.timeline.reachable]
    findings: list[Finding] = []
    count = 0
    broken: set[int] = set()
    for entry in reachable:
        for file in entry.files:
            watch(f"{entry.folder}/{file}")
            count += 1
            finding = _of_file(studio, entry, file)
            if finding is not None:
                findings.append(finding)
                broken |= {entry.version} if file == CHANGE else set()
    findings += _unknown(studio, {entry.folder: entry for entry in reachable})
    try:
        watch("the base")
        record.base.folder()
    except StaminaError as error:
        findings.append(Finding("base", record.base.source, error.what, error.do or ""))
        return Verified(count, [], findings)
    rebuilt, different = _rebuild(studio, broken, watch)
    return Verified(count, rebuilt, findings + different)


def _of_file(studio: Studio, entry: Entry, file: str) -> Finding | None:
    try:
        studio.check_file(entry, file)
    except LedgerError as error:
        path = studio.concept_folder(entry) / file
        what: Verdict = "damaged" if path.is_file() else "missing"
        do = "Restore it from a backup, or from a packed studio."
        if file == CHANGE:
            do += f" Until then: {_without(studio, entry)}"
        elif file == entry.memory:
            do += f" The model is not touched by it, but nothing can be learned on top of {entry.word} without it."
        elif file == STATISTICS:
            do += " The model is not touched by it; until then: stamina classify predict DIR --head trained."
        return Finding(what, path.relative_to(studio.folder).as_posix(), error.what, do)
    return None


def _without(studio: Studio, entry: Entry) -> str:
    """Which versions do without a concept."""
    timeline = studio.record.timeline
    with_it = set(timeline.holding({entry.version}))
    able = [v for v in range(studio.version + 1) if timeline.whole(v) and v not in with_it]
    return f"versions that do without {entry.word}: {spans(able)} (stamina rollback DIR --to VERSION)."


def _unknown(studio: Studio, known: dict[str, Entry]) -> list[Finding]:
    """Files among the concepts that the ledger does not name; features are measured and may be missing or new."""
    found = []
    folder = studio.folder / "concepts"
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_dir():
            continue
        entry = known.get(path.parent.name) if path.parent.parent == folder else None
        if entry is None or path.name not in {*entry.files, "features.safetensors"}:
            place = path.relative_to(studio.folder).as_posix()
            do = "The next command that writes to the studio removes what an interruption left; else delete it."
            found.append(Finding("unknown", place, "the ledger does not know it", do))
    return found


def _rebuild(studio: Studio, broken: set[int], watch: Callable[[str], None]) -> tuple[list[int], list[Finding]]:
    """Fold the concepts of every branch one by one; after each, the model must be the one that was learned there."""
    record, timeline = studio.record, studio.record.timeline
    lines = {timeline.left(version) for version in record.branches.values()} | {timeline.left(record.version)}
    # A line that begins another one is checked on the way.
    longest = [line for line in lines if not any(other[: len(line)] == line for other in lines if other != line)]
    sound: set[int] = set()
    findings: list[Finding] = []
    for line in sorted(longest):
        whole = line[: next((place for place, version in enumerate(line) if version in broken), len(line))]
        if not whole:
            continue
        watch(f"rebuilding {len(whole)} concepts")
        backbone = studio.bare()
        for entry in (record.learned_at[version] for version in whole):
            changed = studio.fold_recorded(backbone, entry)
            # What was refolded without a forgotten concept is no longer the model that was learned there.
            as_learned = timeline.folds[entry.version] == line[: line.index(entry.version) + 1]
            if not as_learned or not entry.weights or entry.version in sound:
                continue
            if fingerprint(changed, changed) == entry.weights:
                sound.add(entry.version)
                continue
            said = f"the rebuilt model of version {entry.version} is not the one that was learned"
            do = "Other hardware or another torch may add in another way; tell us, with `stamina log --json`."
            findings.append(Finding("differs", f"concepts/{entry.folder}", said, do))
            break
    return sorted(sound), findings


def of_unreadable(folder: Path) -> list[str]:
    """What can be said of the concepts' files where the ledger cannot be read: which of them are whole safetensors."""
    from safetensors import SafetensorError, safe_open

    said = []
    for path in sorted((folder / "concepts").glob("*/*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                said.append(f"{path.relative_to(folder).as_posix()}: readable, {len(list(file.keys()))} tensors, "
                            f"SHA-256 {files.sha256(path)[:12]}")  # fmt: skip
        except (SafetensorError, OSError) as error:
            said.append(f"{path.relative_to(folder).as_posix()}: damaged ({error})")
    return said
