"""A LoRA of someone else's as a concept of the stack: folded in exactly, recorded, remembered by the method to come.

There is nothing to learn: the change is in the file. Its new word begins, and ends, as the words that the file was
trained to be called by, so that the word alone calls it too.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from . import loras, recording
from .concepts import Concept
from .deltas import Free
from .errors import LoraError, SettingsError
from .events import Entry
from .fingerprints import fingerprint
from .learn import Learned
from .loras import Adopted
from .method import Change, Method
from .methods import build
from .sites import fold, start_key

if TYPE_CHECKING:
    from .backbones.diffusion.text_to_image import TextToImage
    from .studio import Studio

NAME = "adopted"


class Taken(NamedTuple):
    """What an adoption left."""

    entry: Entry
    backbone: TextToImage
    file: Adopted
    words: str
    """The words that the new word began as."""


def adopt(
    studio: Studio,
    file: Path,
    name: str,
    *,
    method: Method,
    class_word: str | None = None,
    terms: Mapping[str, str | None] | None = None,
) -> Taken:
    """Fold W + alpha/r · B A of a LoRA file into the model and commit it as a concept.

    `class_word` are the words that call what is in the file, such as "sks dog"; the file's own trigger words if it
    names them. `method` is the one that later concepts are learned by: it remembers this change as if it had made it.
    Raises LoraError, NameTakenError, StudioLockedError, SettingsError for a method that remembers more than changes,
    and what `Studio.backbone` raises; the studio is then as it was.
    """
    began = time.monotonic()
    with studio.writing(), recording.room_on_disk(studio.folder):
        word = studio.check_name(name)
        # A model of its own, not the one in memory: what fails half-way must not leave that as no version of anything.
        backbone, memory = studio.folded(studio.entries), studio.memory()
        sites = backbone.weight_sites("network")
        found = loras.read(file, backbone)
        words = class_word or found.trigger
        if not words:
            raise LoraError(
                "does not say by which words it is called",
                where=file,
                do='Say it with --class, such as --class "sks dog".',
            )
        concept = Concept(name, (Image.new("RGB", (8, 8)),), class_word=words)
        backbone.grow(concept, build("textual-inversion", {"word_start": "class"}), 0)
        rows = backbone.word_sites(word)
        start = {start_key(name): site.value.detach().cpu().clone() for name, site in rows.items()}
        kept = {site: Change(sites[site], Free(sites[site].shape), change) for site, change in found.changes.items()}
        try:
            remembered = method.remember(kept, memory)
        except SettingsError as error:
            what = f"{method.name} remembers more of a concept than its change"
            do = "Adopt it with --method stamina; the concepts after it may be learned by any method."
            raise SettingsError(what, where=file, do=do) from error
        fold(sites, found.changes)
        learned = Learned(found.changes, start, remembered, (), time.monotonic() - began)
        entry = _entry(studio, concept, method, found, learned, terms or {})
        entry = replace(entry, weights=fingerprint(backbone.sites_of_word(word), found.changes))
        studio.commit(recording.commit(studio, entry, learned, {}), backbone)
        return Taken(studio.entries[-1], studio.placed(backbone), found, words)


def method_of(entry: Entry) -> Method:
    """The method that remembers a concept: its own, or for an adopted one that of those learned after it."""
    if entry.method != NAME:
        return build(entry.method, entry.settings)
    return build(entry.settings["remembered_by"], entry.settings["remembered_with"])


def _entry(
    studio: Studio,
    concept: Concept,
    method: Method,
    found: Adopted,
    learned: Learned,
    terms: Mapping[str, str | None],
) -> Entry:
    return Entry(
        name=concept.name,
        word=concept.word,
        class_word=concept.class_word,
        method=NAME,
        settings={
            "rank": max(found.ranks.values()),
            "layers": len(found.changes),
            "remembered_by": method.name,
            "remembered_with": method.settings(),
        },
        plan={},
        steps=0,
        seed=0,
        photos=[{"file": found.path.name, "path": str(found.path), "sha256": found.sha256}],
        density=learned.density,
        final_loss=float("nan"),
        files={},
        version=studio.version + 1,
        hash="",
        seconds=round(learned.seconds, 2),
        learned=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={package: metadata.version(package) for package in recording.PACKAGES},
        consent=terms.get("consent"),
        licence=terms.get("licence"),
    )
