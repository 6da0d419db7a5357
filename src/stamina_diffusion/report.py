"""After a concept has been learned: draw every concept again, show it, and measure what is still known.

Samples come from fixed seeds and one prompt, and an earlier concept is drawn again just as it was drawn when it had
been learned, so that two numbers for it differ by what was learned in between and by nothing else. Only the newest
version is measured after a learning; `backlog` measures the older ones that were not, each from its own model.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from . import capacity, columns, features, files, kept, measure, sheets
from .columns import Cell, Column
from .features import Encoder, Remembered
from .kept import Row
from .settings import Draw, Report

if TYPE_CHECKING:
    from .backbones.diffusion.text_to_image import TextToImage
    from .studio import Entry, Studio

SAMPLES = "samples"
PROMPT = "a photo of {}"
GENERIC = "_generic"
"""The strip of what a version draws without any learned word; no concept can have such a name."""

Watch = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


@dataclass(frozen=True)
class Written:
    """What a report left in the studio."""

    rows: list[Row]
    sheet: Path
    pictures: dict[str, list[Image.Image]]
    """What the newest version draws of each concept, by its name."""


@dataclass(frozen=True)
class Look:
    """One concept as one version draws it, beside its photos."""

    entry: Entry
    photos: list[Image.Image | None]
    pictures: list[Image.Image]
    row: Row
    loss_photos: float | None
    loss_samples: float | None
    samples: Tensor | None
    """Unit features of the pictures, (pictures, width), where there is an encoder."""
    liked: Tensor | None
    """Unit features of the photos, (photos, width), where there is an encoder and they are known."""


def after_learning(
    studio: Studio,
    backbone: TextToImage,
    *,
    draw: Draw,
    report: Report,
    drawn: Mapping[str, list[Image.Image]] | None = None,
    watch: Watch = lambda done, of: None,
) -> Written:
    """Draw all concepts of the studio's newest version, write the sheet, `kept.json` and the column; return the rows.

    The features of the newest concept are written into its folder, to compare with from now on. `drawn` are pictures of
    concepts that this model has drawn already in the report's way.
    """
    newest = studio.entries[-1]
    looks = look_at_version(studio, len(studio.entries), backbone, draw, report, watch, drawn or {})
    rows = [look.row for look in looks]
    blocks = [
        sheets.Block(look.entry.word, look.row.words, look.photos, look.pictures, new=look.entry is newest)
        for look in looks
    ]
    # The newest first: it is what the person waits to see.
    header = f"{newest.word} learned with {newest.method}"
    count = f"{len(rows)} concept{'s' * (len(rows) > 1)}"
    detail = f"{studio.folder.name}, version {studio.version}: {count}; {newest.steps} steps"
    sheet = sheets.concept_sheet(header, detail, blocks[::-1], resolution=backbone.resolution)
    path = _samples(studio) / f"{studio.version}-{newest.name}.png"
    files.write_bytes(path, sheets.png(sheet))
    kept.write(studio.folder, studio.version, rows, f"{SAMPLES}/{path.name}")
    return Written(rows, path, {look.entry.name: look.pictures for look in looks})


def model_hash(studio: Studio, place: int) -> str:
    """What the column of the base with the studio's first `place` concepts is named after."""
    return columns.head_of(studio.base["hash"], studio.entries[:place])


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


def draw_concept(
    studio: Studio, backbone: TextToImage, entry: Entry, encoder: Encoder | None, draw: Draw, report: Report
) -> list[Image.Image]:
    """A concept's samples, drawn just as they were when it had been learned."""
    then = features.recall(studio.concept_folder(entry), encoder) if encoder else None
    made = {"prompt": PROMPT, "steps": report.steps, "guidance": draw.guidance, "samples": report.samples}
    made |= then.made if then else {}
    return _draw(backbone, entry, made)


def look_at_version(
    studio: Studio,
    place: int,
    backbone: TextToImage,
    draw: Draw,
    report: Report,
    watch: Watch,
    drawn: Mapping[str, Sequence[Image.Image]] | None = None,
    samples: Report | None = None,
    sketch: bool = False,
) -> list[Look]:
    """Look at the first `place` concepts as the model that knows just them draws them, and write its column.

    `samples` says how first samples are drawn if not as `report` says. A sketch looks at the newest concept alone, by
    one loss, and not at the base's drift.
    """
    began = time.monotonic()
    encoder, reason = features.encoder_for(studio.base)
    entries, samples = studio.entries[:place], samples or report
    seen = entries[-1:] if sketch else entries
    looks: list[Look] = []
    for done, entry in enumerate(seen):
        watch(done, len(seen) + 1)
        ready = (drawn or {}).get(entry.name)
        pictures = list(ready) if ready else draw_concept(studio, backbone, entry, encoder, draw, samples)
        new = entry is entries[-1]
        looks.append(_look(studio, backbone, entry, encoder, reason, pictures, draw, samples, new=new, sketch=sketch))
    watch(len(seen), len(seen) + 1)
    strips = {look.entry.name: look.pictures for look in looks}
    drift: dict[str, float] = {}
    if not sketch:
        prompts = measure.generic_prompts(studio)
        reference = measure.base_reference(studio, backbone, prompts, draw, report)
        strips[GENERIC] = backbone.draw(prompts, [0] * len(prompts), steps=report.steps, guidance=draw.guidance)
        drift = measure.drift(backbone, reference)
    column = Column(
        version=entries[-1].version,
        head=model_hash(studio, place),
        encoder=encoder.name if encoder else None,
        missing=reason,
        cells={look.entry.name: _cell(look, looks) for look in looks},
        drift=drift,
        capacity=asdict(_meter(studio, entries, backbone)),
        seconds=round(time.monotonic() - began, 2),
    )
    columns.write(studio.folder, column, {name: _strip(pictures) for name, pictures in strips.items()})
    watch(len(seen) + 1, len(seen) + 1)
    return looks


