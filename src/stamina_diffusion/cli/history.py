"""`stamina rollback`, `forget`, `rename` and `branch`: undo, remove, and try in another line of versions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import StaminaError
from . import console
from .faults import STOPPED
from .learning import Folder

if TYPE_CHECKING:
    from ..forgetting import Forgotten
    from ..studio import Studio


def rollback(
    folder: Folder,
    to: Annotated[
        str,
        typer.Option(metavar="NAME|VERSION", help="A version, or the concept just after which.", show_default=False),
    ],
) -> None:
    """Make the model what it was, to the bit. Nothing is deleted: one can roll forward again."""
    studio = _opened(folder)
    before = studio.version
    version = studio.rollback(to)
    words = _words(studio)
    if version == before:
        console.say(f"Nothing to do: version {version} holds {words} already.")
        return
    console.say(f"The model is as it was: version {version} holds {words}.")
    console.say(f"Back again: stamina rollback {folder} --to {before}")


def forget(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The concept.", show_default=False)],
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; it stays in the ledger.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a concept from the model and from the disk. This cannot be undone."""
    from .. import ledger

    console.quiet()
    from ..history import find
    from ..studio import Studio

    studio = Studio.open(folder)

    entry = find(studio.record, name, studio.record.learned_at.values())
    if not yes:
        if not sys.stdin.isatty():
            do = "It cannot be undone. If you mean it, say --yes."
            raise StaminaError(f"{entry.word} would be forgotten, and nobody is here to be asked", where=folder, do=do)
        question = f"Forget {entry.word} for good? Its files go, and versions that held it cannot be rolled back to."
        if not typer.confirm(question):
            console.warn("nothing was changed")
            raise typer.Exit(STOPPED)
    try:
        gone = studio.forget(entry.name, reason=reason, watch=lambda doing: console.warn(f"{doing} ..."))
    except KeyboardInterrupt:
        if ledger.read(folder).version == studio.version:
            raise
        console.warn(f"stopped; {entry.word} is forgotten, and the next command that writes deletes what is left of it")
        raise typer.Exit(STOPPED) from None
    _tell(studio, gone)


def _tell(studio: Studio, gone: Forgotten) -> None:
    console.say(f"{gone.word} is forgotten: version {gone.version} holds {_words(studio)}.")
    console.say(f"  checked: {gone.answer}; the tokenizer reads it as the base's does")
    console.say(f"  deleted: {len(gone.deleted)} files and folders")
    width = max((len(effect.word) for effect in gone.effects), default=0)
    for effect in gone.effects:
        if effect.before is None or effect.after is None:
            told = gone.note or "not measured: no samples from when it was learned"
        else:
            told = f"kept {effect.before:.2f} before, {effect.after:.2f} now"
        console.say(f"  {effect.word:<{width}}  {told}{', was trained on top of it' if effect.on_top else ''}")
    if gone.approximate:
        console.say(gone.approximate)
    if gone.unreachable:
        names = ", ".join(gone.unreachable)
        console.say(f"Rolled back before, and gone with it, since they stood on it: {names}.")
    console.say("Exports, packs, backups and pictures outside the studio are yours to delete.")


def rename(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The concept.", show_default=False)],
    shown: Annotated[str, typer.Argument(metavar="SHOWN", help="What to show instead.", show_default=False)],
) -> None:
    """Show a concept under another name. Its word in prompts stays."""
    studio = _opened(folder)
    version = studio.rename(name, shown)
    entry = next(e for e in studio.entries if e.name.lower() == name.strip("<>").lower())
    console.say(f"{entry.word} is shown as {entry.title!r}: version {version}.")


def branch(
    folder: Folder,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A new branch; none lists them.", show_default=False)
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(min=0, metavar="VERSION", help="Where it begins; here if not given.", show_default=False),
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="Go on with it, and make it if it is new.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Take its name away.")] = False,
) -> None:
    """List branches, make one, go on with one, or delete one. A branch learns without touching the others."""
    if name is None:
        if at is not None or switch or delete:
            raise typer.BadParameter("say which branch: NAME", param_hint="NAME")
        _tell_branches(folder)
        return
    if delete and (switch or at is not None):
        raise typer.BadParameter("takes neither --switch nor --at", param_hint="--delete")
    studio = _opened(folder)
    if delete:
        version = studio.delete_branch(name)
        console.say(f"Branch {name} is deleted: version {version}. Its versions can still be rolled back to.")
        return
    new = not switch or at is not None or name not in studio.branches
    if new:
        begins = studio.version if at is None else at
        studio.create_branch(name, at, switch=switch)
        console.say(f"Branch {name} begins at version {begins}.")
    if switch:
        version = studio.version if new else studio.switch(name)
        console.say(f"On branch {name}: version {version} holds {_words(studio)}.")


def _tell_branches(folder: Path) -> None:
    # Not through Studio: listing must not wait for torch.
    from .. import ledger
    from ..errors import StudioError

    if not (folder / ledger.FILE).is_file():
        raise StudioError("is not a studio", where=folder, do=f"Make one with: stamina init {folder}")
    record = ledger.read(folder)
    for name, version in record.branches.items():
        words = " ".join(entry.word for entry in record.entries_at(version)) or "nothing learned"
        console.say(f"{'*' if name == record.branch else ' '} {name}  version {version}  {words}")


def _opened(folder: Path) -> Studio:
    console.quiet()
    from ..class_studio import open_any

    return open_any(folder)


def _words(studio: Studio) -> str:
    return ", ".join(entry.word for entry in studio.entries) or "no concept"
