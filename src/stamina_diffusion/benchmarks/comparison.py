"""Finished cells gathered for comparison: the rows of one stream and length, each with its seeds and intervals.

An interval is of the mean over concepts (bootstrap, 95 %, seeds averaged first); the deviation is over seeds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..metrics import continual
from . import results
from .rows import BOUNDS, ROWS

Array = NDArray[np.floating]


class Column(NamedTuple):
    """A measure as a table shows it."""

    key: str
    title: str
    better: Literal["low", "high", None]
    digits: int
    scale: float = 1.0
    means: str = ""

    @property
    def arrow(self) -> str:
        return {"low": " ↓", "high": " ↑", None: ""}[self.better]


COLUMNS = (
    Column("a_mmd", "A_mmd ×10³", "low", 0, means="MMD² between pictures of a concept and what the last model draws"),
    Column("f_mmd", "F_mmd ×10³", "low", 1, means="MMD² between what was drawn when just learned and at the end"),
    Column("kid", "KID ×10³", "low", 1, means="as A_mmd, with the cubic kernel on features as they are"),
    Column("image_alignment", "I", "high", 3, means="mean cosine of drawn pictures with the concept's own"),
    Column("text_alignment", "T", "high", 3, means="mean cosine of drawn pictures with their prompts, in contexts too"),
    Column("retrieval", "R@1 %", "high", 0, 100, "drawn pictures that are most like their own concept of the stream"),
    Column("retrieval_then", "R@1 then %", "high", 0, 100, "the same when each was just learned"),
    Column("retrieval_first", "R@1 first %", "high", 0, 100, "R@1 at the end of the first concepts alone"),
    Column("gain", "gain %", "high", 1, 100, "share of the frozen base's held-out loss that is gone at the end"),
    Column("learned_first10", "first %", "high", 1, 100, "that gain when just learned, first concepts"),
    Column("learned_last10", "last %", "high", 1, 100, "the same, last concepts"),
    Column("forgetting", "forgotten", "low", 2, 100, "gain when just learned minus gain at the end, in points"),
    Column("heldout_loss", "loss", "low", 4, means="held-out denoising loss at the end"),
    Column("drift", "drift", "low", 3, means="1 − cosine of generic pictures before and after"),
    Column("both_shown", "pairs %", "high", 0, 100, "pictures of two concepts whose two most alike concepts are these"),
    Column("trained_percent", "trained %", None, 2, means="parameters trained for a concept, of the denoiser's"),
    Column("stored_percent", "stored %", None, 2, means="numbers kept after all concepts, of the denoiser's"),
    Column("seconds_per_concept", "s / concept", None, 1, means="learning alone"),
    Column("cpu_seconds_per_concept", "CPU s", None, 1, means="of the processor alone, whatever else ran beside"),
    Column("peak_memory_mb", "MiB", None, 0, means="most memory while learning"),
)
WITH_LAST = {"a_mmd", "kid", "image_alignment", "text_alignment", "retrieval", "retrieval_then", "gain"}


class Entry(NamedTuple):
    """A measure of a row."""

    mean: float
    low: float | None
    high: float | None
    deviation: float | None
    """Over seeds; None of one seed."""


@dataclass(frozen=True)
class Row:
    """A row of a table with all its finished seeds, whichever benchmark's."""

    name: str
    made: Sequence[Mapping[str, Any]]

    @property
    def seeds(self) -> list[int]:
        return [one["cell"]["seed"] for one in self.made]

    @property
    def depends(self) -> Mapping[str, Any]:
        return self.made[0]["depends"]

    def on(self, seeds: Collection[int]) -> Self:
        """The same row with some of its seeds: every field but its name has a part for each of them."""
        kept = [place for place, seed in enumerate(self.seeds) if seed in seeds]
        parts = [field.name for field in fields(self) if field.name != "name"]
        return replace(self, **{part: [getattr(self, part)[place] for place in kept] for part in parts})


