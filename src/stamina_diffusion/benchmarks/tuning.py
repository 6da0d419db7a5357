"""Each method's own few hyper-parameters, tried on a stream that is not reported on, as often for every method.

The first trial is the preset's own settings; the others are points of one low-discrepancy sequence (Sobol), the same
for all methods, spread over factors around the preset's. What counts is what is known at the end of the sequence, so
that what was not learned and what was forgotten both cost: of a benchmark that draws, how much of the held-out loss is
gone, averaged over concepts, and no picture is drawn for it; or, slower, how alike to their photos drawn pictures are.
Of a benchmark that names, it is the accuracy over all tasks' classes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import files
from ..method import Method
from . import grid, rows
from .class_rows import ClassRow, chosen
from .classification import Classification, classification
from .customization import Customization
from .grid import Cell
from .protocol import Protocol
from .rows import Row

AnyRow = Row | ClassRow
STREAM = "tuning"
FACTORS = {"rate": (0.2, 4.0), "word_rate": (0.25, 4.0), "strength": (0.01, 100.0), "mask_rate": (0.2, 4.0)}
"""What is searched: from the preset's value times the first to times the second, evenly in its logarithm."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One set of values of a row."""

    row: AnyRow
    number: int
    values: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        return f"{self.row.name} #{self.number}"

    def as_row(self) -> Any:
        """A row like its own, with these values."""
        texts = tuple((key, repr(value)) for key, value in self.values)
        return dataclasses.replace(self.row, name=self.name, settings=(*self.row.settings, *texts))


def searched(method: Method) -> dict[str, float]:
    """The fields that are searched, with the values they have; those of a method that is held among them."""
    found: dict[str, float] = {}
    held: Any = method
    while held is not None:
        for field in dataclasses.fields(held):
            value = getattr(held, field.name)
            if field.init and field.name in FACTORS and field.name not in found and value:
                found[field.name] = float(value)
        held = getattr(held, "over", None)
    if method.scope == "tokens":
        found.pop("rate", None)  # nothing but words is learned
    return found


def trials(of: Sequence[AnyRow], method_of: Callable[[Any], Method], count: int, seed: int = 0) -> list[Trial]:
    """`count` trials of each row, first its own settings, which `method_of` gives."""
    engine = torch.quasirandom.SobolEngine(len(FACTORS), scramble=True, seed=seed)
    points = engine.draw(count - 1).tolist() if count > 1 else []
    found = []
    for row in of:
        centre = searched(method_of(row))
        found.append(Trial(row, 0, ()))
        for number, point in enumerate(points, start=1):
            along = dict(zip(FACTORS, point, strict=True))
            values = {name: _between(*FACTORS[name], along[name]) * value for name, value in centre.items()}
            found.append(Trial(row, number, tuple((name, float(f"{v:.3g}")) for name, v in values.items())))
    return found


def _between(low: float, high: float, share: float) -> float:
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def of_concepts(
    methods: str, protocol: Protocol, count: int, seed: int, threads: int = 1, draws: bool = False
) -> tuple[list[Trial], Customization]:
    """The trials of rows of concepts, and the benchmark whose rows they are, which draws or only takes losses.

    Raises SettingsError for unknown rows.
    """
    plain = Customization(protocol, tuple(rows.chosen(methods)))
    tried = trials(plain.rows, lambda row: plain.resolve(Cell(row.name, STREAM, 2, 0)).method, count, seed)
    return tried, dataclasses.replace(plain, rows=_rows(tried), threads=threads, draws=draws)


def of_classes(
    methods: str,
    preset: str,
    overrides: Mapping[str, str],
    count: int,
    seed: int,
    tasks: int,
    threads: int = 1,
    cache: str = "",
) -> tuple[list[Trial], Classification]:
    """The trials of rows of classes, and the benchmark whose rows they are.

    Raises SettingsError for unknown rows and settings.
    """
    plain = classification(preset, STREAM, chosen(methods), overrides, threads, cache)
    tried = trials(plain.rows, lambda row: plain.resolved(Cell(row.name, STREAM, tasks, 0)).method, count, seed)
    return tried, dataclasses.replace(plain, rows=_rows(tried))


def _rows(tried: Sequence[Trial]) -> tuple[Any, ...]:
    return tuple(trial.as_row() for trial in tried)


def cells_of(tried: Sequence[Trial], length: int, seed: int) -> list[Cell]:
    return [Cell(trial.name, STREAM, length, seed) for trial in tried]


def gain(result: Mapping[str, Any]) -> float | None:
    """The share of the frozen base's held-out loss that is gone at the end, mean of the concepts."""
    return result["gain"]


def alignment(result: Mapping[str, Any]) -> float | None:
    """The mean cosine of pictures of a concept with what the last model draws of it (I), mean of the concepts."""
    return result["image_alignment"]


def accuracy(result: Mapping[str, Any]) -> float:
    """The accuracy on all classes at the end, each task alike, mean of the heads: one setting has to serve them all."""
    found = [row["a_macro"] for row in result["results"]]
    return sum(found) / len(found)


def scores(
    tried: Sequence[Trial], folder: Path, length: int, seed: int, score: Callable[[Mapping[str, Any]], float | None]
) -> dict[str, float]:
    """What `score` says of each trial's result; −∞ where the loss was no longer a number."""
    found = {}
    for trial, cell in zip(tried, cells_of(tried, length, seed), strict=True):
        result = grid.result(grid.place(folder, cell))
        value = None if result is None else score(result)
        found[trial.name] = -math.inf if value is None else float(value)
    return found


def write_chosen(
    path: Path, tried: Sequence[Trial], found: Mapping[str, float], means: str, made: Mapping[str, Any]
) -> dict[str, Trial]:
    """Write the best trial of each row with the scores of all; the answer is those trials by row.

    `means` says what a score is.
    """
    best: dict[str, Trial] = {}
    lines = ["# Made by: " + str(made["command"]), f"# on {made['machine']}, {made['date']}.", f"# Score: {means}"]
    lines += ["version = 1", "", "[made]", *(f"{key} = {json.dumps(made[key] or '')}" for key in sorted(made))]
    for row in dict.fromkeys(trial.row for trial in tried):
        own = [trial for trial in tried if trial.row == row]
        first = max(own, key=lambda trial: found[trial.name])
        best[row.name] = first
        lines += ["", f"[row.{json.dumps(row.name)}]", *(f"{key} = {value!r}" for key, value in first.values)]
        if not first.values:
            lines.append("# The preset's own settings were the best.")
        lines.append("scores = [")
        for trial in own:
            values = ", ".join(f"{key} {value:g}" for key, value in trial.values) or "the preset's own"
            score = found[trial.name]
            shown = "failed" if math.isinf(score) else f"{score:.4f}"
            lines.append(f"  {json.dumps(f'{trial.number}: {shown}, {values}')},")
        lines.append("]")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, ("\n".join(lines) + "\n").encode())
    return best
