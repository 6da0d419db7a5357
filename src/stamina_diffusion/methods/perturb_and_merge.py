"""Perturb and merge: folded where all tasks together lose least, and trained to bear the merge (arXiv 2505.22389)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..deltas import Delta
from ..errors import SettingsError
from ..method import Changes, Memory, weights
from ..sites import Site
from .merged import Merged


class Perturbed(Delta):
    """(1 + e) Δ in training, e one of 0, ε and −ε for all weights of a step alike; Δ else."""

    def __init__(self, change: Delta, step: float, plain: float) -> None:
        super().__init__()
        self.change, self.step, self.plain = change, step, plain

    def forward(self) -> Tensor:
        change = self.change()
        if not self.training:
            return change
        # The task vector moves as a whole: every weight draws from the seed of the step, and not one after another.
        draw = torch.rand((), generator=torch.Generator().manual_seed(torch.initial_seed()))
        if draw < self.plain:
            return change
        return change * (1 + self.step if draw < (1 + self.plain) / 2 else 1 - self.step)


@dataclass(frozen=True)
class PerturbAndMerge(Merged):
    """W_t = W_{t−1} + α_t Δ_t, α_t = argmin_α Σ_{i≤t} ½ (W_t − W_i*)ᵀ F_i (W_t − W_i*) (arXiv 2505.22389).

    F_i is the diagonal of the empirical Fisher information of task i, in the place of its Hessian. The new task loses
    ½ (1 − α)² Δᵀ H Δ to the merge; L + λ Δᵀ H Δ is trained by taking L at W + Δ with probability p and at W + (1 ± ε) Δ
    with (1 − p)/2 each, λ = ε² (1 − p)/2. ε, p and the pictures of a Fisher are ours.
    """

    name: ClassVar[str] = "perturb-and-merge"
    paper: ClassVar[str] = "arXiv 2505.22389"
    step: float = 0.5
    """ε, in units of the change; 0 only merges."""
    plain: float = 1 / 3
    """p."""
    pictures: int = 64
    """How many single pictures' gradients make the Fisher of a concept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.plain <= 1:
            raise SettingsError(f"plain is {self.plain}", do="Give plain a value from 0 to 1.")
        if self.pictures < 1:
            raise SettingsError(f"pictures is {self.pictures}", do="Give pictures a value of 1 or more.")

    @property
    def fisher_batches(self) -> int:
        return max(self.pictures, self.over.fisher_batches)

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change = self.over.delta(site, memory)
        if change is None or site.role != "weight" or not self.step:
            return change
        return Perturbed(change, self.step, self.plain)

    def rate_of(self, site: Site, parameter: str) -> float:
        return self.over.rate_of(site, parameter.removeprefix("change."))

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        return self.over.penalty(self.own(changes), memory)

    def share(self, changes: Changes, memory: Memory) -> float:
        # α = (Δᵀ F_t Δ − Σ_{i<t} (W_{t−1} − W_i*)ᵀ F_i Δ) / Δᵀ Σ_{i≤t} F_i Δ, kept in [0, 1].
        pull = across = 0.0
        for name, change in weights(changes).items():
            fisher, before, slope = _of(change.fisher, name, memory, change.value)
            square = change.value.square()
            pull += float((square * fisher).sum() - (slope * change.value).sum())
            across += float((square * (fisher + before)).sum())
        return min(max(pull / across, 0.0), 1.0) if across else 1.0

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept, part = dict(super().remember(changes, memory)), self.share(changes, memory)
        for name, change in weights(changes).items():
            fisher, before, slope = _of(change.fisher, name, memory, change.value)
            # S_t = Σ_{i≤t} F_i and G_t = Σ_{i≤t} F_i (W_t − W_i*): W_t moved by α Δ, and W_t − W_t* = (α − 1) Δ.
            kept[f"merge-fisher/{name}"] = before + fisher
            kept[f"merge-slope/{name}"] = slope + part * change.value * before + (part - 1) * change.value * fisher
        return kept

    def own(self, changes: Changes) -> Changes:
        return {
            name: change._replace(delta=change.delta.change) if isinstance(change.delta, Perturbed) else change
            for name, change in changes.items()
        }


def _of(fisher: Tensor | None, name: str, memory: Memory, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F_t, S_{t−1} and G_{t−1} of a weight. Raises SettingsError where the change was recorded without its Fisher."""
    if fisher is None:
        raise SettingsError(
            "what is merged cannot be told from the recorded changes alone: it needs the Fisher information",
            do="Nothing was changed. Roll back to before the concept, and learn the later ones again.",
        )
    none = torch.zeros_like(value)
    return fisher, memory.get(f"merge-fisher/{name}", none), memory.get(f"merge-slope/{name}", none)
