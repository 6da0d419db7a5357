"""EWC: keep what earlier concepts needed where they left it, by Fisher information (Kirkpatrick, arXiv 1612.00796)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..method import Changes, Memory, Method, weights
from .custom_diffusion import CustomDiffusion
from .over import Over


@dataclass(frozen=True)
class EWC(Over):
    """L = L_over + λ/2 Σ_i F_i Δ_i² (arXiv 1612.00796, equation 3).

    One Fisher for all earlier concepts, their sum, and one anchor, where the last of them ended (online EWC, arXiv
    1805.06370); only weights are held, words are new. F is of the weights themselves whatever change is trained.
    """

    name: ClassVar[str] = "ewc"
    paper: ClassVar[str] = "arXiv 1612.00796, arXiv 1805.06370"
    over: Method = field(default=CustomDiffusion())
    strength: float = 1e6
    """λ, on the sum over all entries of all sites."""
    pictures: int = 64
    """How many single pictures' gradients make the Fisher of a concept."""
    decay: float = 1.0
    """γ: what is left of the earlier Fisher when another is added; 1 forgets nothing."""

    @property
    def fisher_batches(self) -> int:
        return max(self.pictures, self.over.fisher_batches)

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        return self.over.penalty(changes, memory) + self.strength / 2 * importance(changes, memory)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept = dict(self.over.remember(changes, memory))
        for name, change in weights(changes).items():
            if change.fisher is not None:
                before = memory.get(f"fisher/{name}", torch.zeros_like(change.fisher))
                # F ← γ F + F_t (arXiv 1805.06370, section 3.2).
                kept[f"fisher/{name}"] = self.decay * before + change.fisher
        return kept


def importance(changes: Changes, memory: Memory) -> Tensor | float:
    """Σ_i F_i Δ_i², over all entries of all weights that have a Fisher."""
    terms = [
        (memory[f"fisher/{name}"] * change.value.square()).sum()
        for name, change in weights(changes).items()
        if f"fisher/{name}" in memory
    ]
    return torch.stack(terms).sum() if terms else 0.0
