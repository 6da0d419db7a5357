"""A studio as one file, and a studio from such a file with every hash checked before it is there.

The file is a plain zip: `pack.json` first (format, and the SHA-256 and size of every other member), then the ledger and
what it names. Equal studios give equal bytes. What is unfinished, and the base, stay behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from . import bases, files, ledger
from .errors import BaseChangedError, PackError, StudioError
from .ledger import Ledger
from .studio import Studio

FORMAT = 1
MANIFEST = "pack.json"
SUFFIX = ".stamina"
LARGEST_TEXT = 64 * 2**20
"""Bytes of a JSON member: they are read whole."""
_MEMBER = re.compile(
    r"ledger\.json|kept\.json|samples/[\w.-]{1,60}\.png|measured/[\w.-]{1,60}\.(json|safetensors)"
    r"|measured/[0-9a-f]{32}/[\w-]{1,60}\.(json|jpg)"
    r"|concepts/\d{4,9}-[A-Za-z][A-Za-z0-9_-]{0,39}/[A-Za-z0-9_-]{1,60}\.safetensors"
)
"""All that a pack may hold: no name of it leads out of the folder, and nothing of it runs."""
_DATE = (1980, 1, 1, 0, 0, 0)
_BLOCK = 2**20


def pack(studio: Studio, out: Path, watch: Callable[[int, int], None] = lambda done, whole: None) -> list[str]:
    """Write the studio into the file `out`, each of its files checked; the answer is what was packed.

    Raises PackError where `out` exists, LedgerError for a damaged file, StudioLockedError.
    """
    if out.exists():
        raise PackError("is there already", where=out, do="Name a new file.")
    with studio.writing():
        for version, entry in studio.record.learned_at.items():
            if version in studio.record.timeline.reachable:
                for file in entry.files:
                    studio.check_file(entry, file)
        members = sorted(_members(studio.folder))
        sizes = {name: (studio.folder / name).stat().st_size for name in members}
        described = {
            "format": FORMAT,
            "files": {
                name: {"sha256": files.sha256(studio.folder / name), "size": size} for name, size in sizes.items()
            },
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = out.with_name(f".{out.name}.{os.getpid()}.part")
        try:
            with open(beside, "wb") as raw:
                with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
                    archive.writestr(zipfile.ZipInfo(MANIFEST, _DATE), json.dumps(described, indent=1))
                    done = 0
                    for name in members:
                        info = zipfile.ZipInfo(name, _DATE)
                        info.file_size = sizes[name]
                        with open(studio.folder / name, "rb") as source, archive.open(info, "w") as target:
                            shutil.copyfileobj(source, target, _BLOCK)
                        done += sizes[name]
                        watch(done, sum(sizes.values()))
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(beside, out)
            files.flush_folder(out.parent)
        finally:
            beside.unlink(missing_ok=True)
    return members


def _members(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and _MEMBER.fullmatch(name):
            yield name


def unpack(
    packed: Path,
    folder: Path,
    *,
    base: str | None = None,
    watch: Callable[[int, int], None] = lambda done, whole: None,
) -> Studio:
    """A new studio in `folder` from a packed one; `base` says where its base is on this machine.

    Raises PackError for a file that is no pack, is damaged or holds what no pack holds, StudioError where `folder` is
    taken, LedgerError, BaseModelError and BaseChangedError. Then there is no studio, as before.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudioError("is not an empty folder", where=folder, do="Give a new folder.")
    if not packed.is_file():  # opening a pipe would wait for ever
        what = "is not a plain file" if packed.exists() else "there is no such file"
        raise PackError(what, where=packed, do="Give a file that 'stamina pack' wrote.")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with open(packed, "rb") as raw, zipfile.ZipFile(raw) as archive:
            described = _manifest(packed, archive)
            beside.mkdir(parents=True)
            whole, done = sum(entry["size"] for entry in described.values()), 0
            if whole > shutil.disk_usage(beside).free:
                raise PackError(f"needs {whole} bytes, more than the disk has", where=packed, do="Make room.")
            for name, entry in described.items():
                target = beside / PurePosixPath(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source:
                    _copy(source, target, packed, name, entry)
                done += entry["size"]
                watch(done, whole)
        record = _at_home(ledger.read(beside), base)
        record.write(beside)
        _check_files(beside, record)
        if folder.exists():
            folder.rmdir()
        os.replace(beside, folder)
        files.flush_folder(folder.parent)
    # zipfile meets damage with a zoo of exceptions; an encrypted member is a RuntimeError, an unknown method another.
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, zipfile.LargeZipFile) as error:
        raise PackError(f"is no packed studio, or is damaged: {error}", where=packed, do=_AGAIN) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Studio.open(folder)


