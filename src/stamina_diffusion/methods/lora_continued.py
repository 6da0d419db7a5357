"""LoRA, continued: one LoRA that every concept trains on (arXiv 2410.04891, "naive").

The same paper's "merge and initialise" is method `lora`: each change is folded, and a new LoRA begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..deltas import Delta, LowRank, Since
from ..method import Changes, Memory, weights
from ..sites import Site
from .lora import LoRA


@dataclass(frozen=True)
class LoRAContinued(LoRA):
    """W_t = W_init + s · B_t A_t, where (A_t, B_t) starts as (A_{t−1}, B_{t−1}) (arXiv 2410.04891, "naive")."""

    name: ClassVar[str] = "lora-continued"
    paper: ClassVar[str] = "arXiv 2410.04891"

    @property
    def additive(self) -> bool:
        return False

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change = super().delta(site, memory)
        if not isinstance(change, LowRank) or f"factor-down/{site.name}" not in memory:
            return change
        change.down.data.copy_(memory[f"factor-down/{site.name}"])
        change.up.data.copy_(memory[f"factor-up/{site.name}"])
        return Since(change, change().detach().clone())

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept = dict(memory)
        for name, change in weights(changes).items():
            lora = lora_of(change.delta)
            if lora is not None:
                kept[f"factor-down/{name}"] = lora.down.detach().clone()
                kept[f"factor-up/{name}"] = lora.up.detach().clone()
        return kept


def lora_of(delta: Delta) -> LowRank | None:
    """The whole LoRA that a change is the newest part of; None where there is none."""
    found = delta.change if isinstance(delta, Since) else delta
    return found if isinstance(found, LowRank) else None
