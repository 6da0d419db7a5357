"""Forget one concept: fold the others without it, compute anew what was remembered of it, and delete every trace.

The model without it is the base plus the other recorded changes, in order. For a concept that was learned after it this
is an approximation, since that one was trained on top of it. The ledger's replacement is the commit; the files go after
it, by a list that was written before it, so that an interrupted removal is finished by the next one who writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import features, files, kept, memories, traces
from .concepts import check_words
from .errors import LedgerError, StudioError, UnknownWordError
from .features import Encoder
from .history import find
from .ledger import Entry, Ledger, name_hash

if TYPE_CHECKING:
    from .backbones.diffusion.text_to_image import TextToImage
    from .studio import Studio

APPROXIMATE = (
    "Concepts that were learned after it were trained on top of it; without it they are what their own recorded "
    "changes make of the rest, which is an approximation of having never learned it."
)


@dataclass(frozen=True)
class Effect:
    """What forgetting did to another concept of the current branch."""

    name: str
    word: str
    on_top: bool
    """Whether it was trained on top of the forgotten one."""
    before: float | None
    """Similarity of its samples to those of when it had just been learned, before; None where it was not measured."""
    after: float | None


@dataclass(frozen=True)
class Forgotten:
    """What was forgotten, what was checked, and what it did to the others."""

    name: str
    word: str
    version: int
    """The studio's version now."""
    concepts: tuple[int, ...]
    """The versions that had learned it."""
    answer: str
    """What a prompt with its word is answered now: a refusal, since the word is unknown as it is to the base."""
    effects: tuple[Effect, ...]
    note: str
    """Why the effects were not measured; empty when they were."""
    unreachable: tuple[str, ...]
    """Concepts of no branch that only versions with the forgotten one held; their files went with it."""
    deleted: tuple[str, ...]
    """What was deleted, relative to the studio's folder."""

    @property
    def approximate(self) -> str:
        """A sentence for whoever relies on the later concepts; empty where there are none."""
        return APPROXIMATE if any(effect.on_top for effect in self.effects) else ""


def forget(
    studio: Studio, name: str, *, reason: str | None = None, watch: Callable[[str], None] = lambda doing: None
) -> Forgotten:
    """See `Studio.forget`."""
    with studio.writing():
        before = studio.record
        known = before.learned_at
        newest = find(before, name, known.values())
        # Every concept of the name, also what was rolled back: who asks to be forgotten means all of it.
        gone = frozenset(version for version, entry in known.items() if entry.name.lower() == newest.name.lower())
        others = [entry for entry in before.entries if entry.version not in gone]
        measured = len(others) < len(before.entries)
        encoder, note = features.encoder_for(studio.base)
        if not measured:
            encoder, note = None, "the current branch did not hold it, so its model is as it was"

        scores: dict[str, kept.Row] = {}
        now: dict[str, kept.Row] = {}
        if encoder:
            watch("drawing the others as they are")
            scores = _scores(studio, studio.built(before.entries), others, encoder)
        watch("folding without it")
        # To be looked at it must compute; where it is not, it need not fit on the device.
        backbone = studio.built(others) if encoder else studio.folded(others)
        answer = _check_gone(studio, backbone, newest.word)
        if encoder:
            watch("drawing the others as they will be")
            now = _scores(studio, backbone, others, encoder)
        try:
            watch("computing anew what was remembered")
            renewed = memories.rewritten(studio, before, gone)
            what = {"of": sorted(gone), "name": name_hash(newest.name), "reason": reason, "files": renewed}
            after = _without(before, gone, what)
            doomed = traces.of(studio.folder, before, after, gone)
            mark = {
                "head": after.head,
                "name": newest.name,
                "versions": traces.versions(before, gone),
                "delete": doomed,
            }
            files.write_json(studio.folder / traces.MARK, mark)
            studio.commit(after, backbone if encoder else None)
        except BaseException:
            with contextlib.suppress(OSError, LedgerError):
                studio.clean()
            raise
        watch("deleting its files")
        traces.finish(studio)
        _keep(studio, now)
        effects = tuple(
            Effect(e.name, e.word, any(e.version > version for version in gone), _of(scores, e), _of(now, e))
            for e in others
        )
        lost = before.timeline.reachable - after.timeline.reachable - gone
        return Forgotten(
            name=newest.name,
            word=newest.word,
            version=studio.version,
            concepts=tuple(sorted(gone)),
            answer=answer,
            effects=effects,
            note=note,
            unreachable=tuple(known[version].name for version in sorted(lost)),
            deleted=tuple(doomed),
        )


def _without(before: Ledger, gone: frozenset[int], what: Mapping[str, Any]) -> Ledger:
    """The ledger after an event on every branch that held it, the current branch's last; its private parts are gone."""
    after, timeline = before, before.timeline
    for branch, version in timeline.branches.items():
        if branch != before.branch and gone & set(timeline.folds[version]):
            after = after.after("forget", what, branch=branch)
    return after.after("forget", what, branch=before.branch).blanked(gone)


def _check_gone(studio: Studio, backbone: TextToImage, word: str) -> str:
    """The refusal of a prompt with the word. Raises StudioError when the model still knows it."""
    tokenizer: Any = backbone.pipeline.tokenizer
    base: Any = type(tokenizer).from_pretrained(studio.record.base.folder() / "tokenizer")
    if tokenizer(word).input_ids == base(word).input_ids:
        try:
            check_words(f"a photo of {word}", backbone.words)
        except UnknownWordError as error:
            return error.what
    raise StudioError(f"the model folded without it still knows {word}; nothing was changed", where=studio.folder)


# -- what it did to the others -------------------------------------------------------------------------------------


def _scores(studio: Studio, backbone: TextToImage, entries: Iterable[Entry], encoder: Encoder) -> dict[str, kept.Row]:
    """How well each concept is kept by a model, for those whose looks are remembered."""
    rows: dict[str, kept.Row] = {}
    for entry in entries:
        then = features.recall(studio.concept_folder(entry), encoder)
        if then is None:
            continue
        prompts = [then.made["prompt"].format(entry.word)] * then.made["samples"]
        drawn = backbone.draw(
            prompts, list(range(len(prompts))), steps=then.made["steps"], guidance=then.made["guidance"]
        )
        now = encoder(drawn)
        rows[entry.name] = kept.Row(
            entry.name, entry.word, features.kept(now, then.samples), features.likeness(now, then.photos)
        )
    return rows


def _of(rows: Mapping[str, kept.Row], entry: Entry) -> float | None:
    return rows[entry.name].kept if entry.name in rows else None


def _keep(studio: Studio, rows: Mapping[str, kept.Row]) -> None:
    """Leave the scores for `stamina log`; without them nothing is lost."""
    if rows:
        with contextlib.suppress(OSError):
            kept.write(studio.folder, studio.version, list(rows.values()), "")
