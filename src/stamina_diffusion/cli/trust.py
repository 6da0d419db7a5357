"""`stamina verify`, `pack`, `unpack` and `diff`: is it whole, take it elsewhere, and what changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import console
from .learning import Folder

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Compute every hash anew, rebuild the model and compare it to the bit. The exit code is 2 if anything is wrong."""
    console.quiet()
    from ..class_studio import open_any
    from ..errors import DamagedError, LedgerError
    from ..verify import of_unreadable, verify

    try:
        studio = open_any(folder)
    except LedgerError:
        for line in of_unreadable(folder):
            console.warn(line)
        raise
    found = verify(studio, watch=lambda doing: console.warn(f"checking {doing}"))
    if as_json:
        console.say(json.dumps(found.record(), indent=2, ensure_ascii=False))
    else:
        for finding in found.findings:
            console.say(f"{finding.what}: {finding.path}: {finding.said}\n  {finding.do}")
        rebuilt = ", ".join(map(str, found.versions)) or "none"
        console.say(f"{found.files} files have the hash that they were written with" if found.sound else "")
        console.say(f"versions rebuilt from base and ledger, the same to the bit: {rebuilt}")
    if not found.sound:
        wrong = sum(finding.what != "unknown" for finding in found.findings)
        raise DamagedError(f"{wrong} thing{'' if wrong == 1 else 's'} wrong", where=folder, do="Each is named above.")
    if not as_json:
        console.say("The studio is sound.")


def pack(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=False)],
) -> None:
    """Put a studio into one file, every hash checked. The base stays behind: the other machine needs its own."""
    console.quiet()
    from ..packing import pack
    from ..studio import Studio

    studio = Studio.open(folder)
    with console.progress("packing", 1.0) as advance:
        members = pack(studio, out, watch=lambda done, whole: advance(done / max(whole, 1), ""))
    size = out.stat().st_size
    console.say(f"{out}: {len(members)} files, {size / 2**20:.1f} MiB. The ledger in it names the paths of the photos.")
    console.say(f"Elsewhere: stamina unpack {out.name} DIR")


def unpack(
    packed: Annotated[Path, typer.Argument(metavar="FILE", help="A packed studio.", show_default=False)],
    folder: Folder,
    base: Annotated[
        str | None, typer.Option(help="Where its base is on this machine, if not where it was.", show_default=False)
    ] = None,
) -> None:
    """Make a studio from a packed one; nothing is there until every hash has been checked."""
    console.quiet()
    from ..packing import unpack

    with console.progress("unpacking", 1.0) as advance:
        studio = unpack(packed, folder, base=base, watch=lambda done, whole: advance(done / max(whole, 1), ""))
    words = ", ".join(entry.word for entry in studio.entries) or "no concept"
    console.say(f"{folder} is a studio: version {studio.version} holds {words}. Every file has its hash.")


def diff(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="DIR, DIR@VERSION, DIR@BRANCH or DIR@NAME.", show_default=False),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Draw both from the same seeds into this PNG.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=16, help="Pictures of each word.")] = 4,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of drawing; the preset's if not given.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what changed between two versions, or two studios on one base: words, weights and, with --out, pictures."""
    console.quiet()
    from .. import comparing, files, sheets
    from ..settings import draw_settings, preset_for

    first, second = comparing.place_of(a), comparing.place_of(b)
    difference, before, after = comparing.compare(first, second)
    if as_json:
        console.say(json.dumps(difference.record(), indent=2, ensure_ascii=False))
    else:
        told = {
            f"only in {difference.a}": difference.only_a,
            f"only in {difference.b}": difference.only_b,
            "in both": difference.both,
            "of those, learned in another way": difference.relearned,
        }
        for title, words in told.items():
            if words:
                console.say(f"{title}: {', '.join(words)}")
        console.say(f"weights that differ: {len(difference.layers)}")
        for layer in difference.layers[:8]:
            console.say(f"  {layer.relative:7.2%} of its size, {layer.moved:6.1%} of its entries  {layer.name}")
    if out is not None:
        draw = draw_settings(preset_for(first.studio.base))
        draw = replace(draw, steps=steps or draw.steps)
        picture = comparing.picture(difference, before, after, draw, samples)
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(out, sheets.png(picture))
        console.warn(f"pictures: {out}")
