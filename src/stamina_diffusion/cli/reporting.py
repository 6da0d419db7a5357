"""`stamina report`: what every version still knows, as a page, or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console
from .faults import STOPPED
from .learning import Folder

if TYPE_CHECKING:
    from ..studio import Studio


def report(
    folder: Folder,
    html: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write the page here; DIR/report.html if not given.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every number as JSON, and write no page unless --html is given.")
    ] = False,
    measured_only: Annotated[
        bool, typer.Option("--no-measure", help="Show what is measured already, and load no model.")
    ] = False,
    every: Annotated[
        bool,
        typer.Option(
            "--every",
            help="Look at every concept of every version; of many that were not measured, all but the newest are else "
            "measured by the concept that each had just learned.",
        ),
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(
            help="How pictures are drawn for a version that was not measured: a preset or a TOML file; by the base if "
            "not given.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a page of what each version still knows: forgetting, bleed, drift, capacity, pictures from the same seeds.

    `learn` measures its own version; a version that was not measured, or whose model is another now, is measured first.
    """
    console.quiet()
    from ..settings import preset_for
    from ..studio import Studio

    studio = Studio.open(folder)
    if not measured_only:
        _measure(studio, preset or preset_for(studio.base), every)
    from .. import page, summary

    found = summary.summarize(studio)
    if html is not None or not as_json:
        path = html or folder / page.FILE
        page.write(path, studio, found)
        if not as_json:
            console.say(f"Report: {path}")
            for warning in found["forecast"]["warnings"]:
                console.warn(f"warning: {warning}")
    if as_json:
        console.say(json.dumps(found, indent=2, ensure_ascii=False))


def _measure(studio: Studio, preset: str, every: bool) -> None:
    from .. import backlog
    from ..settings import resolve

    todo = backlog.plan(studio, every=every)
    if not todo:
        return
    resolved = resolve(preset)
    what = f"measuring {len(todo)} version{'s' * (len(todo) > 1)}"
    try:
        with console.progress(what, backlog.length(todo)) as advance:
            backlog.complete(
                studio, draw=resolved.draw, report=resolved.report, watch=lambda done, _: advance(done, ""), every=every
            )
    except KeyboardInterrupt:
        console.warn("stopped; what was measured is kept, and the same command goes on")
        raise typer.Exit(STOPPED) from None
