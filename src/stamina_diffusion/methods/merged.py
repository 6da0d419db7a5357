"""Only a share of what each concept trained is folded: merging one after another, over any method that only adds.

W_t = (1 − α_t) W_{t−1} + α_t W_t*, where W_t* = W_{t−1} + Δ_t was trained from the merged W_{t−1}; so what is added is
α_t Δ_t. New words and new classes stay as they were trained. With α_t = 1 it is the held method itself, the sum.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import SettingsError
from ..method import Changes, Memory
from .over import Over


@dataclass(frozen=True)
class Merged(Over):
    """W_t = W_{t−1} + α_t Δ_t, Δ_t the change of `over`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.over.divisible:
            raise SettingsError(
                f"{self.name} cannot hold {self.over.name}",
                do="It takes a method that only adds its changes: lora, c-lora, o-lora, inflora, sd-lora, stamina, ...",
            )

    @abc.abstractmethod
    def share(self, changes: Changes, memory: Memory) -> float:
        """α_t, in [0, 1]; 1 with empty memory."""

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        return self.over.remember(self._folded(changes, memory), memory)

    def fold(self, changes: Changes, memory: Memory) -> Mapping[str, Tensor]:
        return self.over.fold(self._folded(changes, memory), memory)

    def _folded(self, changes: Changes, memory: Memory) -> Changes:
        """The changes as they are folded, which is what the held method is to remember."""
        part = self.share(changes, memory)
        return {
            name: change._replace(value=part * change.value, share=part * change.share)
            if change.site.role == "weight"
            else change
            for name, change in self.own(changes).items()
        }

    def own(self, changes: Changes) -> Changes:
        """The changes as the held method knows them."""
        return changes


@dataclass(frozen=True)
class Averaged(Merged):
    """α_t = 1/t: W_t is the mean of W_1* ... W_t* (model averaging, arXiv 2203.05482, of what was trained in turn)."""

    name: ClassVar[str] = "averaged"
    paper: ClassVar[str] = "arXiv 2203.05482"

    def share(self, changes: Changes, memory: Memory) -> float:
        return 1.0 / (_count(memory) + 1)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        return {**super().remember(changes, memory), "count/averaged": torch.tensor([_count(memory) + 1.0])}


def _count(memory: Memory) -> float:
    return float(memory.get("count/averaged", torch.zeros(1)))
