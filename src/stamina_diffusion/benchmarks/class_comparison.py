"""Finished cells of the classification benchmark gathered for comparison: a row is an adapter under a merge, and has
every measure once for each head.

An interval is of the mean over seeds (Student's t, 95 %), None of one seed. A difference of two rows is paired: both
have learned the same classes in the same order, seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..heads import HEADS
from ..methods.variants import MERGES
from ..metrics import continual
from . import results
from .class_rows import ROWS
from .class_run import FOOTPRINT
from .comparison import Column, Entry, Group, Row

Array = NDArray[np.float64]

MEASURES = (
    Column("a_macro", "A_N %", "high", 1, 100, "accuracy on all classes at the end, each task alike: CODA-Prompt"),
    Column("a_micro", "A micro %", "high", 1, 100, "the same, each picture alike: PILOT, InfLoRA"),
    Column("average_incremental", "A inc. %", "high", 1, 100, "mean over time of A on what was learned so far"),
    Column("task_incremental", "task told %", "high", 1, 100, "A_N where the task of a picture is told"),
    Column("task_inferred", "right task %", "high", 1, 100, "pictures whose predicted class is of the right task"),
    Column("f_coda", "F_N", "low", 2, 100, "mean drop in one step, in points: CODA-Prompt, C-LoRA, STAMINA"),
    Column("f_chaudhry", "F", "low", 1, 100, "drop since the best before the end, in points: Chaudhry et al."),
    Column("bwt", "BWT", "high", 1, 100, "accuracy at the end minus that when just learned, in points: GEM"),
    Column("density", "moved %", None, 1, 100, "entries of the weights that a task's change moves, mean over tasks"),
    Column("norm", "change %", None, 2, 100, "size of a task's change beside that of the weights, mean over tasks"),
    Column(
        "overlap", "overlap", None, 2, 1, "cosine of |a task's change| with |all earlier ones' sum|, mean over tasks"
    ),
    Column("trained_percent", "trained %", None, 2, means="parameters trained for a task, of the network's"),
    Column("added_parameters", "added", None, 0, means="parameters that stay beside a row a class, after the fold"),
    Column("seconds", "s", None, 0, means="learning alone, all tasks, on a machine that did other things too"),
)
"""What a row has for each head; the last six are of the row."""
OF_THE_ROW = (*FOOTPRINT, "trained_percent", "added_parameters", "seconds")
BEST_BY = "a_macro"


def columns() -> list[Column]:
    """The measures of every head, one after the other."""
    heads = [one for one in MEASURES if one.key not in OF_THE_ROW]
    own = [one for one in MEASURES if one.key in OF_THE_ROW]
    return [one._replace(key=f"{head}/{one.key}", title=f"{one.title} {head}") for head in HEADS for one in heads] + own


@dataclass(frozen=True)
class ClassCompared(Row):
    """An adapter under a merge."""

    found: Sequence[Mapping[str, Mapping[str, Any]]]
    """Of each seed the result by head."""

    @property
    def first(self) -> Mapping[str, Any]:
        return next(iter(self.found[0].values()))

    @property
    def adapter(self) -> str:
        return self.first["adapter"]

    @property
    def merge(self) -> str:
        return self.first["merge"]

    @property
    def labels(self) -> dict[str, str]:
        return {"adapter": self.adapter, "merge": self.merge}

    @property
    def is_bound(self) -> bool:
        """Joint training is no continual method."""
        return self.adapter == "joint"

    @cached_property
    def entries(self) -> dict[str, Entry | None]:
        return {column.key: self._entry(column.key) for column in columns()}

    def _entry(self, key: str) -> Entry | None:
        head, _, measure = key.rpartition("/")
        if key in FOOTPRINT:
            line = self.footprint(key)
            return None if line is None else Entry(float(np.nanmean(line)), None, None, None)
        values = [(one[head] if head else next(iter(one.values())))[measure] for one in self.found]
        if any(value is None for value in values):
            return None
        found = of_seeds([float(value) for value in values])
        return found if head else Entry(found.mean, None, None, None)

    def undefined(self) -> dict[str, str]:
        """Why the row has no value, by measure."""
        return dict(self.first["undefined"])

    def footprint(self, key: str) -> Array | None:
        """One of `FOOTPRINT` of each task's change, mean over seeds, (tasks,), nan of a task that has none.

        None where no task has one, or results were made before it was kept.
        """
        lines = [next(iter(one.values())).get("footprint", {}).get(key) or [] for one in self.found]
        if any(not line or all(value is None for value in line) for line in lines):
            return None
        return np.mean(np.array(lines, dtype=float), axis=0)

    def over_time(self, head: str) -> Array | None:
        """A_i after each task, mean over seeds, (tasks,); None for joint training."""
        lines = [one[head]["matrix"] for one in self.found]
        if any(line is None for line in lines):
            return None
        return np.mean([[np.mean(line) for line in own] for own in lines], axis=0)

    def matrix(self, head: str) -> Array | None:
        """R, (tasks, tasks), mean over seeds by place in the stream, nan above the diagonal."""
        if any(one[head]["matrix"] is None for one in self.found):
            return None
        count = len(self.found[0][head]["matrix"])
        square = [[[*line, *[np.nan] * (count - len(line))] for line in one[head]["matrix"]] for one in self.found]
        return np.mean(np.array(square), axis=0)


class Difference(NamedTuple):
    """How far one row is ahead of another in A_N, under one head."""

    over: str
    head: str
    seeds: Entry
    """Mean and interval over seeds, paired."""
    classes: continual.Interval
    """The interval over classes: bootstrap, seeds averaged first."""

    @property
    def beyond(self) -> bool:
        """Whether both intervals, or the one that there is, lie on one side of 0."""
        known = [(self.seeds.low, self.seeds.high), (self.classes.low, self.classes.high)]
        return all(low > 0 or high < 0 for low, high in known if low is not None and high is not None)


def of_seeds(values: Sequence[float]) -> Entry:
    """The mean of one number a seed, with its interval where there are several."""
    found = continual.spread(values)
    if len(values) < 2:
        return Entry(found.mean, None, None, None)
    return Entry(*continual.student(values), found.deviation)


def differences(group: Group, adapter: str) -> list[Difference]:
    """What `adapter` is ahead by, of every other row, under each head: in A_N, on the seeds that both have."""
    own = next((row for row in group.rows if row.name == adapter), None)
    if own is None:
        return []
    found = []
    for other in group.rows:
        common = [seed for seed in own.seeds if seed in other.seeds]
        if other is own or not common:
            continue
        for head in HEADS:
            pairs = [(row.found[row.seeds.index(seed)][head]) for seed in common for row in (own, other)]
            ours, theirs = pairs[::2], pairs[1::2]
            apart = [one["a_macro"] - two["a_macro"] for one, two in zip(ours, theirs, strict=True)]
            by_class = [[one["by_class"][name] - two["by_class"][name] for name in sorted(one["by_class"])]
                        for one, two in zip(ours, theirs, strict=True)]  # fmt: skip
            found.append(Difference(other.name, head, of_seeds(apart), continual.bootstrap(by_class)))
    return found


def best(group: Group) -> tuple[str, str] | None:
    """The row and head with the highest A_N of all that are no bounds, on the seeds that all of them have."""
    known = {
        (row.name, head): entry.mean
        for row in group.fair().methods()
        for head in HEADS
        if (entry := row.entries[f"{head}/{BEST_BY}"]) is not None
    }
    return max(known, key=lambda cell: known[cell]) if known else None


def of_head(group: Group, head: str) -> Group:
    """The measures of one head alone, and those of the row."""
    plain = {one.key: one for one in MEASURES}
    own = [plain[one.key.rpartition("/")[2]]._replace(key=one.key)
           for one in group.measures if one.key.startswith(f"{head}/") or "/" not in one.key]  # fmt: skip
    return replace(group, measures=own)


def summary(group: Group) -> Group:
    """A_N and F_N under each head: what papers print."""
    keys = [f"{head}/{key}" for head in HEADS for key in ("a_macro", "f_coda")]
    return replace(group, measures=[one for one in group.measures if one.key in keys])


def gather(folder: Any) -> list[Group]:
    """Every group of finished cells: one stream, one number of tasks. Raises SettingsError where there are none."""
    order = {name: place for place, name in enumerate(ROWS)}
    merges = list(MERGES)
    groups: dict[tuple[str, int], dict[str, list[Any]]] = {}
    for one in results.finished(folder):
        cell = one[0]["cell"]
        groups.setdefault((cell["stream"], cell["length"]), {}).setdefault(cell["variant"], []).append(one)
    made = []
    for (stream, length), rows in sorted(groups.items()):
        compared = []
        for name, cells in rows.items():
            described, found, _ = zip(*sorted(cells, key=lambda one: one[0]["cell"]["seed"]), strict=True)
            by_head = [{row["head"]: row for row in one["results"]} for one in found]
            compared.append(ClassCompared(name, described, by_head))
        compared.sort(key=lambda row: (merges.index(row.merge), order.get(row.name, len(order)), row.name))
        made.append(Group(stream, length, compared, columns(), "tasks"))
    return made
