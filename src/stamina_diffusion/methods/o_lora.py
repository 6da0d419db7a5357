"""O-LoRA: a LoRA kept orthogonal to the input directions of all earlier ones (Wang et al., arXiv 2310.14152)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..deltas import LowRank
from ..method import Changes, Memory, weights
from .lora import LoRA


@dataclass(frozen=True)
class OLoRA(LoRA):
    """W_t = W_{t−1} + s · B_t A_t, L = L_diff + λ Σ_{i<t} ‖A_i A_tᵀ‖² (arXiv 2310.14152, section 3.2).

    The paper writes its factors the other way round: what it calls A is what meets the input, as A does here.
    """

    name: ClassVar[str] = "o-lora"
    paper: ClassVar[str] = "arXiv 2310.14152"
    strength: float = 0.5
    """λ, on the sum over all pairs of rows of all sites."""

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        # L_orth(A_i, A_t) = Σ_{j,k} (A_i A_tᵀ)_{jk}²; the memory has the rows of all A_i, i < t, in one matrix.
        terms = [
            (memory[f"downs/{name}"] @ change.delta.down.T).square().sum()
            for name, change in weights(changes).items()
            if f"downs/{name}" in memory and isinstance(change.delta, LowRank)
        ]
        return self.strength * torch.stack(terms).sum() if terms else 0.0

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept = dict(memory)
        for name, change in weights(changes).items():
            if isinstance(change.delta, LowRank):
                down, before = change.delta.down.detach(), memory.get(f"downs/{name}")
                kept[f"downs/{name}"] = down.clone() if before is None else torch.cat([before, down])
        return kept
