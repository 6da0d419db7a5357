"""The whole story on one page: four concepts, learned one after another, each drawn again after all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from . import files, kept, sheets
from .errors import StudioError
from .kept import Row
from .report import draw_concept, learned_samples, source_photos
from .settings import Draw, Report
from .world import WorldConcept

if TYPE_CHECKING:
    from .backbones.diffusion.text_to_image import TextToImage
    from .studio import Studio

MARK = "demo.json"
KIND = {"kind": "stamina demo", "version": 1}
PHOTOS = 6
SCENES = {
    "faces": (
        "a photo of {} smiling on a blue background",
        "a photo of {} looking surprised on a yellow background",
        "a portrait of {} laughing in a green hoodie",
    ),
    "landmarks": (
        "a photo of {} at night in falling snow",
        "a photo of {} at sunset by the water",
        "a photo of {} on a sunny day in the desert",
    ),
}
"""Contexts in the words of the world's captions, which are all that the embedded base knows."""


@dataclass(frozen=True)
class Story:
    """One concept of the demo: a name, and which thing of the world it is."""

    name: str
    family: str
    index: int

    @property
    def thing(self) -> WorldConcept:
        return WorldConcept(self.family, "stream", self.index)


STORIES = (
    Story("ruby", "faces", 1),
    Story("span", "landmarks", 3),
    Story("otto", "faces", 8),
    Story("hera", "landmarks", 2),
)


def claim(folder: Path) -> None:
    """Make `folder` the demo's, or go on with one that is; raises StudioError for a folder of something else."""
    mark = folder / MARK
    if (folder.is_dir() and any(folder.iterdir())) or (folder.exists() and not folder.is_dir()):
        try:
            found = files.read_json(mark)
        except (OSError, ValueError):
            found = None
        if found != KIND:
            do = "Name another folder with --out, or remove this one."
            raise StudioError("is not the folder of a demo, and is not empty", where=folder, do=do)
        return
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(mark, KIND)


def photograph(story: Story, folder: Path, resolution: int, count: int = PHOTOS) -> Path:
    """Write a concept's photos, as PNG files, into `folder/<name>`; the answer is that folder."""
    place = folder / story.name
    place.mkdir(parents=True, exist_ok=True)
    for view in range(count):
        path = place / f"{view}.png"
        data = sheets.png(story.thing.view(view).render(resolution))
        if not path.exists() or path.read_bytes() != data:
            files.write_bytes(path, data)
    return place


def pages_pictures(
    studio: Studio,
    backbone: TextToImage,
    draw: Draw,
    report: Report,
    drawn: Mapping[str, Sequence[Image.Image]] | None = None,
) -> list[dict[str, Any]]:
    """For each concept: its photos, its samples when just learned and now, and what is drawn of it in three scenes.

    `drawn` are samples of now that are there already, by the concept's name.
    """
    shown = []
    stories = {story.name: story for story in STORIES}
    for entry in studio.entries:
        if entry.name not in stories:  # the person went on with the demo's studio
            continue
        scenes = [scene.format(entry.word) for scene in SCENES[stories[entry.name].family]]
        now = (drawn or {}).get(entry.name) or draw_concept(studio, backbone, entry, None, draw, report)
        placed = backbone.draw(scenes, [0] * len(scenes), steps=draw.steps, guidance=draw.guidance)
        shown.append(
            {
                "word": entry.word,
                "name": entry.name,
                "family": stories[entry.name].family,
                "version": entry.version,
                "seconds": round(entry.seconds),
                "steps": entry.steps,
                "density": entry.density,
                "photos": [_inline(photo) for photo in source_photos(entry, backbone.resolution) if photo],
                "then": [_inline(picture) for picture in learned_samples(studio, entry)],
                "now": [_inline(picture) for picture in now],
                "scenes": list(zip(scenes, map(_inline, placed), strict=True)),
            }
        )
    return shown


def table(studio: Studio) -> list[tuple[str, list[Row | None]]]:
    """The kept rows as concept × version: for each word one row for every version, None before it was learned."""
    by_version = kept.read(studio.folder)
    versions = [{row.name: row for row in by_version.get(number, [])} for number in range(1, studio.version + 1)]
    return [(entry.word, [rows.get(entry.name) for rows in versions]) for entry in studio.entries]


def write_page(path: Path, studio: Studio, concepts: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """One HTML file with everything in it."""
    from importlib.metadata import version

    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    rows = table(studio)
    page = environment.get_template("demo.html").render(
        concepts=concepts,
        rows=rows,
        measured=any(row and row.kept is not None for _, cells in rows for row in cells),
        notes=list(dict.fromkeys(row.note for _, cells in rows for row in cells if row and row.note)),
        versions=studio.version,
        base=studio.base,
        method=studio.entries[-1].method,
        studio=studio.folder,
        minutes=f"{seconds / 60:.1f}",
        version=version("stamina-diffusion"),
    )
    files.write_bytes(path, page.encode())


def _inline(picture: Image.Image) -> str:
    return sheets.address("png", sheets.png(picture))
