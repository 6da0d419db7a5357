"""LoRA, merged: each concept's LoRA is trained from the base, and the changes are put together by a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..deltas import Delta, Since
from ..errors import SettingsError
from ..method import Changes, Memory, weights
from ..sites import Site
from .lora import LoRA


@dataclass(frozen=True)
class LoRAMerged(LoRA):
    """W_t = W_init + M_t, M_t a merge of τ_1 ... τ_t, τ_i = B_i A_i (LoRA, arXiv 2106.09685).

    "average": M_t = Σ τ_i / t; "sum": M_t = Σ τ_i (arXiv 2212.04089); "largest": of each entry the τ_i of the largest
    magnitude (arXiv 2407.06322; "magnitude-max merging" of arXiv 2410.04891), one after another.
    """

    name: ClassVar[str] = "lora-merged"
    paper: ClassVar[str] = "arXiv 2106.09685, arXiv 2212.04089, arXiv 2407.06322, arXiv 2410.04891"
    merge: Literal["average", "sum", "largest"] = "average"
    start: Literal["base", "merged"] = "base"
    """What a concept's LoRA is trained on: W_init, or W_{t−1}, whose change is then part of τ_t."""

    def __post_init__(self) -> None:
        if self.merge == "sum" and self.start == "merged":
            do = "Take start = 'base', or method lora, which is the sum of LoRAs trained one on another."
            raise SettingsError("merge is 'sum' and start is 'merged': what was learned would count twice", do=do)

    @property
    def additive(self) -> bool:
        return False

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change, merged = super().delta(site, memory), memory.get(f"merged/{site.name}")
        return change if change is None or merged is None or self.start == "merged" else Since(change, merged)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        before = memory.get("count/merged", torch.zeros(1))
        merged = self._merged(changes, memory)
        return {**memory, "count/merged": before + 1, **{f"merged/{name}": value for name, value in merged.items()}}

    def fold(self, changes: Changes, memory: Memory) -> Mapping[str, Tensor]:
        # The network holds M_{t−1}: what is added to it is the difference.
        steps = {name: value - _before(memory, name, value) for name, value in self._merged(changes, memory).items()}
        return {**super().fold(changes, memory), **steps}

    def _merged(self, changes: Changes, memory: Memory) -> dict[str, Tensor]:
        """M_t from M_{t−1} and τ_t = W_t − W_init."""
        count, merged = float(memory.get("count/merged", torch.zeros(1))), {}
        for name, change in weights(changes).items():
            before = _before(memory, name, change.value)
            task = change.value + before
            if self.merge == "average":
                merged[name] = before + (task - before) / (count + 1)
            elif self.merge == "sum":
                merged[name] = before + task
            else:
                merged[name] = torch.where(task.abs() > before.abs(), task, before)
        return merged


def _before(memory: Memory, name: str, value: Tensor) -> Tensor:
    return memory.get(f"merged/{name}", torch.zeros_like(value))