def _look(
    studio: Studio,
    backbone: TextToImage,
    entry: Entry,
    encoder: Encoder | None,
    reason: str,
    pictures: list[Image.Image],
    draw: Draw,
    report: Report,
    *,
    new: bool,
    sketch: bool,
) -> Look:
    photos = source_photos(entry, backbone.resolution)
    if new and not learned_samples(studio, entry):
        _keep_samples(studio, entry, pictures)
    on_photos, on_samples = losses(studio, backbone, entry, one=sketch)
    seen = [photo for photo in photos if photo is not None]
    if encoder is None:
        row = Row(entry.name, entry.word, None, None, reason)
        return Look(entry, photos, pictures, row, on_photos, on_samples, None, None)
    samples = encoder(pictures)
    then = features.recall(studio.concept_folder(entry), encoder)
    liked = then.photos if then else encoder(seen) if seen else None
    if new and then is None and liked is not None:
        made = {"prompt": PROMPT, "steps": report.steps, "guidance": draw.guidance, "samples": report.samples}
        then = Remembered(liked, samples, made)
        features.remember(studio.concept_folder(entry), encoder, then)
    like = features.likeness(samples, liked) if liked is not None else None
    if then is not None:
        row = Row(entry.name, entry.word, features.kept(samples, then.samples), like)
    else:
        gone = "it was adopted without photos" if entry.method == "adopted" else "its photos are no longer there"
        lacks = gone if new else "no samples from when it was learned"
        row = Row(entry.name, entry.word, None, like, f"not measured: {lacks}")
    return Look(entry, photos, pictures, row, on_photos, on_samples, samples, liked)


def losses(
    studio: Studio, backbone: TextToImage, entry: Entry, *, one: bool = False
) -> tuple[float | None, float | None]:
    """The held-out loss on a concept's photos, and on its first samples; None where those pictures are gone.

    `one` is enough: that on the samples only where there is none on the photos.
    """
    photos = source_photos(entry, backbone.resolution)
    # Of some of its photos it would be another number: they are used all or not at all.
    whole = [photo for photo in photos if photo is not None]
    samples = learned_samples(studio, entry)
    prompt = PROMPT.format(entry.word)
    on_photos = measure.held_out_loss(backbone, prompt, whole) if whole and len(whole) == len(photos) else None
    if one and on_photos is not None:
        return on_photos, None
    return on_photos, measure.held_out_loss(backbone, prompt, samples) if samples else None


def _cell(look: Look, looks: Sequence[Look]) -> Cell:
    bleed = {
        other.entry.name: features.likeness(look.samples, other.liked)
        for other in looks
        if look.samples is not None and other.liked is not None
    }
    return Cell(look.row.kept, look.row.photos, look.loss_photos, look.loss_samples, bleed, look.row.note)


def _meter(studio: Studio, entries: Sequence[Entry], backbone: TextToImage) -> capacity.Meter:
    """The newest concept's changes against the earlier ones', read one after another."""

    def changes(entry: Entry) -> dict[str, Tensor]:
        return studio.read_checked(entry, "change.safetensors")

    weights = {name: site.value.cpu() for name, site in backbone.weight_sites("network").items()}
    return capacity.meter(changes(entries[-1]), ((entry.name, changes(entry)) for entry in entries[:-1]), weights)


def _draw(backbone: TextToImage, entry: Entry, made: Mapping[str, Any]) -> list[Image.Image]:
    prompts = [made["prompt"].format(entry.word)] * made["samples"]
    return backbone.draw(prompts, list(range(len(prompts))), steps=made["steps"], guidance=made["guidance"])


def _strip(pictures: Sequence[Image.Image]) -> bytes:
    """Small pictures one above the other, as a JPEG."""
    buffer = io.BytesIO()
    sheets.grid([measure.small(picture) for picture in pictures], 1, gap=0).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _samples(studio: Studio) -> Path:
    folder = studio.folder / SAMPLES
    folder.mkdir(exist_ok=True)
    return folder


def _keep_samples(studio: Studio, entry: Entry, pictures: Sequence[Image.Image]) -> None:
    strip = sheets.grid(pictures, len(pictures), gap=0)
    files.write_bytes(_samples(studio) / f"{entry.name}.png", sheets.png(strip, stamina=entry.hash))
