"""A benchmark is a grid of cells; each cell learns its tasks one after another and keeps each on the disk.

A *cell* is one row of the table of methods on one stream with one seed. After each task everything that the next one
needs is committed to a folder of its own, so the same command goes on where a killed one stopped, to the same bytes.

To add a benchmark, write two classes; `testing_benchmark.py` is the smallest example.

* A `Benchmark` is a frozen dataclass of plain values, so that it can be sent to another process or machine. It says
  what a cell's results depend on (`settings` of the whole folder, `describe` of one cell), refuses what cannot be run
  (`check`, before the first cell), and opens a cell (`open`).
* A `Run` is a cell in memory: a network and what its method remembers. `learn(task, folder)` learns one task, measures
  what is to be measured now, writes pictures or arrays into `folder`, and answers a row of plain values. `state()` is
  all that later tasks depend on, and `restore` puts it back. `finish(folder, where, rows)` measures what only the
  end can tell; its answer is the cell's result.

All random draws must derive from the cell's seed and their purpose (see `seeds`): a cell may start in any process,
after any other. Rows may hold times and memory under the keys of `VARYING`; all else repeats to the bit on a CPU.

On the disk:

    DIR/settings.json                               what all cells share; a folder of other settings is refused
    DIR/cells/<row>/<stream>-<length>-<seed>/
        cell.json                                   the cell, what its results depend on, and who ran it
        task-0001/ row.json, and whatever `learn` wrote; the newest task's also has state.safetensors
        end/ row.json                               the result
        failed.json                                 instead of `end`, where the loss was no longer a number
"""

from __future__ import annotations

import abc
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .. import files
from ..errors import SettingsError, StaminaError, TrainingError

SETTINGS, CELL, ROW, STATE, END, FAILED = (
    "settings.json",
    "cell.json",
    "row.json",
    "state.safetensors",
    "end",
    "failed.json",
)
VARYING = frozenset(
    {"seconds", "cpu_seconds", "took", "took_cpu", "peak_memory_mb", "seconds_per_concept", "cpu_seconds_per_concept"}
)
"""Keys of rows that differ from run to run."""


@dataclass(frozen=True, order=True)
class Cell:
    """One run of a benchmark."""

    variant: str
    """The row of the table of methods."""
    stream: str
    length: int
    """Tasks, or concepts."""
    seed: int

    @property
    def folder(self) -> Path:
        """Where it is kept, below the folder of all cells.

        >>> Cell("c-lora, class word", "mixed", 50, 1).folder.as_posix()
        'c-lora-class-word/mixed-50-1'
        """
        return Path(_plain(self.variant)) / f"{_plain(self.stream)}-{self.length}-{self.seed}"

    def __str__(self) -> str:
        return f"{self.variant}, {self.stream} {self.length}, seed {self.seed}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-.") or "-"


