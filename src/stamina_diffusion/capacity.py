"""How full a model is: how much of each layer the concepts move, how far, and how much they move the same entries.

Pure functions of recorded changes. A change is what one concept added to its sites; words are left out, since a new
word is its own and hurts nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .sites import changes_in, is_word

Changes = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """One layer, after a concept."""

    density: float
    """Share of its entries that the newest concept moved."""
    norm: float
    """‖Δ‖ / ‖W‖, of the newest concept's change and the base's weight."""
    moved: float
    """Share of its entries that any concept moved."""
    sum_norm: float
    """‖Σ Δ‖ / ‖W‖, of all concepts' changes together."""
    stable_rank: float
    """Of Σ Δ: how many directions the concepts use; 0 when nothing moved."""
    rank_limit: int
    """The most that the stable rank could be."""


@dataclass(frozen=True)
class Overlap:
    """How much two concepts' changes meet."""

    share: float
    """Of the entries that either moves, the share that both move."""
    cosine: float
    """Of the two changes as vectors: 1 when they push the same way, −1 when one undoes the other."""


@dataclass(frozen=True)
class Reach:
    """What one change did to a network that others had changed before."""

    norm: float | None
    """‖Δ‖ / ‖W‖, over all weights that it changed, as they were at the start; None where it changed none."""
    overlap: float | None
    """Cosine of |Δ| with |what the earlier ones moved in all|: 0 where they share no entry, 2/π = 0.64 of dense changes
    that are normal and independent; None where nothing moved earlier."""


@dataclass(frozen=True)
class Meter:
    """What the newest concept took, and what there is in all."""

    layers: dict[str, Layer]
    overlaps: dict[str, Overlap]
    """With each earlier concept, by its name."""

    @property
    def overlap(self) -> float:
        """The mean share over the earlier concepts; 0 when there is none."""
        return sum(o.share for o in self.overlaps.values()) / len(self.overlaps) if self.overlaps else 0.0


def meter(newest: Changes, earlier: Iterable[tuple[str, Changes]], weights: Changes) -> Meter:
    """Measure the newest concept's changes against the earlier concepts' and the base's weights.

    `weights` are the model's, with all these changes folded in. `earlier` is read once, one concept at a time, so that
    not all need to be in memory together.
    """
    newest = weight_changes(newest)
    total = {name: change.double() for name, change in newest.items()}
    moved = {name: change != 0 for name, change in newest.items()}
    overlaps = {}
    for name, changes in earlier:
        changes = weight_changes(changes)
        overlaps[name] = overlap(newest, changes)
        for site, change in changes.items():
            total[site] = total[site] + change if site in total else change.double()
            moved[site] = moved[site] | (change != 0) if site in moved else change != 0
    layers = {}
    for site, change in total.items():
        own = newest.get(site)
        size = float((weights[site].double() - change).norm()) or 1.0
        layers[site] = Layer(
            density=0.0 if own is None else density(own),
            norm=0.0 if own is None else float(own.double().norm()) / size,
            moved=float(moved[site].double().mean()),
            sum_norm=float(change.norm()) / size,
            stable_rank=stable_rank(change),
            rank_limit=min(_matrix(change).shape),
        )
    return Meter(layers, overlaps)


def weight_changes(changes: Changes) -> dict[str, Tensor]:
    """The changes of weights alone, without the word's and without its start."""
    return {name: change for name, change in changes_in(changes).items() if not is_word(name)}


def density(change: Tensor) -> float:
    """The share of a change's entries that are not zero.

    >>> density(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    0.25
    """
    return int(change.count_nonzero()) / change.numel()


def overlap(one: Changes, other: Changes) -> Overlap:
    """How much two concepts' changes meet, over all sites of both; a site that one has not counts as zero in it.

    >>> overlap({"w": torch.tensor([3.0, 0.0, 4.0])}, {"w": torch.tensor([3.0, 4.0, 0.0])})
    Overlap(share=0.3333333333333333, cosine=0.36)
    """
    both = either = 0
    product = 0.0
    for name in one.keys() | other.keys():
        if name not in one or name not in other:
            either += int((one[name] if name in one else other[name]).count_nonzero())
            continue
        first, second = one[name] != 0, other[name] != 0
        both += int((first & second).sum())
        either += int((first | second).sum())
        product += float((one[name].double() * other[name].double()).sum())
    lengths = _length(one) * _length(other)
    return Overlap(both / either if either else 0.0, product / lengths if lengths else 0.0)


def reach(changes: Changes, before: Changes, start: Changes) -> Reach:
    """How far a change went, and how much of it on what was moved already; the weights were `before` it and at `start`.

    >>> one, two = torch.tensor([-3.0, 0.0, 4.0]), torch.tensor([3.0, 4.0, 0.0])
    >>> reach({"w": two}, {"w": 2 + one}, {"w": torch.full((3,), 2.0)}).overlap
    0.36
    """
    now = weight_changes(changes)
    size = _length({name: start[name] for name in now})
    earlier = {name: (before[name] - start[name]).abs() for name in now}
    moved = any(bool(one.any()) for one in earlier.values())
    met = overlap(earlier, {name: change.abs() for name, change in now.items()}) if moved else None
    return Reach(_length(now) / size if size else None, met.cosine if met else None)


def _length(changes: Changes) -> float:
    return sum(float(change.double().square().sum()) for change in changes.values()) ** 0.5


def stable_rank(change: Tensor) -> float:
    """‖S‖²_F / ‖S‖²_2 of a matrix (a convolution as (out, rest)): between 1 and its rank; 0 for zero.

    >>> stable_rank(torch.eye(3))
    3.0
    """
    matrix = _matrix(change).double()
    # The Gram matrix of the shorter side: its largest eigenvalue is ‖S‖²_2, without the singular vectors.
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    largest = float(torch.linalg.eigvalsh(gram)[-1])
    return float(gram.trace()) / largest if largest > 0 else 0.0


def _matrix(change: Tensor) -> Tensor:
    return change.reshape(change.shape[0], -1) if change.dim() > 1 else change.reshape(1, -1)


def from_plain(plain: Mapping[str, Any]) -> Meter | None:
    """A meter of the plain values that `dataclasses.asdict` made of one; None when there are none."""
    if not plain:
        return None
    return Meter(
        {name: Layer(**layer) for name, layer in plain["layers"].items()},
        {name: Overlap(**overlap) for name, overlap in plain["overlaps"].items()},
    )
