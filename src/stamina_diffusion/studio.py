"""A studio: one folder with a base, a ledger of concepts in order, and each concept's change; nothing else is needed.

A concept is committed by the replacement of the ledger, after its files are on the disk under their final name. Before
that moment the studio is as it was; after it, it holds the concept whole.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from accelerate import PartialState
from torch import Tensor

from . import bases, files, forgetting, history, ledger, locks, memories, recording, traces
from .backbones.diffusion import families
from .backbones.diffusion.text_to_image import TextToImage
from .concepts import Concept, word_of
from .errors import LedgerError, NameTakenError, OtherKindError, RefusedError, StudioError, TrainingError
from .fingerprints import fingerprint
from .forgetting import Forgotten
from .learn import Step, learn
from .ledger import Entry, Ledger
from .method import Memory, Method
from .photos import Photo
from .plan import Plan, Storage
from .sites import Site


class Look(NamedTuple):
    """Who looks at a model while it learns, and after which steps."""

    peek: Callable[[int, TextToImage], None]
    at: Collection[int]


FOLDERS = ("concepts", "samples", "unfinished")
"""Where a studio writes, besides the files that lie in it directly."""
KINDS = {"pipeline": ("text-to-image model", "stamina learn, draw ..."), "vit": ("classifier", "stamina classify ...")}
"""For each network of a base what it is, and the commands that teach it."""


class Studio:
    """A folder that holds a model with a history."""

    network: ClassVar[Literal["pipeline", "vit"]] = "pipeline"
    made_by: ClassVar[str] = "stamina init"

    def __init__(self, folder: Path, record: Ledger) -> None:
        self.folder = folder
        self._record = record
        self._backbone: TextToImage | None = None
        self._storage: Storage = "float32"

    # -- opening ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: Path,
        base: str = "embedded",
        *,
        revision: str | None = None,
        variant: str | None = None,
        config: Path | None = None,
    ) -> Studio:
        """A new studio on a base: 'embedded', a pipeline folder, a single file with its `config`, or a hub id.

        Raises StudioError, BaseModelError.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is a studio already" if (folder / ledger.FILE).exists() else "is not an empty folder"
            raise StudioError(what, where=folder, do="Give a new folder.")
        found = cls._find(base, revision, variant, config)
        folder.mkdir(parents=True, exist_ok=True)
        record = Ledger(found)
        record.write(folder)
        return cls(folder, record)

    @classmethod
    def _find(cls, base: str, revision: str | None, variant: str | None, config: Path | None) -> bases.Base:
        return bases.find(base, revision=revision, variant=variant, config=config)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The studio in `folder`. Raises StudioError where there is none of its kind, LedgerError if it is damaged."""
        if not (folder / ledger.FILE).is_file():
            raise StudioError("is not a studio", where=folder, do=f"Make one with: {cls.made_by} {folder}")
        record = ledger.read(folder)
        if record.base.network != cls.network:
            of, verbs = KINDS[record.base.network]
            raise OtherKindError(f"is a studio of a {of}", where=folder, do=f"Take the commands {verbs}.")
        for inner in FOLDERS:
            if (folder / inner).is_symlink():  # a studio that was made elsewhere could lead out of its folder
                do = "Put the folder itself in the link's place: a studio keeps what it writes."
                raise StudioError("is a link", where=folder / inner, do=do)
        return cls(folder, record)

    @property
    def base(self) -> dict[str, Any]:
        return self._record.base.record()

    @property
    def record(self) -> Ledger:
        """Everything that happened."""
        return self._record

    @property
    def entries(self) -> list[Entry]:
        """The concepts of the current version, in the order in which they are folded."""
        return list(self._record.entries)

    @property
    def version(self) -> int:
        """The number of things that happened: without undoing anything, the number of concepts."""
        return self._record.version

    def entries_at(self, version: int) -> list[Entry]:
        """What is still known of a version's concepts. Raises StudioError for a version that never was."""
        return list(self._record.entries_at(version))

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

    def backbone(self) -> TextToImage:
        """The model of the newest version, built from the base and the ledger to the bit; kept while it is current.

        Raises BaseModelError, BaseChangedError, and LedgerError for a concept's file that is not what was written.
        """
        if self._backbone is None:
            self._backbone = self.rebuilt(self.version)
        return self._backbone

    def store(self, storage: Storage) -> None:
        """From now on, models hold the weights that no concept changes in `storage`: less memory, not to the bit."""
        if storage != self._storage:
            self._storage, self._backbone = storage, None

    def rebuilt(self, version: int) -> TextToImage:
        """The model of a version (0 is the base), built anew.

        Raises StudioError for a version that never was or that held what was forgotten, and what `backbone` raises.
        """
        history.check_whole(self, version)
        return self.built(self._record.entries_at(version))

    def built(self, entries: Sequence[Entry]) -> TextToImage:
        """The base with the recorded changes of some concepts, where and as it computes."""
        return self.placed(self.folded(entries))

    def folded(self, entries: Sequence[Entry]) -> TextToImage:
        """The base with the recorded changes of some concepts, folded in their order, on the CPU in float32."""
        backbone = self.bare()
        for entry in entries:
            self.fold_recorded(backbone, entry)
        return backbone

    def placed(self, backbone: TextToImage) -> TextToImage:
        """A model brought to the device, stored as `store` said."""
        return backbone.store(self._storage).to(torch.device(PartialState().device or "cpu"))

    def bare(self) -> TextToImage:
        """The base, on the CPU."""
        base = self._record.base
        return families.load(base.folder(), variant=base.variant, where=base.source)

    def fold_recorded(self, backbone: TextToImage, entry: Entry) -> dict[str, Site]:
        """Give `backbone` a concept's word and fold its recorded change in; the answer is the sites that changed."""
        recorded = self.read_checked(entry, "change.safetensors")
        try:
            return backbone.restore(entry.word, recorded)
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            # Its hash is right, so it was written like this: for another base, or to do harm.
            path = self.concept_folder(entry) / "change.safetensors"
            do = "Get the studio again from where it came."
            raise LedgerError(f"does not fit the base: {error}", where=path, do=do) from error

    def check_file(self, entry: Entry, file: str) -> Path:
        """Where a concept's file is. Raises LedgerError when it is gone or is not what was written."""
        path = self.concept_folder(entry) / file
        do = "Restore the file from a backup of the studio."
        if not path.is_file():
            raise LedgerError(f"is gone; concept {entry.name!r} needs it", where=path, do=do)
        if files.sha256(path) != entry.files.get(file):
            raise LedgerError("is damaged: its hash is not the one in the ledger", where=path, do=do)
        return path

    def read_checked(self, entry: Entry, file: str) -> dict[str, Tensor]:
        """A concept's tensors. Raises LedgerError when the file is gone or is not what was written."""
        path = self.check_file(entry, file)
        try:
            return files.read_tensors(path, floats=True)
        except ValueError as error:
            do = "Get the studio again from where it came."
            raise LedgerError(f"cannot be read: {error}", where=path, do=do) from error

    def memory(self) -> Memory:
        """What the method kept of the concepts so far."""
        return memories.checked(self)

    def memory_of(self, entry: Entry) -> dict[str, Tensor]:
        """What the methods had kept when a concept was learned, of it and of those before it."""
        return {} if entry.memory is None else self.read_checked(entry, entry.memory)

    # -- history: see history.py and forgetting.py -----------------------------------------------------------------

    @property
    def branch(self) -> str:
        """The branch that is learned on."""
        return self._record.branch

    @property
    def branches(self) -> dict[str, int]:
        """For each branch its newest version."""
        return self._record.branches

    def rollback(self, to: str | int) -> int:
        """Make the model what it was at a version, or right after the concept of a name was learned, to the bit.

        What is dropped keeps its files, so that one can roll forward again; the answer is the new version. Raises
        StudioError, UnknownWordError, LedgerError, StudioLockedError; the studio is then as it was.
        """
        return history.rollback(self, to)

    def forget(
        self, name: str, *, reason: str | None = None, watch: Callable[[str], None] = lambda doing: None
    ) -> Forgotten:
        """Remove every concept of a name from all branches and from the disk; it cannot be undone.

        Raises UnknownWordError, StudioError, LedgerError, StudioLockedError; the studio is then as it was.
        """
        return forgetting.forget(self, name, reason=reason, watch=watch)

    def rename(self, name: str, shown: str) -> int:
        """Show a concept of the current version under another name; its word in prompts stays."""
        return history.rename(self, name, shown)

    def create_branch(self, name: str, at: int | None = None, *, switch: bool = False) -> int:
        """A branch that begins at a version, the current one if none is given; with `switch` it is gone on with.

        Raises NameTakenError, StudioError.
        """
        return history.create_branch(self, name, at, switch=switch)

    def switch(self, name: str) -> int:
        """Go on with another branch. Raises StudioError where there is none of that name."""
        return history.switch(self, name)

    def delete_branch(self, name: str) -> int:
        """Take a branch's name away; its versions can still be rolled back to."""
        return history.delete_branch(self, name)

    def commit(self, record: Ledger, backbone: TextToImage | None = None) -> None:
        """Replace the ledger, and with it the studio's version; `backbone` is the new version's model if it is there.

        Only for whoever holds the lock (`writing`).
        """
        record.write(self.folder)
        if backbone is not None or record.model != self._record.model:
            self._backbone = backbone
        self._record = record

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
        with locks.held(self.folder):
            self.clean()
            yield

    def clean(self) -> None:
        """Take the ledger as it is on the disk, and remove what an interrupted commit left beside it."""
        now = ledger.read(self.folder)
        if now.head != self._record.head:
            self._record, self._backbone = now, None
        traces.sweep(self)

    def learn(
        self,
        photos: Sequence[Photo],
        name: str,
        *,
        method: Method,
        plan: Plan,
        class_word: str | None = None,
        consent: str | None = None,
        licence: str | None = None,
        watch: Callable[[Step], None] = lambda step: None,
        peek: Callable[[int, TextToImage], None] = lambda step, backbone: None,
        peek_at: Collection[int] = (),
        accept: Callable[[Entry, TextToImage], None] = lambda entry, backbone: None,
        keep_branch: str | None = None,
    ) -> tuple[Entry, TextToImage]:
        """Learn a concept, fold it in and commit it; the answer is its ledger entry and the model that knows it.

        `consent` and `licence` are the person's own words on the photos; they stay with the concept. After each step of
        `peek_at`, `peek` may draw with the model as it would be if learning ended there. `accept` sees the entry, its
        files not yet written, and the model that knows the concept, just before the commit; it raises RefusedError to
        keep the concept out, or on a new branch `keep_branch`. Interrupted, the same call goes on from the last
        checkpoint. Raises NameTakenError, StudioLockedError, TrainingError, RefusedError and what `backbone`
        raises; the studio is then as it was.
        """
        look = Look(peek, peek_at)
        processes = PartialState()
        terms = {"consent": consent, "licence": licence}
        checkpoint = self.unfinished(name) / "checkpoint.safetensors"
        if not processes.is_main_process:
            # The first process decides what is resumed, writes and commits; the others only compute with it.
            processes.wait_for_everyone()
            return self._taught(photos, name, method, plan, class_word, terms, checkpoint, watch, look, commit=False)
        with self.writing():
            self.check_name(name)
            if keep_branch is not None:
                history.check_new_branch(self._record, keep_branch)
            try:
                recording.prepare(self.unfinished(name), self._record, photos, method, plan, class_word)
                processes.wait_for_everyone()
                return self._taught(
                    photos, name, method, plan, class_word, terms, checkpoint, watch, look, accept, keep_branch
                )
            except BaseException as error:
                # What a later call can go on from stays; the state of a failed training leads nowhere.
                if not checkpoint.exists() or isinstance(error, TrainingError | RefusedError | torch.OutOfMemoryError):
                    shutil.rmtree(checkpoint.parent, ignore_errors=True)
                    with contextlib.suppress(OSError):  # another concept's may be there
                        checkpoint.parent.parent.rmdir()
                raise

    def _concept(
        self, backbone: TextToImage, photos: Sequence[Photo], name: str, plan: Plan, class_word: str | None
    ) -> Concept:
        """What is taught by these photos."""
        resolution = plan.resolution or backbone.resolution
        pictures = tuple(photo.load(resolution) for photo in photos)
        return Concept(name, pictures, tuple(photo.caption for photo in photos), class_word)

    def _beside(self, backbone: TextToImage, concept: Concept) -> Mapping[str, Mapping[str, Tensor]]:
        """What is kept of a concept that was just learned beside its change and the memory, by the file's name."""
        return {}

    def _taught(
        self,
        photos: Sequence[Photo],
        name: str,
        method: Method,
        plan: Plan,
        class_word: str | None,
        terms: Mapping[str, str | None],
        checkpoint: Path,
        watch: Callable[[Step], None],
        look: Look,
        accept: Callable[[Entry, TextToImage], None] = lambda entry, backbone: None,
        keep_branch: str | None = None,
        commit: bool = True,
    ) -> tuple[Entry, TextToImage]:
        self.store(plan.storage)
        backbone, memory = self.backbone(), self.memory()
        # Until the commit the model in memory is no version of the studio: a failure must not leave it as one.
        self._backbone = None
        concept = self._concept(backbone, photos, name, plan, class_word)
        with recording.room_on_disk(self.folder):
            learned = learn(
                backbone,
                method,
                concept,
                memory,
                plan,
                checkpoint=checkpoint,
                watch=watch,
                peek=lambda step: look.peek(step, backbone),
                peek_at=look.at,
            )
            weights = fingerprint(backbone.sites_of_word(concept.word), learned.changes)
            entry = recording.entry_of(self.version + 1, photos, concept, method, plan, learned, terms, weights)
            if not commit:
                record = self._record.learned(entry)
            else:
                more = self._beside(backbone, concept)
                try:
                    accept(entry, backbone)
                except RefusedError:
                    if keep_branch is not None:
                        self._record = recording.commit(self, entry, learned, more, onto=keep_branch)
                    raise
                record = recording.commit(self, entry, learned, more)
        self._record, self._backbone = record, backbone
        return record.entries[-1], backbone