class Run(abc.ABC):
    """A cell in memory."""

    @property
    @abc.abstractmethod
    def tasks(self) -> int:
        """How many times `learn` is to be called."""

    @abc.abstractmethod
    def learn(self, task: int, folder: Path) -> dict[str, Any]:
        """Learn task `task` (from 0), measure, write what should be kept into `folder`; the answer is plain values.

        Raises TrainingError where the loss is no longer a number: the cell then has failed, and the others go on.
        """

    @abc.abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """All that later tasks depend on; it may be empty, but a later `restore` must make the same of it."""

    @abc.abstractmethod
    def restore(self, state: Mapping[str, Tensor], rows: Sequence[Mapping[str, Any]]) -> None:
        """Be what the run was after `len(rows)` tasks."""

    @abc.abstractmethod
    def finish(self, folder: Path, where: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The cell's result. `where` is the cell's folder with every task's (see `task_folder`), `folder` the end's."""


class Benchmark(abc.ABC):
    """What cells have in common; a frozen dataclass of plain values."""

    name: ClassVar[str]
    threads: int = 1
    """CPU threads of a cell, whatever the number of jobs: on another number a CPU adds in another order."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """What all cells' results depend on, as plain values; two sets of settings do not share a folder."""

    @abc.abstractmethod
    def describe(self, cell: Cell) -> dict[str, Any]:
        """What this cell's results depend on beside `settings`, such as its method's settings; plain values."""

    def completed(self, described: Mapping[str, Any]) -> Mapping[str, Any]:
        """What an earlier version described, with the settings that it did not have yet: a new one's default is what
        was done before there was any."""
        return described

    @abc.abstractmethod
    def check(self, cells: Sequence[Cell]) -> None:
        """Raise StaminaError for a cell that cannot be run: unknown names, too few pictures, missing folders."""

    @abc.abstractmethod
    def tasks(self, cell: Cell) -> int:
        """How many tasks its run will have, without opening it."""

    @abc.abstractmethod
    def seconds(self, cell: Cell) -> float:
        """A rough guess of how long a cell takes, for whoever decides what to run."""

    @abc.abstractmethod
    def open(self, cell: Cell, where: Path) -> Run:
        """The cell before its first task. `where` is its folder, for state of a task that is not finished."""


def task_folder(where: Path, task: int) -> Path:
    """Where task `task` (from 0) of the cell in `where` is kept."""
    return where / f"task-{task + 1:04}"


def committed(where: Path) -> list[dict[str, Any]]:
    """The rows of the tasks that a cell has learned, in order."""
    rows: list[dict[str, Any]] = []
    while (path := task_folder(where, len(rows)) / ROW).is_file():
        rows.append(files.read_json(path))
    return rows


def result(where: Path) -> dict[str, Any] | None:
    """A cell's result, None where it is not finished."""
    path = where / END / ROW
    return files.read_json(path) if path.is_file() else None


def failure(where: Path) -> str | None:
    """Why a cell failed, None where it did not."""
    path = where / FAILED
    return files.read_json(path)["what"] if path.is_file() else None


def is_done(where: Path) -> bool:
    return (where / END / ROW).is_file() or (where / FAILED).is_file()


def place(folder: Path, cell: Cell) -> Path:
    """A cell's folder in a folder of results."""
    return folder / "cells" / cell.folder


def places(folder: Path) -> list[Path]:
    """The folders of all cells of a folder of results, finished or not, in the order of their names."""
    return [path.parent for path in sorted((folder / "cells").glob(f"*/*/{CELL}"))]


def prepare(benchmark: Benchmark, cells: Sequence[Cell], folder: Path, made: Mapping[str, Any]) -> None:
    """Refuse what cannot be run, then write down what every cell is made with.

    `made` says who runs it: command, machine, date, commit. Raises StaminaError before anything is written.
    """
    check(benchmark, cells, folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / SETTINGS, {"benchmark": benchmark.name, "settings": _plainly(benchmark.settings())})
    for cell in cells:
        where = place(folder, cell)
        if not (where / CELL).is_file():
            where.mkdir(parents=True, exist_ok=True)
            described = {"cell": asdict(cell), "depends": _plainly(benchmark.describe(cell)), "made": dict(made)}
            files.write_json(where / CELL, described)


def check(benchmark: Benchmark, cells: Sequence[Cell], folder: Path) -> None:
    """Raise StaminaError for cells that cannot be run, or not in this folder; nothing is written."""
    if not cells:
        raise SettingsError("there is nothing to run", do="Name a method, and at least one seed.")
    benchmark.check(cells)
    do = "Give a new folder with --out, or the settings of the first run."
    if (folder / SETTINGS).is_file():
        known = _read(folder / SETTINGS)
        ours = {"benchmark": benchmark.name, "settings": _plainly(benchmark.settings())}
        if known != ours:
            raise SettingsError(f"holds results of other settings: {_difference(known, ours)}", where=folder, do=do)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError("is no folder of results, and not empty", where=folder, do="Give a new folder with --out.")
    places: dict[Path, Cell] = {}
    for cell in cells:
        where = place(folder, cell)
        if places.setdefault(where, cell) != cell:
            raise SettingsError(f"{cell} and {places[where]} would share a folder", do="Rename one of the rows.")
        if (where / CELL).is_file():
            known = _plainly(benchmark.completed(_read(where / CELL)["depends"]))
            ours = _plainly(benchmark.describe(cell))
            if known != ours:
                what = f"holds {cell} with other settings: {_difference(known, ours)}"
                raise SettingsError(what, where=folder, do=do)


def _read(path: Path) -> Any:
    try:
        return files.read_json(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"is damaged: {error}", where=path, do="Delete its folder, and run it again.") from error


def _plainly(value: Any) -> Any:
    """As JSON gives it back, so that what is read compares with what would be written."""
    return json.loads(json.dumps(value))


def _difference(known: Any, ours: Any, path: str = "") -> str:
    """Where two sets of settings first differ: `steps is 40 there and 80 here`."""
    if isinstance(known, dict) and isinstance(ours, dict):
        for key in {**known, **ours}:
            if known.get(key) != ours.get(key):
                return _difference(known.get(key), ours.get(key), f"{path}.{key}".lstrip("."))
    return f"{path.removeprefix('settings.')} is {known!r} there and {ours!r} here"


def run_cell(
    benchmark: Benchmark, cell: Cell, folder: Path, watch: Callable[[], None] = lambda: None, patience: float = 60
) -> None:
    """Run a cell to its end from wherever it is; `watch` is called after each commit.

    A cell whose loss is no longer a number is marked as failed, which running it again would not change.
    Raises StaminaError when another process is still at it after `patience` seconds.
    """
    where = place(folder, cell)
    if is_done(where):
        return
    try:
        with FileLock(where / ".lock", timeout=patience), _threads(benchmark.threads):
            try:
                _run(benchmark, cell, where, watch)
            except TrainingError as error:
                files.write_json(where / FAILED, {"what": error.what, "tasks": len(committed(where))})
                watch()
    except Timeout as error:
        raise StaminaError("another process is running this cell", where=where, do="Wait until it is done.") from error


def _run(benchmark: Benchmark, cell: Cell, where: Path, watch: Callable[[], None]) -> None:
    rows = committed(where)
    run = benchmark.open(cell, where)
    if rows:
        run.restore(files.read_tensors(task_folder(where, len(rows) - 1) / STATE), rows)
    for task in range(len(rows), run.tasks):
        began, used = time.monotonic(), time.process_time()
        with _committing(task_folder(where, task)) as folder:
            row = run.learn(task, folder)
            files.write_tensors(folder / STATE, run.state())
            row |= {"took": time.monotonic() - began, "took_cpu": time.process_time() - used}
            files.write_json(folder / ROW, row)
        for earlier in range(task):
            (task_folder(where, earlier) / STATE).unlink(missing_ok=True)
        rows.append(_plainly(row))
        watch()
    with _committing(where / END) as folder:
        began, used = time.monotonic(), time.process_time()
        found = run.finish(folder, where, rows)
        found |= {"took": time.monotonic() - began, "took_cpu": time.process_time() - used}
        files.write_json(folder / ROW, found)
    watch()


@contextmanager
def _committing(path: Path) -> Iterator[Path]:
    """A new folder that is at `path`, whole, when the block has ended well."""
    beside = path.with_name(f".{path.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)  # of a task that was committed without a row: by hand, never by us
    beside.mkdir(parents=True)
    yield beside
    files.flush_folder(beside)
    beside.replace(path)
    files.flush_folder(path.parent)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
