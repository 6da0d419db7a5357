"""Fine-tuning, one concept after another: every entry of the chosen weights is free.

With the keys and values of cross-attention it is sequential Custom Diffusion (arXiv 2212.04488); with the whole U-Net,
sequential DreamBooth (arXiv 2208.12242), with prior images if asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..deltas import Delta, Free
from ..method import Memory, Method, Need, Scope
from ..sites import Site


@dataclass(frozen=True)
class FineTune(Method):
    """W_t = W_{t−1} + Δ_t, Δ_t free."""

    name: ClassVar[str] = "fine-tune"
    paper: ClassVar[str] = "arXiv 2208.12242, arXiv 2212.04488"
    rate: float = 5e-6
    weights: Literal["cross-attention", "network"] = "cross-attention"
    class_word: bool = False
    prior: bool = True

    @property
    def scope(self) -> Scope:
        return self.weights

    @property
    def needs(self) -> frozenset[Need]:
        asked: dict[Need, bool] = {"class word": self.class_word, "prior images": self.prior}
        return frozenset(need for need, wanted in asked.items() if wanted)

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        return Free(site.shape)
