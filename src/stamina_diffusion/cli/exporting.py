"""`stamina export`: the model for other programs, and onto the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import console
from .learning import Folder


def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            help="'diffusers', a pipeline folder; 'weights', what changed, exact; 'kohya', exact in ComfyUI and A1111; "
            "'lora', near it and everywhere; 'embeddings', the words; 'checkpoint', one file.",
            show_default=False,
        ),
    ],
    layout: Annotated[Literal["diffusers", "kohya"], typer.Option(help="Of a lora: whose names.")] = "diffusers",
    rank: Annotated[int | None, typer.Option(min=1, help="Of a lora; 16 if not given.", show_default=False)] = None,
    error: Annotated[
        float | None,
        typer.Option(help="Of a lora: the rank at which no layer is further off, such as 0.1.", show_default=False),
    ] = None,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Draw none for the card.")] = False,
    preset: Annotated[
        str | None,
        typer.Option(help="Whose settings of drawing the card's pictures take, as in draw.", show_default=False),
    ] = None,
    licence: Annotated[str | None, typer.Option("--license", help="For the card.", show_default=False)] = None,
    consent: Annotated[
        str | None, typer.Option(help="For the card: who agreed, and to what.", show_default=False)
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option("--push-to-hub", metavar="REPO", help="Upload it too: owner/name.", show_default=False),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Of a new repository: for everyone to see.")] = False,
) -> None:
    """Write the model for other programs, and say what is lost on the way."""
    if (rank is not None or error is not None) and to != "lora":
        raise typer.BadParameter("only --to lora has a rank", param_hint="--rank" if rank is not None else "--error")
    if rank is not None and error is not None:
        raise typer.BadParameter("give --rank or --error: one decides the other", param_hint="--error")
    if error is not None and not 0 < error < 1:
        raise typer.BadParameter("give a share above 0 and below 1, such as 0.1", param_hint="--error")
    console.quiet()
    from .. import exports
    from ..exports import hub
    from ..exports.source import Wanted
    from ..studio import Studio

    studio = Studio.open(folder)
    if repo is not None:
        hub.check(repo)
    wanted = Wanted(layout, rank, error, not no_pictures, preset, licence, consent)
    exports.export(studio, to, out, wanted, console.say)
    console.say(f"{out} is written ({to}).")
    if repo is not None:
        console.say(f"It is at {hub.push(out, repo, public=public)}.")
