"""A studio: one folder with a base, a ledger of concepts in order, and each concept's change; nothing else is needed.

A concept is committed by the replacement of the ledger, after its files are on the disk under their final name. Before
that moment the studio is as it was; after it, it holds the concept whole.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import Tensor

from . import bases, files, ledger
from .backbones.diffusion.stable_diffusion import StableDiffusion, load
from .concepts import Concept, word_of
from .errors import LedgerError, NameTakenError, StudioError, StudioLockedError, TrainingError
from .learn import Learned, Step, learn
from .ledger import Entry, Ledger
from .method import Method
from .photos import Photo
from .plan import Plan
from .sites import fold

PACKAGES = ("stamina-diffusion", "torch", "diffusers", "transformers", "accelerate")


class Studio:
    """A folder that holds a model with a history."""

    def __init__(self, folder: Path, record: Ledger) -> None:
        self.folder = folder
        self._record = record
        self._backbone: StableDiffusion | None = None

    # -- opening ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, folder: Path, base: str = "embedded", *, revision: str | None = None, variant: str | None = None
    ) -> Studio:
        """A new studio on a base: 'embedded', a pipeline folder or a hub id. Raises StudioError, BaseModelError."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is a studio already" if (folder / ledger.FILE).exists() else "is not an empty folder"
            raise StudioError(what, where=folder, do="Give a new folder.")
        found = bases.find(base, revision=revision, variant=variant)
        folder.mkdir(parents=True, exist_ok=True)
        record = Ledger(found)
        record.write(folder)
        return cls(folder, record)

    @classmethod
    def open(cls, folder: Path) -> Studio:
        """The studio in `folder`. Raises StudioError where there is none, LedgerError where it is damaged."""
        if not (folder / ledger.FILE).is_file():
            raise StudioError("is not a studio", where=folder, do=f"Make one with: stamina init {folder}")
        return cls(folder, ledger.read(folder))

    @property
    def base(self) -> dict[str, Any]:
        return self._record.base.record()

    @property
    def entries(self) -> list[Entry]:
        return list(self._record.entries)

    @property
    def version(self) -> int:
        return self._record.version

    def concept_folder(self, entry: Entry) -> Path:
        """Where a concept's files are."""
        return self.folder / "concepts" / entry.folder

    def check_name(self, name: str) -> str:
        """The word of a new concept's name. Raises UnsafeNameError, NameTakenError."""
        word = word_of(name)
        for entry in self.entries:
            # Files on some systems do not tell case apart.
            if entry.name.lower() == name.lower():
                raise NameTakenError(
                    f"{entry.name!r} was learned already (version {entry.version})", do="Take another name."
                )
        return word

    # -- the model -------------------------------------------------------------------------------------------------

    def backbone(self) -> StableDiffusion:
        """The model of the newest version, built from the base and the ledger to the bit; kept while it is current.

        Raises BaseModelError, BaseChangedError, and LedgerError for a concept's file that is not what was written.
        """
        if self._backbone is None:
            self._backbone = self.rebuilt(self.version)
        return self._backbone

    def rebuilt(self, version: int) -> StableDiffusion:
        """The model as it was after `version` concepts (0 is the base), built anew."""
        base = self._record.base
        backbone = StableDiffusion(load(base.folder(), variant=base.variant), base.source)
        sites = backbone.weight_sites("network")
        for entry in self._record.entries[:version]:
            changes = self.read_checked(entry, "change.safetensors")
            word = backbone.add_word(entry.word, changes.pop("start")[0])
            token = f"token/{entry.word}"
            fold({**sites, token: backbone.word_site(entry.word, word)}, changes)
        return backbone.to(torch.device(PartialState().device or "cpu"))

    def read_checked(self, entry: Entry, file: str) -> dict[str, Tensor]:
        """A concept's tensors. Raises LedgerError when the file is gone or is not what was written."""
        path = self.concept_folder(entry) / file
        do = "Restore the file from a backup of the studio."
        if not path.is_file():
            raise LedgerError(f"is gone; concept {entry.name!r} needs it", where=path, do=do)
        if files.sha256(path) != entry.files[file]:
            raise LedgerError("is damaged: its hash is not the one in the ledger", where=path, do=do)
        return load_file(path)

    def memory(self) -> dict[str, Tensor]:
        """What the method kept of the concepts so far."""
        if not self.entries or "memory.safetensors" not in self.entries[-1].files:
            return {}
        return self.read_checked(self.entries[-1], "memory.safetensors")

    # -- learning --------------------------------------------------------------------------------------------------

    def unfinished(self, name: str) -> Path:
        """Where the state of an unfinished learning is kept."""
        return self.folder / "unfinished" / name

    def pending(self) -> str | None:
        """The name of a concept whose learning was interrupted."""
        folder = self.folder / "unfinished"
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        return names[0] if names else None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the studio's lock. Raises StudioLockedError when another process does, or StudioError if it moved on."""
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise StudioLockedError(
                "another process is learning in this studio", where=self.folder, do="Wait until it is done."
            ) from error
        except OSError as error:
            raise StudioError(
                f"cannot be written: {error.strerror}", where=self.folder, do="Mend its rights."
            ) from error
        try:
            now = ledger.read(self.folder)
            if now.head != self._record.head:
                self._record, self._backbone = now, None
            self._sweep()
            yield
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Remove what an interrupted commit left: concept folders that the ledger does not name."""
        folder, known = self.folder / "concepts", {entry.folder for entry in self.entries}
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in known:
                shutil.rmtree(path)

    def learn(
        self,
        photos: Sequence[Photo],
        name: str,
        *,
        method: Method,
        plan: Plan,
        class_word: str | None = None,
        watch: Callable[[Step], None] = lambda step: None,
    ) -> tuple[Entry, StableDiffusion]:
        """Learn a concept, fold it in and commit it; the answer is its ledger entry and the model that knows it.

        Interrupted, the same call goes on from the last checkpoint. Raises NameTakenError, StudioLockedError,
        TrainingError and what `backbone` raises; the studio is then as it was.
        """
        processes = PartialState()
        checkpoint = self.unfinished(name) / "checkpoint.safetensors"
        if not processes.is_main_process:
            # The first process decides what is resumed, writes and commits; the others only compute with it.
            processes.wait_for_everyone()
            return self._taught(photos, name, method, plan, class_word, checkpoint, watch, commit=False)
        with self.writing():
            self.check_name(name)
            try:
                self._prepare(photos, name, method, plan, class_word)
                processes.wait_for_everyone()
                return self._taught(photos, name, method, plan, class_word, checkpoint, watch)
            except BaseException as error:
                # What a later call can go on from stays; the state of a failed training leads nowhere.
                if not checkpoint.exists() or isinstance(error, TrainingError | torch.OutOfMemoryError):
                    shutil.rmtree(checkpoint.parent, ignore_errors=True)
                raise

    def _taught(
        self,
        photos: Sequence[Photo],
        name: str,
        method: Method,
        plan: Plan,
        class_word: str | None,
        checkpoint: Path,
        watch: Callable[[Step], None],
        commit: bool = True,
    ) -> tuple[Entry, StableDiffusion]:
        backbone, memory = self.backbone(), self.memory()
        # Until the commit the model in memory is no version of the studio: a failure must not leave it as one.
        self._backbone = None
        resolution = plan.resolution or backbone.resolution
        concept = Concept(
            name,
            tuple(photo.load(resolution) for photo in photos),
            tuple(photo.caption for photo in photos),
            class_word,
        )
        try:
            learned = learn(backbone, method, concept, memory, plan, checkpoint=checkpoint, watch=watch)
            entry = self._entry(photos, concept, method, plan, learned)
            if commit:
                entry = self._commit(entry, learned)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise TrainingError(
                    "the disk is full", where=self.folder, do="Free some space; the studio is as it was."
                ) from error
            raise
        self._record = Ledger(self._record.base, (*self._record.entries, entry))
        self._backbone = backbone
        return entry, backbone

    def _prepare(self, photos: Sequence[Photo], name: str, method: Method, plan: Plan, class_word: str | None) -> None:
        """Keep the checkpoint of an earlier try only if it was of the very same request."""
        request = {
            "parent": self._record.head,
            "photos": [photo.sha256 for photo in photos],
            "captions": [photo.caption for photo in photos],
            "class_word": class_word,
            "method": method.name,
            "settings": method.settings(),
            "plan": plan.settings(),
        }
        folder = self.unfinished(name)
        path = folder / "request.json"
        try:
            same = json.loads(path.read_text()) == json.loads(json.dumps(request))
        except (OSError, ValueError):
            same = False
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            files.write_json(path, request)

    def _entry(self, photos: Sequence[Photo], concept: Concept, method: Method, plan: Plan, learned: Learned) -> Entry:
        last = learned.losses[-max(1, plan.steps // 10) :]
        return Entry(
            name=concept.name,
            word=concept.word,
            class_word=concept.class_word,
            method=method.name,
            settings=method.settings(),
            plan=plan.settings(),
            steps=plan.steps,
            seed=plan.seed,
            photos=[
                {"file": photo.path.name, "path": str(photo.path.resolve()), "sha256": photo.sha256} for photo in photos
            ],
            density=learned.density,
            final_loss=sum(last) / len(last) if last else float("nan"),
            files={},
            version=self.version + 1,
            hash="",
            seconds=round(learned.seconds, 2),
            learned=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions={package: metadata.version(package) for package in PACKAGES},
        )

    def _commit(self, entry: Entry, learned: Learned) -> Entry:
        """Write the concept's files beside, rename them into place, then replace the ledger."""
        final = self.concept_folder(entry)
        beside = final.with_name(f".{final.name}.part")
        beside.mkdir(parents=True)
        try:
            written: dict[str, Mapping[str, Tensor]] = {
                "change.safetensors": {**learned.changes, "start": learned.start}
            }
            if learned.memory:
                written["memory.safetensors"] = learned.memory
            for file, tensors in written.items():
                files.write_tensors(beside / file, tensors, {"concept": entry.name, "word": entry.word})
            hashes = {file: files.sha256(beside / file) for file in written}
            os.replace(beside, final)
            files.flush_folder(final.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        entry = replace(entry, files=hashes)
        entry = replace(entry, hash=ledger.entry_hash(self._record.head, asdict(entry)))
        Ledger(self._record.base, (*self._record.entries, entry)).write(self.folder)
        shutil.rmtree(self.unfinished(entry.name), ignore_errors=True)
        return entry