@dataclass(frozen=True)
class Compared(Row):
    """A row of the customization benchmark."""

    found: Sequence[Mapping[str, Any]]
    places: Sequence[Path]

    @property
    def is_bound(self) -> bool:
        return self.depends["of"] in BOUNDS

    @property
    def labels(self) -> dict[str, str]:
        """What the row is, for the first columns of a table."""
        return {"variant": self.name, "method": self.depends["method"]}

    @cached_property
    def entries(self) -> dict[str, Entry | None]:
        return {column.key: self._entry(column.key) for column in COLUMNS}

    def _entry(self, key: str) -> Entry | None:
        values = [_value(one, key) for one in self.found]
        known = [float(value) for value in values if value is not None]
        if len(known) < len(values) or not known:
            return None
        spread = continual.spread(known)
        low = high = None
        if (sample := self._by_concept(key)) is not None and len(sample) > 1:
            interval = continual.bootstrap(sample)
            low, high = interval.low, interval.high
        return Entry(spread.mean, low, high, spread.deviation if len(known) > 1 else None)

    def _by_concept(self, key: str) -> Array | None:
        """The measure of each concept, averaged over seeds: what is resampled."""
        gathered: dict[str, list[float]] = {}
        for one in self.found:
            each, names = one["each"], one["concepts"]
            if key in WITH_LAST:
                values = each[key]
            elif key == "retrieval_first":
                values, names = each["retrieval"][: ends(len(names))], names[: ends(len(names))]
            elif key == "f_mmd":
                values, names = each[key][:-1], names[:-1]
            elif key == "forgetting":
                values = [then - now for then, now in zip(each["gain_then"], each["gain"], strict=True)][:-1]
                names = names[:-1]
            elif key in ("learned_first10", "learned_last10"):
                count = ends(len(names))
                some = slice(0, count) if key == "learned_first10" else slice(len(names) - count, None)
                values, names = each["gain_then"][some], names[some]
            else:
                return None
            for name, value in zip(names, values, strict=True):
                gathered.setdefault(name, []).append(value)
        return np.array([np.mean(values) for values in gathered.values()]) if gathered else None

    def each(self, key: str) -> Array:
        """A measure of each concept at the end, (concepts,), mean over seeds by place in the stream."""
        return np.mean([np.array(one["each"][key], dtype=float) for one in self.found], axis=0)

    def matrix(self) -> Array | None:
        """Gains (times, concepts), mean over seeds by place in the stream; None for a bound."""
        if any(one.get("matrix") is None for one in self.found):
            return None
        return np.mean([np.array(one["matrix"], dtype=float) for one in self.found], axis=0)

    def over_time(self, first: int | None = None) -> Array | None:
        """Mean gain of all concepts learned so far (or of the first ones) after each, (times,)."""
        matrix = self.matrix()
        if matrix is None:
            return None
        return np.array([matrix[t, : min(t + 1, first or t + 1)].mean() for t in range(len(matrix))])

    def when_learned(self) -> Array | None:
        matrix = self.matrix()
        return None if matrix is None else np.diagonal(matrix).copy()


@dataclass(frozen=True)
class Group:
    """Rows that can be compared: one stream, one length."""

    stream: str
    length: int
    rows: Sequence[Any]
    """`Compared`, or what has its name, labels, seeds and entries: rows of another benchmark."""
    measures: Sequence[Column] = COLUMNS
    counted: str = "concepts"
    """What there are `length` of."""

    @property
    def name(self) -> str:
        return f"{self.stream}-{self.length}"

    def columns(self) -> list[Column]:
        """The measures that any row has."""
        return [column for column in self.measures if any(row.entries[column.key] for row in self.rows)]

    def methods(self) -> list[Any]:
        return [row for row in self.rows if not row.is_bound]

    def shared(self) -> set[int]:
        """The seeds that all methods have; bounds are no methods."""
        seeds = [set(row.seeds) for row in self.methods()]
        return set.intersection(*seeds) if seeds else set()

    def fair(self) -> Self:
        """The rows on the seeds that all methods have, for another seed has another order; as it is without any."""
        shared = self.shared()
        rows = [row.on(shared) for row in self.rows if shared & set(row.seeds)]
        return replace(self, rows=rows) if shared else self

    def best(self) -> dict[str, str]:
        """For each measure the best of the methods, on the seeds that all of them have."""
        found, methods = {}, self.fair().methods() if self.shared() else []
        for column in self.measures:
            means = {row.name: entry.mean for row in methods if (entry := row.entries[column.key]) is not None}
            if column.better and len(means) > 1:
                found[column.key] = (min if column.better == "low" else max)(means, key=lambda name: means[name])
        return found


def _value(found: Mapping[str, Any], key: str) -> float | None:
    """A measure of one cell; two are not among its own numbers, but means of those of its concepts."""
    each = found["each"]
    if found.get("matrix") is None and key in ("retrieval_then", "retrieval_first"):
        return None  # a bound is not learned in sequence: it has no first concepts, and no earlier time
    if key == "retrieval_then":
        return float(np.mean(each[key])) if key in each else None
    if key == "retrieval_first":
        return float(np.mean(each["retrieval"][: ends(len(found["concepts"]))])) if "retrieval" in each else None
    return found.get(key)


def ends(length: int) -> int:
    """How many concepts `first` and `last` are, as `metrics.continual.saturation` takes them."""
    return max(1, min(10, length // 2))


def gather(folder: Path) -> list[Group]:
    """Every group of finished cells. Raises SettingsError where there are none."""
    groups: dict[tuple[str, int], dict[str, list[Any]]] = {}
    for one in results.finished(folder):
        cell = one[0]["cell"]
        groups.setdefault((Path(cell["stream"]).stem, cell["length"]), {}).setdefault(cell["variant"], []).append(one)
    order = {name: place for place, name in enumerate(ROWS)}
    made = []
    for (stream, length), rows in sorted(groups.items()):
        compared = []
        for name in sorted(rows, key=lambda name: (order.get(name, len(order)), name)):
            cells = sorted(rows[name], key=lambda one: one[0]["cell"]["seed"])
            compared.append(Compared(name, *(tuple(part) for part in zip(*cells, strict=True))))
        made.append(Group(stream, length, compared))
    return made
