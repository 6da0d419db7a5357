"""`stamina log` and `stamina doctor`: what was learned, and whether photos are fit to be learned from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .faults import MENDABLE
from .learning import Folder

if TYPE_CHECKING:
    from ..kept import Row
    from ..ledger import Event, Ledger


def log(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what was learned, when, and how well it is kept."""
    # Not through Studio: this needs no model, and importing what loads one takes seconds.
    from .. import kept, ledger
    from ..errors import StudioError

    if not (folder / ledger.FILE).is_file():
        raise StudioError("is not a studio", where=folder, do=f"Make one with: stamina init {folder}")
    studio = ledger.read(folder)
    base = studio.base.record()
    rows = rows_of(studio, kept.read(folder))
    if as_json:
        concepts = [_plain(entry, rows.get(entry.name)) for entry in studio.entries]
        found = {"base": base, "version": studio.version, "concepts": concepts}
        found |= {"branch": studio.branch, "branches": studio.branches, "history": list(map(_event, studio.events))}
        console.say(json.dumps(found, indent=2, ensure_ascii=False))
        return
    plain = all(event.kind == "learn" for event in studio.events)
    where = "" if plain else f", branch {studio.branch}"
    console.say(f"base {base['source']} ({base['hash'][:12]}), version {studio.version}{where}")
    for pending in sorted((folder / "unfinished").glob("*/request.json")):
        console.say(f"<{pending.parent.name}> is half learned; the same learn command goes on with it")
    if studio.entries:
        _tell_concepts(studio, rows)
    elif plain:
        console.say(f"Nothing has been learned yet. Next: stamina learn {folder} PHOTOS --name NAME")
    if not plain:
        _tell_history(studio)


def rows_of(studio: Ledger, by_version: Mapping[int, Sequence[Row]]) -> dict[str, Row]:
    """For each concept the last known row of this model, or of one that it was before."""
    folds = studio.timeline.folds
    now = folds[studio.version]
    return {
        row.name: row
        for version, rows in sorted(by_version.items())
        if 0 <= version < len(folds) and folds[version] == now[: len(folds[version])]
        for row in rows
    }


def _tell_concepts(studio: Ledger, rows: Mapping[str, Row]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..errors import printable

    table = Table(box=None, pad_edge=False)
    for title in ("", "word", "method", "steps", "seed", "photos", "density", "learned", "took", "kept", "like photos"):
        table.add_column(title, justify="left" if title in ("word", "method", "learned") else "right", no_wrap=True)
    for entry in studio.entries:
        row = rows.get(entry.name)
        table.add_row(
            str(entry.version),
            entry.word + (f" ({escape(printable(entry.shown))})" if entry.shown else ""),
            escape(printable(entry.method)),
            str(entry.steps),
            str(entry.seed),
            str(len(entry.photos)),
            _number(entry.density),
            escape(printable(entry.learned[:16].replace("T", " "))),
            console.clock(entry.seconds),
            _number(row and row.kept),
            _number(row and row.photos),
        )
    console.show(table)
    for note in dict.fromkeys(row.note for row in rows.values() if row.note):
        console.say(f"kept: {note}")


def _tell_history(studio: Ledger) -> None:
    """A line for each thing that happened; what is still there of a name, and no more."""
    console.say("history:")
    for event in studio.events:
        concept = studio.learned_at.get(event.what["of"] if event.kind == "rename" else event.version)
        word = concept.word if concept else "a forgotten concept"
        what = event.what
        told = {
            "learn": f"learned {word}",
            "rename": f"{word} is shown as {(event.private or {}).get('shown', 'something that was forgotten')}",
            "rollback": f"rolled back to version {what.get('to')}",
            "forget": f"forgot what was learned at {', '.join(map(str, what['of']))}" if event.kind == "forget" else "",
            "branch": f"made branch {what.get('name')} at version {what.get('at')}",
            "switch": f"switched from {what.get('from')}",
            "delete-branch": f"deleted branch {what.get('name')} (version {what.get('at')})",
        }[event.kind]
        reason = f": {what['reason']}" if what.get("reason") else ""
        line = f"{event.version}  {event.time[:16].replace('T', ' ')}  {event.branch}  {told}{reason}"
        console.say("  " + " ".join(line.splitlines()))


def _event(event: Event) -> dict[str, Any]:
    """An event without what is said with its concept."""
    return {"version": event.version, "kind": event.kind, "branch": event.branch, "time": event.time} | event.what


def _plain(entry: Any, row: Any) -> dict[str, Any]:
    first = ("name", "word", "method", "steps", "seed", "photos", "density", "hash")
    values = asdict(entry)
    ordered = {key: values[key] for key in first} | values
    return ordered | {"kept": row and row.kept, "like_photos": row and row.photos}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def doctor(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTOS", help="A folder of photos, or photos.", show_default=False)
    ],
    resolution: Annotated[int, typer.Option(min=8, help="The base's pixels a side: 512, or 64 if embedded.")] = 512,
) -> None:
    """Check photos, and say how to mend what is wrong with them. The exit code is 2 if some cannot be used."""
    from ..photos import examine

    seen = examine(photos[0] if len(photos) == 1 else photos, resolution=resolution)
    order = ("error", "warning", "hint")
    for finding in sorted(seen.findings, key=lambda finding: order.index(finding.severity)):
        place = f"{finding.path}: " if finding.path else ""
        console.say(f"{finding.severity}: {place}{finding.what}\n  {finding.do}")
    count = len(seen.photos)
    usable = f"{count} photo{'' if count == 1 else 's'} can be used"
    counts = [sum(finding.severity == kind for finding in seen.findings) for kind in order]
    named = [f"{n} {kind}{'' if n == 1 else 's'}" for n, kind in zip(counts, order, strict=True) if n]
    console.say(f"{usable}; {', '.join(named) if named else 'nothing is wrong with them'}")
    if seen.errors or not seen.photos:
        raise typer.Exit(MENDABLE)
