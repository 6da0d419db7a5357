"""The classification benchmark: every adapter, merge and head on streams of classes, no picture of a past task kept.

A cell trains one adapter under one merge; every head judges it, for a head is made of class statistics alone (see
`heads`). After each task all test pictures of the classes so far are named, each for itself and without its task told,
and what was said of each is kept: the measures are made of that at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import PartialState

from .. import embedded
from ..backbones import vit
from ..backbones.seeing import Sight
from ..class_streams import ClassStream, Lesson
from ..errors import SettingsError
from ..heads import HEADS
from ..methods import completed
from ..settings import Resolved
from .class_protocol import ClassProtocol, fields_of_protocol, read_protocol
from .class_rows import ClassRow
from .class_run import ClassRun
from .grid import Benchmark, Cell, Run


@dataclass(frozen=True)
class Classification(Benchmark):
    """Rows of the table on one stream."""

    name: ClassVar[str] = "classification"
    protocol: ClassProtocol
    preset: str
    stream: str
    rows: tuple[ClassRow, ...]
    overrides: tuple[tuple[str, str], ...] = ()
    """Fields of the plan, or of methods that have them, as text: what the command line changes for all rows."""
    threads: int = 1
    cache: str = ""
    """A folder where rendered streams are kept; results do not depend on it."""

    def settings(self) -> dict[str, Any]:
        return {"preset": self.preset, "protocol": self.protocol.settings(), "threads": self.threads}

    def describe(self, cell: Cell) -> dict[str, Any]:
        resolved = self.resolved(cell)
        described = {"method": resolved.method.name, "of": resolved.method.settings()}
        return described | {"plan": resolved.plan.settings(), "told": self._classes().told}

    def completed(self, described: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**described, "of": completed(described["method"], described["of"])}

    def check(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self.resolved(cell)
            self.lessons(cell)
        # What it costs to read the network once is little beside finding out after the first hour.
        self.backbone(self.rows[0])

    def tasks(self, cell: Cell) -> int:
        return 1 if self._row(cell).joint else cell.length

    def seconds(self, cell: Cell) -> float:
        # Measured on one core with the embedded ViT: a hundredth of a second to learn from a picture, a third to judge.
        stream = self._classes()
        taught = len(stream.train.pictures) * self.protocol.epochs
        asked = len(stream.test.pictures) * (self.tasks(cell) + 1) / 2
        large = 1 if self.protocol.base == "embedded" else 600
        return large * (0.01 * taught + 0.003 * asked)

    def lessons(self, cell: Cell) -> list[Lesson]:
        """The cell's tasks."""
        return self._classes().lessons(cell.length, cell.seed, self.protocol.order)

    def _classes(self) -> ClassStream:
        return _stream(self.protocol, self.stream, self.cache)

    def open(self, cell: Cell, where: Path) -> Run:
        resolved, row = self.resolved(cell), self._row(cell)
        backbone = self.backbone(row)
        return ClassRun(
            backbone=backbone,
            lessons=self.lessons(cell),
            method=resolved.method,
            plan=resolved.plan,
            epochs=self.protocol.epochs,
            joint=row.joint,
            heads=tuple(HEADS),
            named={"adapter": row.adapter, "merge": row.merge, "stream": self.stream, "tasks": cell.length}
            | {"seed": cell.seed},
            where=where,
            batch=self.protocol.batch_of_test,
        )

    def backbone(self, row: ClassRow) -> vit.VisionTransformer:
        """The pre-trained network without a class."""
        protocol = self.protocol
        source = embedded.vit_folder() if protocol.base == "embedded" else protocol.base
        network = vit.load(source, matrices=protocol.matrices, softmax=row.softmax)
        if protocol.sight:
            network.sight = seen_as(network.sight, protocol.sight)
        network.network.to(torch.device(PartialState().device or "cpu"))  # pyright: ignore[reportArgumentType]
        return network

    def _row(self, cell: Cell) -> ClassRow:
        return next(row for row in self.rows if row.name == cell.variant)

    def resolved(self, cell: Cell) -> Resolved:
        """The cell's method and plan; a method that counts on a number of tasks is told the stream's."""
        return self._row(cell).resolve(self.preset, dict(self.overrides), cell.seed, cell.length)


def classification(
    preset: str,
    stream: str,
    rows: Sequence[ClassRow],
    overrides: Mapping[str, str],
    threads: int = 1,
    cache: str = "",
) -> Classification:
    """The benchmark of a preset on a stream; `overrides` are of the protocol, the plan and the methods.

    Raises SettingsError.
    """
    own = {key: value for key, value in overrides.items() if key in fields_of_protocol()}
    others = tuple((key, value) for key, value in overrides.items() if key not in own)
    return Classification(read_protocol(preset, stream, own), preset, stream, tuple(rows), others, threads, cache)


def seen_as(sight: Sight, changes: Mapping[str, Any]) -> Sight:
    """A checkpoint's sight with the protocol's fields in place of its own. Raises SettingsError for unknown ones."""
    known = [field.name for field in dataclasses.fields(Sight)]
    for key in changes:
        if key not in known:
            raise SettingsError(f"sight has no field {key!r}", do=f"It takes {', '.join(known)}.")
    return dataclasses.replace(sight, **changes)


@cache
def _stream_of(described: str, name: str, kept: str):
    return _KNOWN[described].stream(name, Path(kept) if kept else None)


_KNOWN: dict[str, ClassProtocol] = {}


def _stream(protocol: ClassProtocol, name: str, kept: str):
    """A stream is read once a process, whatever the number of cells."""
    described = repr(protocol)
    _KNOWN[described] = protocol
    return _stream_of(described, name, kept)
