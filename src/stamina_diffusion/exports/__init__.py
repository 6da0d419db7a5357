"""Every export format by its name, one line each; a format's module is imported when it is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..errors import ExportError, nearest
from ..studio import Studio
from . import card, hosts
from .source import Source, Wanted

FORMATS = {
    "diffusers": "diffusers_folder",
    "weights": "weights",
    "kohya": "kohya",
    "lora": "lora",
    "embeddings": "embeddings",
    "checkpoint": "checkpoint",
}
"""Name → module in this folder; each has `write(source, folder)`, which says how to use its files and what is lost."""


def export(
    studio: Studio,
    to: str,
    out: Path,
    wanted: Wanted | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the studio's newest version as a folder in a format, its card inside; whole or not at all.

    `tell` gets lines about what was written and what is lost. Raises ExportError for an unknown format, a place that is
    taken, and a studio that the format has nothing to say of.
    """
    check(to, out)
    source = Source(studio, wanted or Wanted(), tell, name=out.name)
    refused = hosts.known(source.now).refused
    if to in refused:
        raise ExportError(
            f"the format {to!r} is not there for {source.now.name}: {refused[to]}",
            where=studio.folder,
            do=f"Take one of: {', '.join(format for format in FORMATS if format not in refused)}.",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        beside.mkdir()
        written = import_module(f".{FORMATS[to]}", __name__).write(source, beside)
        card.write(source, to, beside, written)
        if out.exists():
            out.rmdir()
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def check(to: str, out: Path) -> None:
    """Raise ExportError for an unknown format and for a place that is taken."""
    if to not in FORMATS:
        near = nearest(to, FORMATS)
        hint = f"Did you mean {near!r}? " if near else ""
        raise ExportError(f"there is no format {to!r}", do=f"{hint}Formats: {', '.join(FORMATS)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError("is there already", where=out, do="Give a new folder.")
    if out.suffix == ".safetensors":
        raise ExportError(
            "an export is a folder: the file, its card and the words' embeddings", where=out, do="Give a folder's name."
        )
