"""C-LoRA: low-rank changes that are kept off the entries that earlier ones moved (Smith et al., arXiv 2304.06027)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..compact import weighted_squares
from ..method import Changes, Memory, weights
from .lora import LoRA


@dataclass(frozen=True)
class CLoRA(LoRA):
    """W_t = W_init + Σ_{t'<t} B_t' A_t' + B_t A_t (equation 2), with the self-regularisation of equation 3."""

    name: ClassVar[str] = "c-lora"
    paper: ClassVar[str] = "arXiv 2304.06027"
    strength: float = 1e8
    """λ, on the sum over all entries of all sites."""

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        return self.strength * forgetting(changes, memory)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        return moved_further(changes, memory)


def forgetting(changes: Changes, memory: Memory) -> Tensor | float:
    """L_forget = Σ_sites ‖ |Σ_{t'<t} Δ_t'| ⊙ Δ_t ‖²_F (arXiv 2304.06027, equation 3)."""
    terms = [
        weighted_squares(memory[f"moved/{name}"], change.value)
        for name, change in weights(changes).items()
        if f"moved/{name}" in memory
    ]
    return torch.stack(terms).sum() if terms else 0.0


def moved_further(changes: Changes, memory: Memory) -> Memory:
    """Memory with Σ_{t'≤t} Δ_t' in place of Σ_{t'<t} Δ_t', for every weight."""
    moved = {}
    for name, change in weights(changes).items():
        before = memory.get(f"moved/{name}")
        value = change.value.detach()
        moved[f"moved/{name}"] = value.clone() if before is None else before + value
    return {**memory, **moved}
