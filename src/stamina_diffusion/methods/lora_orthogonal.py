"""LoRA whose next factor starts orthogonal to the last one, column by column (arXiv 2410.04891)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..deltas import Delta, LowRank
from ..method import Changes, Memory, weights
from ..sites import Site
from .lora import LoRA


@dataclass(frozen=True)
class LoRAOrthogonal(LoRA):
    """W_t = W_{t−1} + s · B_t A_t, where each column of A_t starts orthogonal to that of A_{t−1} (arXiv 2410.04891)."""

    name: ClassVar[str] = "lora-orthogonal"
    paper: ClassVar[str] = "arXiv 2410.04891"

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change, last = super().delta(site, memory), memory.get(f"last-down/{site.name}")
        # In one dimension nothing is orthogonal to anything; such a factor starts as LoRA's does.
        if isinstance(change, LowRank) and last is not None and change.rank > 1:
            change.down.data.copy_(orthogonal_columns(last))
        return change

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        factors = {name: c.delta.down for name, c in weights(changes).items() if isinstance(c.delta, LowRank)}
        return {**memory, **{f"last-down/{name}": down.detach().clone() for name, down in factors.items()}}


def orthogonal_columns(last: Tensor) -> Tensor:
    """For each column a of `last` (rank, in) a unit vector v with v · a = 0: the last right-singular vector of aᵀ."""
    return torch.linalg.svd(last.T.unsqueeze(1), full_matrices=True).Vh[:, -1].T.contiguous()
