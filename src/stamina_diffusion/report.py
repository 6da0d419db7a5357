"""After a concept has been learned: draw every concept again, show it, and say how well each is kept.

Samples come from fixed seeds and one prompt, and an earlier concept is drawn again just as it was drawn when it had
been learned, so that two numbers for it differ by what was learned in between and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from . import features, files, kept, sheets
from .features import Encoder, Remembered
from .kept import Row
from .settings import Draw, Report

if TYPE_CHECKING:
    from .backbones.diffusion.stable_diffusion import StableDiffusion
    from .studio import Entry, Studio

SAMPLES = "samples"
PROMPT = "a photo of {}"


@dataclass(frozen=True)
class Written:
    """What a report left in the studio."""

    rows: list[Row]
    sheet: Path


def after_learning(
    studio: Studio,
    backbone: StableDiffusion,
    *,
    draw: Draw,
    report: Report,
    watch: Callable[[int, int], None] = lambda done, concepts: None,
) -> Written:
    """Draw all concepts of the studio's newest version, write the sheet and `kept.json`, and return the rows.

    The features of the newest concept are written into its folder, to compare with from now on.
    """
    encoder, reason = features.encoder_for(studio.base)
    newest = studio.entries[-1]
    rows: list[Row] = []
    blocks: list[sheets.Block] = []
    for place, entry in enumerate(studio.entries):
        watch(place, len(studio.entries))
        photos = source_photos(entry, backbone.resolution)
        then = features.recall(studio.concept_folder(entry), encoder) if encoder else None
        made = {"prompt": PROMPT, "steps": report.steps, "guidance": draw.guidance, "samples": report.samples}
        made |= then.made if then else {}
        pictures = _draw(backbone, entry, made)
        if entry is newest:
            _keep_samples(studio, entry, pictures)
        row = _row(studio, entry, encoder, reason, then, made, pictures, photos, new=entry is newest)
        rows.append(row)
        blocks.append(sheets.Block(entry.word, row.words, photos, pictures, new=entry is newest))
    watch(len(rows), len(rows))
    # The newest first: it is what the person waits to see.
    header = f"{newest.word} learned with {newest.method}"
    count = f"{len(rows)} concept{'s' * (len(rows) > 1)}"
    detail = f"{studio.folder.name}, version {studio.version}: {count}; {newest.steps} steps"
    sheet = sheets.concept_sheet(header, detail, blocks[::-1], resolution=backbone.resolution)
    path = _samples(studio) / f"{studio.version}-{newest.name}.png"
    files.write_bytes(path, sheets.png(sheet))
    kept.write(studio.folder, studio.version, rows, f"{SAMPLES}/{path.name}")
    return Written(rows, path)


def source_photos(entry: Entry, resolution: int) -> list[Image.Image | None]:
    """A concept's photos as they were learned; None for each that is no longer there."""
    return [sheets.source_photo(Path(photo["path"]), photo["sha256"], resolution) for photo in entry.photos]


def learned_samples(studio: Studio, entry: Entry) -> list[Image.Image]:
    """What the model drew of a concept when it had just learned it; nothing when no report was made."""
    try:
        with Image.open(studio.folder / SAMPLES / f"{entry.name}.png") as strip:
            # Learned again after a rollback, another concept may have the same name.
            if strip.info.get("stamina", entry.hash) != entry.hash:
                return []
            width = strip.height
            return [strip.crop((left, 0, left + width, width)) for left in range(0, strip.width, width)]
    except OSError:
        return []


def _row(
    studio: Studio,
    entry: Entry,
    encoder: Encoder | None,
    reason: str,
    then: Remembered | None,
    made: Mapping[str, Any],
    pictures: Sequence[Image.Image],
    photos: Sequence[Image.Image | None],
    *,
    new: bool,
) -> Row:
    if encoder is None:
        return Row(entry.name, entry.word, None, None, reason)
    samples = encoder(pictures)
    if then is not None:
        return Row(
            entry.name, entry.word, features.kept(samples, then.samples), features.likeness(samples, then.photos)
        )
    seen = [photo for photo in photos if photo is not None]
    like = features.likeness(samples, encoder(seen)) if seen else None
    if new and seen:
        features.remember(studio.concept_folder(entry), encoder, Remembered(encoder(seen), samples, made))
        return Row(entry.name, entry.word, features.kept(samples, samples), like)
    missing = "its photos are no longer there" if new else "no samples from when it was learned"
    return Row(entry.name, entry.word, None, like, f"not measured: {missing}")


def _draw(backbone: StableDiffusion, entry: Entry, made: Mapping[str, Any]) -> list[Image.Image]:
    prompts = [made["prompt"].format(entry.word)] * made["samples"]
    return backbone.draw(prompts, list(range(len(prompts))), steps=made["steps"], guidance=made["guidance"])


def _samples(studio: Studio) -> Path:
    folder = studio.folder / SAMPLES
    folder.mkdir(exist_ok=True)
    return folder


def _keep_samples(studio: Studio, entry: Entry, pictures: Sequence[Image.Image]) -> None:
    strip = sheets.grid(pictures, len(pictures), gap=0)
    files.write_bytes(_samples(studio) / f"{entry.name}.png", sheets.png(strip, stamina=entry.hash))
