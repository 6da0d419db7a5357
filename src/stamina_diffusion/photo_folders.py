"""Finds the photos that a person means by a folder, a file or a list of them, and what lies oddly among them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .errors import PhotoError
from .photo_decoding import OTHER_KINDS, SUFFIXES, other_kind
from .photo_findings import Finding

COMPANIONS = frozenset(
    {".txt", ".caption", ".json", ".jsonl", ".csv", ".toml", ".yaml", ".yml", ".xmp", ".aae", ".npz"}
)
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", ".ds_store", "__macosx", "@eadir"})
REPEATS_FOLDER = re.compile(r"\d+_(?P<name>.+)")  # the `10_mug` folders of kohya's trainers


def gather(sources: Path | Sequence[Path]) -> tuple[list[Path], list[Finding], Path | None]:
    """The files to open, what was found among their neighbours, and the place to name when it is one."""
    if isinstance(sources, str | Path):
        source = Path(sources)
        if not os.path.lexists(source):
            raise PhotoError("there is no such file or folder", where=source, do="Check the path for a typing error.")
        if not os.path.isdir(source):
            return [source], [], source
        inside, notes = _folder(source, alone=True)
        return inside, notes, source
    given = [Path(source) for source in sources]
    # A shell's `photos/*` names the captions too; they are not meant as photos.
    named = [path for path in given if not _companion(path)] or given
    paths: dict[str, Path] = {}
    findings: list[Finding] = []
    for source in named:
        members = [source]
        if os.path.isdir(source):
            members, more = _folder(source, alone=False)
            findings += more
        for path in members:
            paths.setdefault(os.path.abspath(path), path)
    if not given:
        findings.append(Finding(None, "error", "empty-folder", "no photos were given", "Name a folder of photos."))
    return sorted(paths.values(), key=_natural), findings, None


def _folder(folder: Path, *, alone: bool) -> tuple[list[Path], list[Finding]]:
    """The files of a folder to open, in natural order, and findings on the rest; hidden files are passed over."""
    try:
        files, folders = _list(folder)
    except OSError as error:
        what, do = f"the folder cannot be listed ({error.strerror})", "Give yourself the right to read it."
        if alone:
            raise PhotoError(what, where=folder, do=do) from error
        return [], [Finding(folder, "error", "unreadable", what, do)]
    findings: list[Finding] = []
    if folders and all(map(_companion, files)) and all(REPEATS_FOLDER.fullmatch(inner.name) for inner in folders):
        names = sorted({inner.name.partition("_")[2] for inner in folders})
        if len(names) > 1:
            what = f"holds {len(names)} folders of photos ({', '.join(names)}), read as one concept"
            do = "If they show different things, teach each folder as a concept of its own."
            findings.append(Finding(folder, "warning", "several-concepts", what, do))
        for inner in folders:
            try:
                files += _list(inner)[0]
            except OSError as error:
                what = f"the folder cannot be listed ({error.strerror})"
                findings.append(Finding(inner, "error", "unreadable", what, "Give yourself the right to read it."))
        folders = []
    paths = [path for path in files if path.suffix.lower() in SUFFIXES]
    stems = {path.with_suffix("") for path in paths}
    others = [path for path in files if path.suffix.lower() in OTHER_KINDS and path.with_suffix("") not in stems]
    for path in others:  # a raw file or a HEIC beside a JPEG of the same name is not missed
        unfit = other_kind(path.suffix.lower())
        findings.append(Finding(path, "error", unfit.code, unfit.what, unfit.do))
    stems |= {path.with_suffix("") for path in others}
    for path in files:
        if paths and path.suffix.lower() == ".txt" and path.with_suffix("") not in stems:
            do = f"Name it after its photo ('{paths[0].stem}.txt' belongs to '{paths[0].name}'), or remove it."
            findings.append(Finding(path, "hint", "orphan-caption", "a caption without a photo of that name", do))
    if not paths and not others:
        what, do = "there are no photos in this folder", "Put photos (JPEG, PNG, WebP, BMP or TIFF) into it."
        inside = [inner.name for inner in folders if _holds_photos(inner)]
        if inside:
            shown = ", ".join(f"'{name}'" for name in inside[:5]) + (", ..." if len(inside) > 5 else "")
            what = f"there are no photos in this folder, only in folders inside it ({shown})"
            do = f"Name the inner folder instead: '{folder / inside[0]}'."
        findings.append(Finding(folder, "error", "empty-folder", what, do))
    return sorted(paths, key=_natural), findings


def _list(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders in `folder` that a person put there, each in natural order."""
    seen = [path for path in folder.iterdir() if not path.name.startswith(".")]
    seen = sorted((path for path in seen if path.name.casefold() not in SYSTEM_FILES), key=_natural)
    return [path for path in seen if not os.path.isdir(path)], [path for path in seen if os.path.isdir(path)]


def _holds_photos(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in SUFFIXES for path in _list(folder)[0])
    except OSError:
        return False


def _companion(path: Path) -> bool:
    return path.suffix.lower() in COMPANIONS or path.name.casefold() in SYSTEM_FILES


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Order as a person counts: 2.jpg before 10.jpg. The path settles ties."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name.casefold())
    # A number of a thousand digits is compared as text: int() refuses it.
    keys = [(0, int(part), "") if part[0] in "0123456789" and len(part) < 19 else (1, 0, part) for part in parts]
    return keys, str(path)
