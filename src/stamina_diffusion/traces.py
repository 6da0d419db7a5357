"""Traces of a concept in a studio: its files, pictures that show it, texts that name it; and their deletion."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import files, kept, ledger
from .errors import StudioError
from .ledger import Ledger

if TYPE_CHECKING:
    from .studio import Studio

MARK = "forgetting.json"
"""What is to be deleted once the ledger says that it is forgotten; gone when it is done."""

TEXTS = {".css", ".csv", ".html", ".json", ".md", ".svg", ".txt"}


def versions(record: Ledger, gone: Collection[int]) -> list[int]:
    """The versions that held one of these concepts."""
    return record.timeline.holding(gone)


def of(folder: Path, before: Ledger, after: Ledger, gone: Collection[int]) -> list[str]:
    """What must go when concepts are forgotten, as paths within the folder.

    `before` is the ledger that knows them, `after` the one that does not. What a person put into the folder stays.
    """
    # An interrupted write may have left any of the studio's texts and pictures beside its place.
    halves = folder.rglob(".*.part")
    found = [*_concepts(folder, before, after), *_drawn(folder, before, after, gone), *halves]
    for version in gone:
        name = before.learned_at[version].name
        found += [folder / "unfinished" / name, *(folder / "logs").glob(f"*-{name}"), *_derived(folder, name)]
    there = (path for path in dict.fromkeys(found) if path.exists())
    return [path.relative_to(folder).as_posix() for path in there]


def _concepts(folder: Path, before: Ledger, after: Ledger) -> Iterator[Path]:
    """Folders of concepts that no version which can be rebuilt needs, and files that were written anew."""
    for version, entry in before.learned_at.items():
        place = folder / "concepts" / entry.folder
        if version not in after.timeline.reachable:
            yield place
            continue
        yield from (place / file for file in entry.files if file not in after.learned_at[version].files)


def _drawn(folder: Path, before: Ledger, after: Ledger, gone: Collection[int]) -> Iterator[Path]:
    """Strips of what is known no more, and sheets of versions that showed what is gone."""
    held = set(versions(before, gone))
    known = {entry.name for version, entry in after.learned_at.items() if version in after.timeline.reachable}
    lost = {entry.name for entry in before.learned_at.values()} - known
    for path in (folder / "samples").glob("*"):
        sheet = re.match(r"(\d+)-", path.name)
        if (sheet and int(sheet[1]) in held) or path.stem in lost:
            yield path


def _derived(folder: Path, name: str) -> Iterator[Path]:
    """Reports and measurements that name a concept; of a folder of measurements the whole."""
    said = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
    places = [*folder.glob("report*"), *(folder / "measured").glob("*"), *(folder / "samples").glob("*")]
    for place in places:
        inside = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
        if any(said.search(path.stem) or (path.suffix in TEXTS and said.search(_text(path))) for path in inside):
            yield place


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def sweep(studio: Studio) -> None:
    """Finish an interrupted removal, and remove the files that no version which can be rebuilt needs."""
    finish(studio)
    for file in (ledger.FILE, MARK):
        for half in studio.folder.glob(f".{file}.*.part"):
            half.unlink()
    files.clear_parts(studio.folder)  # what is written without the lock: pictures, measurements
    record = studio.record
    known = {entry.folder: entry for v, entry in record.learned_at.items() if v in record.timeline.reachable}
    folder = studio.folder / "concepts"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in known:
            # A file or a link was never ours: a desktop leaves its own in every folder.
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            continue
        for file in path.iterdir() if path.is_dir() and not path.is_symlink() else ():
            memory = file.name.startswith("memory") and file.name not in known[path.name].files
            if memory or file.suffix == ".part":
                file.unlink()


def finish(studio: Studio) -> None:
    """Delete what a committed removal left to delete; drop the list of one that was never committed."""
    path = studio.folder / MARK
    try:
        mark = files.read_json(path)
        head, name, versions, doomed = mark["head"], mark["name"], mark["versions"], mark["delete"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        path.unlink()
        return
    try:
        if any(event.hash == head for event in studio.record.events):
            for one in doomed:
                _delete(studio.folder, one)
            # One that was interrupted right here left the next line's file half written.
            for half in studio.folder.glob(f".{kept.FILE}.*.part"):
                half.unlink()
            kept.forget(studio.folder, name, versions)
        path.unlink()
        files.flush_folder(studio.folder)
    except OSError as error:
        raise StudioError(
            f"not every file of a forgotten concept could be deleted: {error.strerror} ({error.filename})",
            where=studio.folder,
            do="The model has forgotten it. Mend the cause; the next command that writes to it deletes the rest.",
        ) from error


def _delete(folder: Path, relative: str) -> None:
    path = folder / relative
    # The list is a file like any other in a studio that may come from elsewhere.
    if (
        Path(relative).is_absolute()
        or ".." in Path(relative).parts
        or not path.parent.resolve().is_relative_to(folder.resolve())
    ):
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
