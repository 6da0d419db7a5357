"""What every page of results is made of: figures and tables in files, cells, and what is said of who made them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from .. import files, sheets
from . import grid, report_pictures, tables
from .comparison import Column, Entry, Group, Row
from .making import shortened
from .plots import Figure

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


def publish(
    template: str,
    folder: Path,
    to: Path,
    groups: Sequence[Group],
    figures: Callable[[Group], Sequence[Figure]],
    part: Callable[[Group, Sequence[Figure]], dict[str, Any]],
    brief: Callable[[Group], Group] = lambda group: group,
    **more: Any,
) -> Written:
    """Write the figures, tables and page of the groups of a folder's results.

    `figures` draws those of a group, `part` is what the page shows of it, and `brief` what its LaTeX table does.
    """
    drawn = {group.name: figures(group) for group in groups}
    texts = {f"{group.name}.csv": tables.as_csv(group) for group in groups}
    texts |= {f"{group.name}.tex": tables.as_latex(brief(group)) for group in groups}
    paths = save(to, (figure for some in drawn.values() for figure in some), texts)
    made = [one for group in groups for row in group.rows for one in row.made]
    parts = [part(group, drawn[group.name]) for group in groups]
    files.write_bytes(to / PAGE, page(template, folder, made, groups=parts, **more).encode())
    return Written(to / PAGE, paths, len(made))


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
        machines=sorted({one["made"]["machine"] for one in made}),
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


def table(group: Group) -> dict[str, Any]:
    """The rows of a group as a page lists them."""
    best, columns = group.best(), group.columns()
    rows = [
        {
            "name": row.name,
            "anchor": report_pictures.anchor(f"{group.name}-{row.name}"),
            "bound": row.is_bound,
            "seeds": len(row.seeds),
            "cells": [cell(row.entries[one.key], one, best.get(one.key) == row.name) for one in columns],
        }
        for row in group.rows
    ]
    return {"columns": columns, "rows": rows}


def shown(drawn: Sequence[Figure]) -> list[dict[str, Any]]:
    """Figures as a page takes them."""
    return [{"caption": one.caption, "name": one.name, "wide": one.wide, "svg": svg(one)} for one in drawn]


def section(row: Row, group: Group, settings: Mapping[str, Any], planned: Sequence[str]) -> dict[str, Any]:
    """What a page says of how a row was made; `planned` are the fields of its plan that are told."""
    plan = row.depends["plan"]
    return {
        "name": row.name,
        "anchor": report_pictures.anchor(f"{group.name}-{row.name}"),
        "method": row.depends["method"],
        "settings": said(settings),
        "plan": said({name: plan[name] for name in planned}),
    }


HEAVY = 100_000
"""Bytes of an SVG from which on a page shows the figure as WebP; the SVG lies beside it."""


def svg(figure: Figure) -> str:
    """The figure for the page: as SVG, where that is not heavy, else as WebP, without loss where that is smaller."""
    if len(figure.svg) < HEAVY:
        return sheets.address("svg+xml", figure.svg)
    picture = Image.open(io.BytesIO(figure.png)).convert("RGB")
    lossy = sheets.addressed(picture, "webp", report_pictures.QUALITY)
    return min(lossy, sheets.addressed(picture, "webp", 100, lossless=True), key=len)


def said(settings: Mapping[str, Any]) -> str:
    """`rank 8, over (lora, rank 4)`"""
    parts = []
    for name, value in settings.items():
        parts.append(f"{name} ({said(value)})" if isinstance(value, dict) else f"{name} {value}")
    return ", ".join(parts)


def unfinished(folder: Path) -> list[str]:
    """The cells without a result, and why."""
    found = []
    for where in grid.places(folder):
        if grid.result(where) is None:
            one = grid.Cell(**files.read_json(where / grid.CELL)["cell"])
            why = grid.failure(where) or f"{len(grid.committed(where))} tasks done"
            found.append(f"{one}: {why}")
    return found
