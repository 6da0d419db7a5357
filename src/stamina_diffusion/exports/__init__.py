"""Every export format by its name, one line each; a format's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..errors import ExportError, nearest
from ..studio import Studio

FORMATS = {"diffusers": "diffusers_folder"}
"""Name → module in this folder; each has `write(studio, out)`."""


def export(studio: Studio, to: str, out: Path) -> Path:
    """Write the studio's newest version in a format; the answer is what was written.

    Raises ExportError for an unknown format and for a place that is taken.
    """
    if to not in FORMATS:
        near = nearest(to, FORMATS)
        hint = f"Did you mean {near!r}? " if near else ""
        raise ExportError(f"there is no format {to!r}", do=f"{hint}Formats: {', '.join(FORMATS)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError("is there already", where=out, do="Give a new folder.")
    return import_module(f".{FORMATS[to]}", __name__).write(studio, out)
