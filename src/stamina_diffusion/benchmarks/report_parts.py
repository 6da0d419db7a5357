"""What every page of results is made of: figures and tables in files, cells, and what is said of who made them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import files
from . import grid, tables
from .comparison import Column, Entry
from .figures import Figure
from .making import shortened

PAGE = "report.html"


@dataclass(frozen=True)
class Written:
    """What a report consists of."""

    page: Path
    figures: Sequence[Path]
    runs: int


def save(to: Path, figures: Iterable[Figure], texts: Mapping[str, str]) -> list[Path]:
    """Write figures, each in both forms, and tables by the names of their files; the answer is the figures' paths."""
    for part in ("figures", "tables"):
        (to / part).mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in figures:
        for form, data in (("png", figure.png), ("svg", figure.svg)):
            path = to / "figures" / f"{figure.name}.{form}"
            files.write_bytes(path, data)
            paths.append(path)
    for name, text in texts.items():
        files.write_bytes(to / "tables" / name, text.encode())
    return paths


def page(template: str, folder: Path, made: Sequence[Mapping[str, Any]], **more: Any) -> str:
    """A page of a folder of results from its template; `made` describes its cells."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    settings = files.read_json(folder / grid.SETTINGS)
    return environment.get_template(template).render(
        title=settings["benchmark"],
        protocol=settings["settings"]["protocol"],
        threads=settings["settings"]["threads"],
        made=made[-1]["made"],
        commands=sorted({shortened(one["made"]["command"]) for one in made}),
        runs=len(made),
        unfinished=unfinished(folder),
        program=version("stamina-diffusion"),
        **more,
    )


def cell(entry: Entry | None, column: Column, best: bool) -> dict[str, Any] | None:
    """A measure of a row as its table shows it."""
    if entry is None:
        return None
    interval = ""
    if entry.low is not None and entry.high is not None:
        interval = f"{tables.number(entry.low, column)} … {tables.number(entry.high, column)}"
    deviation = "" if entry.deviation is None else f"± {tables.number(entry.deviation, column)}"
    return {"mean": tables.number(entry.mean, column), "interval": interval, "deviation": deviation, "best": best}


def anchor(text: str) -> str:
    """Where a page says more of a row.

    >>> anchor("atlas-10-stamina, averaged")
    'atlas-10-stamina-averaged'
    """
    return text.replace(" ", "-").replace(",", "")


def svg(figure: Figure) -> str:
    """The figure for the page: as SVG, where pictures do not make it heavy."""
    kind, data = ("svg+xml", figure.svg) if len(figure.svg) < 400_000 else ("png", figure.png)
    return inline(kind, data)


def inline(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def said(settings: Mapping[str, Any]) -> str:
    """`rank 8, over (lora, rank 4)`"""
    parts = []
    for name, value in settings.items():
        parts.append(f"{name} ({said(value)})" if isinstance(value, dict) else f"{name} {value}")
    return ", ".join(parts)


def unfinished(folder: Path) -> list[str]:
    """The cells without a result, and why."""
    found = []
    for path in sorted((folder / "cells").glob(f"*/*/{grid.CELL}")):
        if grid.result(path.parent) is None:
            one = grid.Cell(**files.read_json(path)["cell"])
            why = grid.failure(path.parent) or f"{len(grid.committed(path.parent))} tasks done"
            found.append(f"{one}: {why}")
    return found
