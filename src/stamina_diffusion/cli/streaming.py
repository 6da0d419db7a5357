"""`stamina learn --stream` and `stamina config`: a whole stream in one file, and settings as a file to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console


def learn_stream(
    folder: Path,
    stream: Path,
    *,
    preset: str | None,
    tracker: str | None,
    skip_bad: bool,
    dry_run: bool,
    no_report: bool,
) -> None:
    """Learn the concepts of a stream in order; everything is checked before the first."""
    console.quiet()
    from ..errors import NameTakenError
    from ..learn import check_rank
    from ..settings import preset_for
    from ..streams import read, remaining
    from ..studio import Studio
    from ..trackers import check
    from .lesson import teach, tell_report

    studio = Studio.open(folder)
    tracker = check(tracker)
    lessons = read(stream, preset or preset_for(studio.base), skip_bad=skip_bad)
    left = remaining(studio, lessons)
    backbone = studio.backbone()
    for lesson in left:
        word = studio.check_name(lesson.name)
        if word in backbone.words:
            raise NameTakenError(f"the base's tokenizer already has the word {word}", do="Take another name.")
        check_rank(lesson.resolved.method, backbone.weight_sites(lesson.resolved.method.scope))
    if done := len(lessons) - len(left):
        console.say(f"{done} of {len(lessons)} concepts are learned already")
    if dry_run:
        for lesson in left:
            plan = lesson.resolved.plan
            console.say(
                f"would learn <{lesson.name}> from {len(lesson.photos)} photos "
                f"with {lesson.resolved.method.name}, {plan.steps} steps, seed {plan.seed}"
            )
        console.say("nothing was written")
        return
    for place, lesson in enumerate(left, start=done + 1):
        console.say(f"{place} of {len(lessons)}: <{lesson.name}>")
        entry, backbone = teach(
            studio,
            lesson.photos,
            lesson.name,
            class_word=lesson.class_word,
            resolved=lesson.resolved,
            tracker=tracker,
            consent=lesson.consent,
            licence=lesson.licence,
        )
        console.say(f"{entry.word} is learned: version {studio.version}, {console.clock(entry.seconds)}.")
        if not no_report:
            tell_report(studio, backbone, lesson.resolved)


def config(
    method: Annotated[
        str | None, typer.Option(help="The continual method; the preset's if not given.", show_default=False)
    ] = None,
    preset: Annotated[str, typer.Option(help="A preset's name, or a TOML file.")] = "paper",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write it here; printed if not given.", show_default=False)] = None,
) -> None:
    """Print the settings of a run as a commented TOML, which `stamina learn --preset FILE` takes."""
    overrides = console.overrides(changes or [])
    from .. import files
    from ..config import toml
    from ..errors import SettingsError
    from ..settings import resolve

    text = toml(resolve(preset, method, overrides=overrides))
    if out is None:
        console.say(text.rstrip())
        return
    if out.exists() or out.suffix != ".toml":
        what = "is there already" if out.exists() else "does not end in .toml"
        raise SettingsError(what, where=out, do="Name a new file that ends in .toml.")
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(out, text.encode())
    console.say(f"{out}: change what you like, then stamina learn DIR PHOTOS --name NAME --preset {out}")
