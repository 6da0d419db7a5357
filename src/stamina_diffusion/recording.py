"""How a learned concept gets into a studio: what may go on from a checkpoint, its entry, its files, and the commit."""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from . import files
from .concepts import Concept, Task
from .errors import TrainingError
from .learn import Learned
from .ledger import Entry, Ledger
from .method import Method
from .photos import Photo
from .plan import Plan

if TYPE_CHECKING:
    from .studio import Studio

PACKAGES = ("stamina-diffusion", "torch", "diffusers", "transformers", "accelerate")


def prepare(
    folder: Path, record: Ledger, photos: Sequence[Photo], method: Method, plan: Plan, class_word: str | None
) -> None:
    """Keep the checkpoint of an earlier try in `folder` only if it was of the very same request."""
    request = {
        "parent": record.model,
        "photos": [photo.sha256 for photo in photos],
        "captions": [photo.caption for photo in photos],
        "class_word": class_word,
        "method": method.name,
        "settings": method.settings(),
        "plan": plan.settings(),
    }
    path = folder / "request.json"
    try:
        same = json.loads(path.read_text()) == json.loads(json.dumps(request))
    except (OSError, ValueError, RecursionError):
        same = False
    if not same:
        if folder.is_symlink():  # rmtree leaves links alone, and what is behind one is not ours
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files.write_json(path, request)


def entry_of(
    version: int,
    photos: Sequence[Photo],
    concept: Concept,
    method: Method,
    plan: Plan,
    learned: Learned,
    terms: Mapping[str, str | None],
    weights: str,
) -> Entry:
    """The entry of what was just learned, without its files and hash.

    `terms` are its consent and licence, `weights` the fingerprint of the sites that it changed.
    """
    last = learned.losses[-max(1, plan.steps // 10) :]
    told = [
        {"file": _text(photo.path.name), "path": _text(photo.path.resolve()), "sha256": photo.sha256}
        for photo in photos
    ]
    classes = None
    if isinstance(concept, Task):
        classes = list(concept.classes)
        told = [{**one, "class": classes[label]} for one, label in zip(told, concept.labels, strict=True)]
    return Entry(
        name=concept.name,
        word=concept.word,
        class_word=concept.class_word,
        method=method.name,
        settings=method.settings(),
        plan=plan.settings(),
        steps=plan.steps,
        seed=plan.seed,
        photos=told,
        density=learned.density,
        final_loss=sum(last) / len(last) if last else float("nan"),
        files={},
        version=version,
        hash="",
        seconds=round(learned.seconds, 2),
        learned=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={package: metadata.version(package) for package in PACKAGES},
        weights=weights,
        classes=classes,
        **terms,
    )


def _text(path: Path | str) -> str:
    """A path as a text that a file can hold: on some systems a name may be bytes that are none."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def commit(
    studio: Studio,
    entry: Entry,
    learned: Learned,
    more: Mapping[str, Mapping[str, Tensor]],
    *,
    onto: str | None = None,
) -> Ledger:
    """Write the concept's files beside, rename them into place, then replace the ledger; the answer is the new one.

    `more` is what the studio keeps beside the change and the memory, by the files' names. With `onto` the concept
    becomes the newest of a new branch of that name, which begins at the current version, and the current branch stays
    the current one: three events more, in the same replacement of the ledger.
    """
    record = studio.record
    if onto is not None:
        record = record.after("branch", {"name": onto, "at": record.version})
        record = record.after("switch", {"from": record.branch}, branch=onto)
        entry = replace(entry, version=record.version + 1)
    final = studio.concept_folder(entry)
    beside = final.with_name(f".{final.name}.part")
    beside.mkdir(parents=True)
    try:
        written: dict[str, Mapping[str, Tensor]] = {"change.safetensors": {**learned.changes, **learned.start}}
        if learned.memory:
            written["memory.safetensors"] = learned.memory
        written |= more
        for file, tensors in written.items():
            files.write_tensors(beside / file, tensors, {"concept": entry.name, "word": entry.word})
        hashes = {file: files.sha256(beside / file) for file in written}
        os.replace(beside, final)
        files.flush_folder(final.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    record = record.learned(replace(entry, files=hashes))
    if onto is not None:
        record = record.after("switch", {"from": onto}, branch=studio.branch)
    record.write(studio.folder)
    shutil.rmtree(studio.unfinished(entry.name), ignore_errors=True)
    return record


@contextmanager
def room_on_disk(folder: Path) -> Iterator[None]:
    """Inside, a full disk is a TrainingError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            do = "Free some space; the studio is as it was."
            raise TrainingError("the disk is full", where=folder, do=do) from error
        raise