_AGAIN = "Pack the studio again where it is whole, or copy the file again."


def _manifest(packed: Path, archive: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    """What the pack says it holds, checked against what it holds."""
    infos = {info.filename: info for info in archive.infolist()}
    if MANIFEST not in infos or len(infos) != len(archive.infolist()):
        raise PackError("is no packed studio: it has no list of its files, or two of a name", where=packed, do=_AGAIN)
    for name, info in infos.items():
        if name != MANIFEST and (not _MEMBER.fullmatch(name) or info.compress_type != zipfile.ZIP_STORED):
            raise PackError(f"holds {name!r}, which no packed studio holds", where=packed, do="Do not trust this file.")
    if infos[MANIFEST].file_size > LARGEST_TEXT:
        raise PackError("has a list of files that is too long", where=packed, do="Do not trust this file.")
    try:
        body = json.loads(archive.read(MANIFEST))
        version, described = body["format"], dict(body["files"])
        shaped = all(
            isinstance(entry["sha256"], str) and type(entry["size"]) is int and entry["size"] == infos[name].file_size
            for name, entry in described.items()
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackError(f"has a damaged list of files: {error}", where=packed, do=_AGAIN) from error
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise PackError(f"has format {version!r}, and this program reads up to {FORMAT}", where=packed, do="Update it.")
    if not shaped or set(described) != infos.keys() - {MANIFEST} or ledger.FILE not in described:
        raise PackError("does not hold what its list of files says", where=packed, do=_AGAIN)
    return described


def _copy(source: IO[bytes], target: Path, packed: Path, name: str, entry: dict[str, Any]) -> None:
    """Copy a member, its size and hash checked on the way."""
    whole, size = hashlib.sha256(), 0
    with open(target, "wb") as out:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > entry["size"]:
                break
            whole.update(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if size != entry["size"] or whole.hexdigest() != entry["sha256"]:
        raise PackError(f"{name} is damaged in it: its hash is not the one in its list", where=packed, do=_AGAIN)


def _at_home(record: Ledger, base: str | None) -> Ledger:
    """The ledger with its base where it is on this machine; it must be the very same base."""
    known = record.base
    if base is None:
        if known.kind in ("folder", "file") and not Path(known.source).exists():
            raise StudioError(
                f"its base was the folder {known.source}, which is not here",
                do=f"Say where the base is: --base FOLDER (its hash is {known.hash[:12]}).",
            )
        known.folder()
        return record
    found = bases.find(base, variant=known.variant)
    if found.hash != known.hash:
        raise BaseChangedError(
            f"this is another base than the studio's (hash {found.hash[:12]}, the studio's {known.hash[:12]})",
            where=base,
            do="Give the base that it was made with.",
        )
    return replace(record, base=replace(found, hash=known.hash))


def _check_files(folder: Path, record: Ledger) -> None:
    """Every file of the ledger must be there as it was written; Raises LedgerError."""
    studio = Studio(folder, record)
    for version, entry in record.learned_at.items():
        if version in record.timeline.reachable:
            for file in entry.files:
                studio.check_file(entry, file)
