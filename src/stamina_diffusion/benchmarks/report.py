"""What a folder of results says, as one HTML page with everything in it, figures, tables and `results.json`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import files
from ..errors import SettingsError
from . import figures, grid, report_pictures, results, tables
from .comparison import COLUMNS, Compared, Group, ends, gather
from .customization import Customization
from .figures import Figure
from .making import shortened

PAGE = "report.html"
SHOWN = 2
"""Pictures of each concept, then and at the end, in a method's section."""


@dataclass(frozen=True)
class Written:
    """What a report consists of."""

    page: Path
    figures: Sequence[Path]
    runs: int


def write(folder: Path, to: Path) -> Written:
    """Write the report of a folder of results into `to`. Raises SettingsError where nothing is finished."""
    groups = gather(folder)
    if (kind := files.read_json(folder / grid.SETTINGS)["benchmark"]) != Customization.name:
        raise SettingsError(f"holds results of {kind}", where=folder, do="This page is of the customization benchmark.")
    figures.plotting()  # to fail before anything is written
    to.mkdir(parents=True, exist_ok=True)
    rows = results.write(folder, to)
    drawn: dict[str, list[Figure]] = {}
    paths = []
    for group in groups:
        drawn[group.name] = figures.figures(group)
        for part in ("figures", "tables"):
            (to / part).mkdir(exist_ok=True)
        for figure in drawn[group.name]:
            for form, data in (("png", figure.png), ("svg", figure.svg)):
                path = to / "figures" / f"{figure.name}.{form}"
                files.write_bytes(path, data)
                paths.append(path)
        files.write_bytes(to / "tables" / f"{group.name}.csv", tables.as_csv(group).encode())
        files.write_bytes(to / "tables" / f"{group.name}.tex", tables.as_latex(group).encode())
    page = _page(folder, groups, drawn)
    files.write_bytes(to / PAGE, page.encode())
    return Written(to / PAGE, paths, len(rows))


def _page(folder: Path, groups: Sequence[Group], drawn: Mapping[str, Sequence[Figure]]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    settings = files.read_json(folder / grid.SETTINGS)
    made = [one for group in groups for row in group.rows for one in row.made]
    return environment.get_template("bench.html").render(
        title=settings["benchmark"],
        protocol=settings["settings"]["protocol"],
        threads=settings["settings"]["threads"],
        made=made[-1]["made"],
        commands=sorted({shortened(one["made"]["command"]) for one in made}),
        runs=len(made),
        unfinished=_unfinished(folder),
        measures=COLUMNS,
        groups=[_group(group, drawn[group.name]) for group in groups],
        program=version("stamina-diffusion"),
    )


def _group(group: Group, drawn: Sequence[Figure]) -> dict[str, Any]:
    best, columns = group.best(), group.columns()
    return {
        "columns": columns,
        "stream": group.stream,
        "length": group.length,
        "ends": ends(group.length),
        "rows": [
            {
                "name": row.name,
                "anchor": f"{group.name}-{row.name}".replace(" ", "-").replace(",", ""),
                "bound": row.is_bound,
                "seeds": len(row.seeds),
                "cells": [_cell(row, column, best) for column in columns],
            }
            for row in group.rows
        ],
        "figures": [{"caption": one.caption, "name": one.name, "svg": _svg(one)} for one in drawn],
        "methods": [_method(row, group) for row in group.rows],
    }


def _cell(row: Compared, column: Any, best: Mapping[str, str]) -> dict[str, Any] | None:
    entry = row.entries[column.key]
    if entry is None:
        return None
    interval = ""
    if entry.low is not None and entry.high is not None:
        interval = f"{tables.number(entry.low, column)} … {tables.number(entry.high, column)}"
    deviation = "" if entry.deviation is None else f"± {tables.number(entry.deviation, column)}"
    return {
        "mean": tables.number(entry.mean, column),
        "interval": interval,
        "deviation": deviation,
        "best": best.get(column.key) == row.name,
    }


def _svg(figure: Figure) -> str:
    """The figure for the page: as SVG, where pictures do not make it heavy."""
    kind, data = ("svg+xml", figure.svg) if len(figure.svg) < 400_000 else ("png", figure.png)
    return _inline(kind, data)


def _inline(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def _method(row: Compared, group: Group) -> dict[str, Any]:
    where, tasks = row.places[0], len(row.found[0]["concepts"])
    picture = report_pictures.then_and_final(where, tasks, SHOWN)
    matrix, bleed = figures.matrix_picture(row), figures.bleed_picture(row)
    plan = row.depends["plan"]
    return {
        "name": row.name,
        "anchor": f"{group.name}-{row.name}".replace(" ", "-").replace(",", ""),
        "method": row.depends["method"],
        "settings": row.depends["settings"],
        "plan": {key: plan[key] for key in ("steps", "batch", "accumulation", "prior_images", "replay_images")},
        "seed": row.seeds[0],
        "concepts": row.found[0]["concepts"],
        "picture": None if picture is None else report_pictures.inline(picture),
        "has_then": (grid.task_folder(where, 0) / "own.png").is_file() and not row.is_bound,
        "matrix": None if matrix is None else _inline("png", matrix),
        "bleed": None if bleed is None else _inline("png", bleed),
    }


def _unfinished(folder: Path) -> list[str]:
    """The cells without a result, and why."""
    found = []
    for path in sorted((folder / "cells").glob(f"*/*/{grid.CELL}")):
        if grid.result(path.parent) is None:
            cell = grid.Cell(**files.read_json(path)["cell"])
            why = grid.failure(path.parent) or f"{len(grid.committed(path.parent))} tasks done"
            found.append(f"{cell}: {why}")
    return found
