"""What a folder of results says, as one HTML page with everything in it, figures, tables and `results.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import files
from ..errors import SettingsError
from . import class_report, figures, grid, plots, report_pictures, results
from .classification import Classification
from .comparison import COLUMNS, Compared, Group, ends, gather
from .customization import Customization
from .plots import Figure
from .report_parts import Written, publish, section, shown, table

PLANNED = ("steps", "batch", "accumulation", "prior_images", "replay_images")
"""Fields of the plan in a method's section."""


def write(folder: Path, to: Path) -> Written:
    """Write the report of a folder of results into `to`, whichever benchmark's they are.

    Raises SettingsError where nothing is finished.
    """
    results.finished(folder)
    writers = {Customization.name: _write, Classification.name: class_report.write}
    kind = files.read_json(folder / grid.SETTINGS)["benchmark"]
    if kind not in writers:
        do = f"There are pages of these: {', '.join(writers)}."
        raise SettingsError(f"holds results of {kind}", where=folder, do=do)
    plots.plotting()  # to fail before anything is written
    to.mkdir(parents=True, exist_ok=True)
    return writers[kind](folder, to)


def _write(folder: Path, to: Path) -> Written:
    groups = gather(folder)
    results.write(folder, to)
    return publish("bench.html", folder, to, groups, figures.figures, _group, measures=COLUMNS)


def _group(group: Group, drawn: Sequence[Figure]) -> dict[str, Any]:
    return {
        **table(group),
        "stream": group.stream,
        "length": group.length,
        "ends": ends(group.length),
        "figures": shown(drawn),
        "methods": [_method(row, group) for row in group.rows],
    }


def _method(row: Compared, group: Group) -> dict[str, Any]:
    return {
        **section(row, group, row.depends["settings"], PLANNED),
        "seed": row.seeds[0],
        "concepts": row.found[0]["concepts"],
        "picture": report_pictures.then_and_final(row.places[0]),
        "has_then": not row.is_bound,
        "matrix": report_pictures.matrix_picture(row),
        "bleed": report_pictures.bleed_picture(row),
    }
