"""LoRA, one concept after another, each folded before the next (Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..deltas import Delta, Free, LowRank
from ..method import Memory, Method, Need, Scope
from ..sites import Site


@dataclass(frozen=True)
class LoRA(Method):
    """W_t = W_{t−1} + s · B_t A_t (arXiv 2106.09685, equation 3)."""

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "arXiv 2106.09685"
    rank: int = 16
    scaling: Literal["1", "1/r"] = "1"
    """s. The equations carry none; the first author's other code has 1/r."""
    class_word: bool = False
    prior: bool = True

    @property
    def scope(self) -> Scope:
        return "cross-attention"

    @property
    def needs(self) -> frozenset[Need]:
        asked: dict[Need, bool] = {"class word": self.class_word, "prior images": self.prior}
        return frozenset(need for need, wanted in asked.items() if wanted)

    @property
    def scale(self) -> float:
        return 1.0 if self.scaling == "1" else 1.0 / self.rank

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        return LowRank(site.shape, self.rank, self.scale) if site.role == "weight" else Free(site.shape)
