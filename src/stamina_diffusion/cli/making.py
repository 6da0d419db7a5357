"""`stamina demo`, `stamina world` and `stamina pretrain`: what needs no photos of one's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import StaminaError
from . import console

if TYPE_CHECKING:
    from ..studio import Studio

Pool = Annotated[Literal["base", "prior", "tuning", "stream"], typer.Option(help="Which part of the world.")]


def demo(
    out: Annotated[Path, typer.Option(help="The folder of the demo; the same one again goes on.")] = Path("out/demo"),
    base: Annotated[str, typer.Option(hidden=True)] = "embedded",
    preset: Annotated[str, typer.Option(hidden=True)] = "embedded",
) -> None:
    """The whole story on the embedded base: four concepts, one after another, and a page that shows them."""
    began = time.monotonic()
    from .. import demo as story

    story.claim(out)
    console.warn("loading the model")
    console.quiet()
    from ..photos import collect
    from ..settings import resolve
    from ..studio import Studio
    from .lesson import teach, tell_report

    folder = out / "studio"
    studio = Studio.open(folder) if folder.exists() else Studio.create(folder, base)
    resolved = resolve(preset)
    known = [entry.name for entry in studio.entries]
    backbone, drawn = studio.backbone(), {}
    for place, concept in enumerate(story.STORIES):
        photos = story.photograph(concept, out / "photos", backbone.resolution)
        title = f"{place + 1} of {len(story.STORIES)}: <{concept.name}>"
        if concept.name in known:
            console.say(f"{title} is learned already")
            continue
        console.say(title)
        found = collect(photos, resolution=backbone.resolution)
        class_word = concept.thing.class_word
        _, backbone = teach(studio, found, concept.name, class_word=class_word, resolved=resolved)
        drawn = tell_report(studio, backbone, resolved)
    again = sum(concept.name not in drawn for concept in story.STORIES)
    steps = len(story.STORIES) * resolved.draw.steps + again * resolved.report.steps
    with console.drawing(backbone.pipeline, "drawing the page", steps):
        shown = story.pages_pictures(studio, backbone, resolved.draw, resolved.report, drawn)
    page = out / "index.html"
    spent = time.monotonic() - began
    story.write_page(page, studio, shown, spent if len(known) < len(story.STORIES) else 0.0)
    _tell_table(studio)
    console.say(f"Open {page} in a browser. It took {console.clock(spent)}.")


def _tell_table(studio: Studio) -> None:
    from rich.table import Table

    from ..demo import table

    rows = table(studio)
    shown = Table(title="how well each concept is kept (1 = as when it was just learned)", title_justify="left")
    shown.add_column("concept")
    for number in range(1, studio.version + 1):
        shown.add_column(f"after {number}", justify="right")
    for word, cells in rows:
        shown.add_row(word, *("" if row is None else "-" if row.kept is None else f"{row.kept:.2f}" for row in cells))
    console.show(shown)
    for note in dict.fromkeys(row.note for _, cells in rows for row in cells if row and row.note):
        console.say(note)


def world(
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here (PNG).", show_default=False)] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Write the photos of one concept into this folder.", show_default=False)
    ] = None,
    pool: Pool = "stream",
    family: Annotated[Literal["faces", "landmarks"], typer.Option(help="With --photos: what it is.")] = "faces",
    index: Annotated[int, typer.Option(min=0, max=999_999, help="With --photos: which one.")] = 0,
    concepts: Annotated[int, typer.Option(min=1, help="With --sheet: rows of each family.")] = 6,
    views: Annotated[int, typer.Option(min=1, help="Pictures of each concept.")] = 8,
    size: Annotated[int, typer.Option(min=8, max=2048, help="Pixels of a side.")] = 64,
    similar: Annotated[int, typer.Option(min=0, help="Make siblings that differ in so many parts.")] = 0,
) -> None:
    """Pictures of the procedural world that the embedded base was trained on: a sheet, or photos to learn from."""
    if sheet is None and photos is None:
        raise typer.BadParameter("say where to write: --sheet FILE, --photos FOLDER or both")
    from .. import files, sheets
    from .. import world as worlds

    try:
        if sheet is not None:
            picture = worlds.sheet(pool, concepts=concepts, views=views, size=size, similar=similar)
            sheet.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(sheet, sheets.png(picture))
            console.say(str(sheet))
        if photos is not None:
            concept = worlds.WorldConcept(family, pool, index, similar)
            photos.mkdir(parents=True, exist_ok=True)
            for number in range(views):
                path = photos / f"{family}-{pool}-{index}-{number}.png"
                files.write_bytes(path, sheets.png(concept.view(number).render(size)))
            console.say(f"{photos}: {views} photos of a {concept.class_word}")
    except ValueError as error:
        raise StaminaError(str(error), where="world") from error


def pretrain(
    out: Annotated[Path, typer.Option(help="The folder of the run; the same one again goes on.", show_default=False)],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A number of the recipe, such as denoiser_steps=40000."),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--go-on",
            help="Train only the U-Net, or with --stage encoder only the encoder, from the package's weights.",
        ),
    ] = False,
    stage: Annotated[
        Literal["data", "pair", "autoencoder", "denoiser", "encoder"] | None,
        typer.Option(
            help="Only this part of the base's run: on a GPU, the autoencoder may run beside the pair, and the encoder "
            "beside the denoiser. Without it, what is left.",
            show_default=False,
        ),
    ] = None,
    what: Annotated[
        Literal["base", "vit"], typer.Option(help="The base and its encoder, or the ViT of the classifier.")
    ] = "base",
) -> None:
    """Make the embedded base and its encoder from nothing. Hours on a CPU, minutes on a GPU; it can be stopped."""
    changes = console.overrides(set_ or [])
    if what == "vit" and go_on:
        raise typer.BadParameter("--go-on is of the base: the ViT's run goes on by itself")
    if stage and (what == "vit" or (go_on and stage not in ("denoiser", "encoder"))):
        raise typer.BadParameter("--stage is of the base's run; with --go-on it is denoiser or encoder")
    console.quiet()
    if what == "vit":
        from ..embedded.recipe import run_vision, vision
        from ..toml_tables import changed

        found = run_vision.main(out, changed(vision.VisionRecipe(), changes))
        console.say(f"nearest class mean {found['nearest_mean']:.1%}, linear probe {found['linear']:.1%}")
        return
    from ..embedded import WEIGHTS
    from ..embedded.recipe import Recipe, run
    from ..toml_tables import changed

    recipe = changed(Recipe(), changes)
    if go_on:
        run.main(out, recipe, start=WEIGHTS, part="encoder" if stage == "encoder" else "denoiser")
    elif stage:
        run.stage(out, recipe, stage)
    else:
        run.main(out, recipe)
