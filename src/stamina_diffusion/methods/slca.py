"""SLCA's slow learner: the whole network at a small rate, the new classes' rows at a large one (arXiv 2303.05118)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .fine_tune import FineTune


@dataclass(frozen=True)
class SLCA(FineTune):
    """W_t = W_{t−1} + Δ_t, Δ_t free, its rate far below that of the new rows (arXiv 2303.05118).

    The other half of SLCA, the alignment of the classifier, is the head `aligned`, over any method. The rates are ours.
    """

    name: ClassVar[str] = "slca"
    paper: ClassVar[str] = "arXiv 2303.05118"
    rate: float = 1e-5
    word_rate: float = 1e-3
    weights: Literal["cross-attention", "network"] = "network"
    prior: bool = False
