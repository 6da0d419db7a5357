"""`stamina learn --from-lora`: a LoRA file as a concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from . import console

if TYPE_CHECKING:
    from ..loras import Adopted


def adopt(
    folder: Path,
    file: Path,
    name: str,
    photos: Sequence[Path] | None,
    class_word: str | None,
    preset: str | None,
    method: str | None,
    overrides: Mapping[str, str],
    dry_run: bool,
    no_report: bool,
    terms: Mapping[str, str | None],
) -> None:
    """Fold a LoRA in and say what of it was taken and what was left out."""
    if photos:
        raise typer.BadParameter("give photos or --from-lora, not both", param_hint="PHOTOS")
    console.quiet()
    from .. import adopting, loras
    from ..settings import preset_for, resolve
    from ..studio import Studio
    from .lesson import tell_report

    studio = Studio.open(folder)
    word = studio.check_name(name)
    resolved = resolve(preset or preset_for(studio.base), method, overrides=overrides)
    studio.store(resolved.plan.storage)
    if dry_run:
        found = loras.read(file, studio.backbone())
        console.say(f"would adopt {word}: {_told(found)}, as version {studio.version + 1}")
        for left in found.left_out:
            console.say(f"would leave out: {left}")
        console.say("nothing was written")
        return
    taken = adopting.adopt(studio, file, name, method=resolved.method, class_word=class_word, terms=terms)
    for left in taken.file.left_out:
        console.warn(f"left out: {left}")
    console.say(f"{word} is adopted: version {studio.version}, {_told(taken.file)}; it begins as {taken.words!r}.")
    if not no_report:
        tell_report(studio, taken.backbone, resolved)
    console.say(f'Next: stamina draw {folder} "a photo of {word} at sunset" --out {name}.png')


def _told(found: Adopted) -> str:
    ranks = sorted(set(found.ranks.values()))
    shown = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return f"{len(found.changes)} layers, {shown}"
