"""What the next concept will probably cost: simple rules fitted to the studio's own history, with their uncertainty.

Two things are forecast: by how much the earlier concepts fall when one more is learned, as a straight line over how
much the concepts' changes overlap; and how well the next one is known when it has just been learned, as a straight line
over the number of concepts. With fewer than `LINE_POINTS` observations, or where the overlap is always the same, the
rule is the mean. Each comes with the interval in which 80 % of next values would lie if the rule held and its errors
were normal: with few concepts it is wide, and that is the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LINE_POINTS = 4
RECENT = 3
"""The next concept's overlap is taken to be the mean of this many last ones."""
LIMITS = {"kept": 0.05, "loss": 0.05}
"""A mean fall of the earlier concepts at which we warn: of the kept score, or the relative rise of the loss."""
LEARNED_LIMITS = {"kept": -0.2, "loss": 0.25}
"""How much worse than the first concepts, relatively, the next may be known when just learned before we warn."""
# The 90 % quantile of Student's t for 1, 2, ... degrees of freedom; from 30 on the normal distribution's will do.
_T90 = (3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372, 1.363, 1.356, 1.350, 1.345, 1.341)
_T90 += (1.337, 1.333, 1.330, 1.328, 1.325, 1.323, 1.321, 1.319, 1.318, 1.316, 1.315, 1.314, 1.313, 1.311, 1.310)


@dataclass(frozen=True)
class Forecast:
    """A value to come: what is expected, and the interval in which it lies in 8 of 10 cases if the rule holds."""

    mean: float
    low: float
    high: float
    points: int
    """How many observations the rule was fitted to."""
    rule: str


def predict(xs: Sequence[float], ys: Sequence[float], at: float, over: str) -> Forecast | None:
    """What y will be at x = `at`, from pairs (x, y); None from fewer than two. `over` names x for the person.

    >>> predict([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], 5, "concepts").mean
    0.5
    >>> predict([1], [0.1], 2, "concepts") is None
    True
    """
    count = len(ys)
    if count < 2:
        return None
    middle, level = sum(xs) / count, sum(ys) / count
    spread = sum((x - middle) ** 2 for x in xs)
    if count >= LINE_POINTS and spread > 1e-12:
        slope = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / spread
        errors = [y - (level + slope * (x - middle)) for x, y in zip(xs, ys, strict=True)]
        mean, free, leverage = level + slope * (at - middle), count - 2, 1 / count + (at - middle) ** 2 / spread
        rule = f"straight line over {over}"
    else:
        errors = [y - level for y in ys]
        mean, free, leverage, rule = level, count - 1, 1 / count, "mean so far"
    deviation = (sum(error**2 for error in errors) / free) ** 0.5
    half = (_T90[free - 1] if free <= len(_T90) else 1.2816) * deviation * (1 + leverage) ** 0.5
    return Forecast(round(mean, 12), mean - half, mean + half, count, rule)


def falls_of_the_earlier(falls: Sequence[float], overlaps: Sequence[float]) -> Forecast | None:
    """The mean fall of the earlier concepts when one more is learned.

    `falls` and `overlaps` have one value for each concept from the second on: by how much the earlier ones fell on
    average when it was learned, and the mean share of entries that it moves together with an earlier one.
    """
    if not overlaps:
        return None
    recent = overlaps[-RECENT:]
    return predict(overlaps, falls, sum(recent) / len(recent), "the overlap of changes")


def known_when_learned(scores: Sequence[float]) -> Forecast | None:
    """How well the next concept will be known when it has just been learned, from those before it in order."""
    return predict(range(1, len(scores) + 1), scores, len(scores) + 1, "the number of concepts")
