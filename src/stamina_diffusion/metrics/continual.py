"""What a matrix of scores over time says: how much was learned, kept, forgotten, and whether learning saturates.

A score matrix is (times, concepts): row t holds the score of every concept after concept t was learned, nan for those
that were not learned yet, above the diagonal. Rows that were not measured may be nan, all but the diagonal and the last
row. Higher is better: of a distance, such as MMD, give the negative.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def average(matrix: ArrayLike) -> float:
    """The mean score of all concepts at the end: the mean of the last row.

    >>> average([[1.0, np.nan], [0.5, 0.7]])
    0.6
    """
    return float(_scores(matrix)[-1].mean())


def forgetting_max(matrix: ArrayLike) -> float:
    """Mean over all concepts but the last of (best score at any time − final score); never negative, 0 of one concept.

    The definition of Chaudhry et al. (arXiv 1801.10112) with the final time among those that may be the best, and of
    Low-Rank Continual Personalization (arXiv 2410.04891), there over all concepts: the last adds 0.

    >>> round(forgetting_max([[0.4, np.nan, np.nan], [0.8, 0.5, np.nan], [0.2, 0.6, 0.9]]), 3)
    0.3
    """
    scores = _scores(matrix)
    drops = np.nanmax(scores, axis=0)[:-1] - scores[-1, :-1]
    return float(drops.mean()) if len(drops) else 0.0


def forgetting_since(matrix: ArrayLike) -> float:
    """Mean over all concepts but the last of (score when just learned − final score); negative where later ones helped.

    >>> round(forgetting_since([[0.4, np.nan, np.nan], [0.8, 0.5, np.nan], [0.2, 0.6, 0.9]]), 3)
    0.05
    """
    scores = _scores(matrix)
    drops = (np.diagonal(scores) - scores[-1])[:-1]
    return float(drops.mean()) if len(drops) else 0.0


def learned_when_learned(matrix: ArrayLike) -> Array:
    """Each concept's score when it was just learned, (concepts,): the diagonal. Its fall is saturation.

    >>> learned_when_learned([[0.4, np.nan], [0.8, 0.5]]).tolist()
    [0.4, 0.5]
    """
    return np.diagonal(_scores(matrix)).copy()


class Saturation(NamedTuple):
    """How what is learned changes along the sequence."""

    first: float
    """Mean score when learned of the first concepts."""
    last: float
    """The same of the last concepts."""
    slope: float
    """Change of the score from one concept to the next: least squares over all concepts."""

    @property
    def fall(self) -> float:
        """How much worse the last concepts were learned than the first."""
        return self.first - self.last


def saturation(matrix: ArrayLike, ends: int = 10) -> Saturation:
    """The diagonal's first and last `ends` means (of fewer than 2 · `ends` concepts: its halves) and its slope.

    >>> saturation(np.diag([1.0, 0.75, 0.5, 0.25]), ends=1)
    Saturation(first=1.0, last=0.25, slope=-0.25)
    """
    learned = learned_when_learned(matrix)
    count = max(1, min(ends, len(learned) // 2))
    places = np.arange(len(learned)) - (len(learned) - 1) / 2
    # Least squares of a line over evenly spaced places: Σ (p − p̄) y / Σ (p − p̄)².
    slope = float(places @ learned / (places @ places)) if len(learned) > 1 else 0.0
    return Saturation(float(learned[:count].mean()), float(learned[-count:].mean()), slope)


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: ArrayLike, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """The mean of values of concepts, (concepts,), with the percentile interval of the means of `draws` resamples.

    Of (seeds, concepts) the seeds are averaged first: what is resampled is concepts, whose number is the sample's size.

    >>> bootstrap([0.5, 0.5, 0.5])
    Interval(mean=0.5, low=0.5, high=0.5)
    """
    found = np.asarray(values, dtype=float)
    found = found.mean(axis=0) if found.ndim == 2 else found
    picks = np.random.default_rng(seed).integers(len(found), size=(draws, len(found)))
    low, high = np.quantile(found[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(found.mean()), float(low), float(high))


QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Of Student's t at 97.5 %, of 1, 2 ... 9 degrees of freedom."""


def student(values: ArrayLike) -> Interval:
    """The mean of one number a seed, (seeds,), with Student's 95 % interval of it; of 2 to 10 seeds.

    Raises ValueError for another number of them.

    >>> interval = student([1.0, 2.0, 3.0])
    >>> round(interval.low, 3), round(interval.high, 3)
    (-0.484, 4.484)
    """
    found = np.asarray(values, dtype=float)
    if not 2 <= len(found) <= len(QUANTILES) + 1:
        raise ValueError(f"an interval over seeds is of 2 to {len(QUANTILES) + 1}, and these are {len(found)}")
    half = QUANTILES[len(found) - 2] * float(found.std(ddof=1)) / len(found) ** 0.5
    return Interval(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half)


class Spread(NamedTuple):
    """A mean over seeds, and how far they lie apart."""

    mean: float
    deviation: float
    """Standard deviation, of n − 1; 0 of one seed."""
    low: float
    high: float


def spread(values: ArrayLike) -> Spread:
    """The mean of one number a seed, (seeds,), with standard deviation, least and largest.

    >>> spread([1.0, 2.0, 3.0])
    Spread(mean=2.0, deviation=1.0, low=1.0, high=3.0)
    """
    found = np.asarray(values, dtype=float)
    deviation = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return Spread(float(found.mean()), deviation, float(found.min()), float(found.max()))


def _scores(matrix: ArrayLike) -> Array:
    scores = np.asarray(matrix, dtype=float)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not len(scores):
        raise ValueError(f"a score matrix is (times, concepts), as many of both, and this one is {scores.shape}")
    if np.isnan(scores[-1]).any() or np.isnan(np.diagonal(scores)).any():
        raise ValueError("a score matrix needs its diagonal and its last row, and one of them has a nan")
    return scores
