"""Custom Diffusion, merged: each concept learned from the base, all put together in closed form (arXiv 2212.04488)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..deltas import Delta, Since
from ..errors import SettingsError
from ..method import Changes, Memory, Need, features_of, weights
from ..sites import Site
from .custom_diffusion import CustomDiffusion


@dataclass(frozen=True)
class CustomDiffusionMerged(CustomDiffusion):
    """Ŵ = argmin_W ‖(W − W_0) C_regᵀ‖_F so that W C_iᵀ = W_i C_iᵀ for every concept i (arXiv 2212.04488, section 3.2).

    C_i are text features of prompts with word i, C_reg of generic prompts. Each W_i is trained from W_0. Of a concept
    its leading `directions` are held, so that the memory does not grow with the number of prompts; with one concept
    there is nothing to merge, and its change stays whole. The authors' C_reg is of captions of photos, ours of prompts.
    """

    name: ClassVar[str] = "custom-diffusion-merged"
    paper: ClassVar[str] = "arXiv 2212.04488"
    directions: int = 6
    """About as many as the word, its class and the end of two prompts, which the authors' code holds."""
    ridge: float = 1e-2
    """Added to C_regᵀ C_reg, in units of its mean diagonal: a few prompts do not span the text width."""

    def __post_init__(self) -> None:
        if self.scope != "cross-attention":
            do = "Leave weights at 'cross-attention': the merge is by text features, which only keys and values see."
            raise SettingsError(f"weights is {self.scope!r}", do=do)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({*super().needs, "text features"})

    @property
    def additive(self) -> bool:
        return False

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change, merged = super().delta(site, memory), memory.get(f"merged/{site.name}")
        return change if change is None or merged is None else Since(change, merged)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept = dict(memory)
        rows = self._rows(changes)
        before = memory.get("held/text")
        kept["held/text"] = rows if before is None else torch.cat([before, rows])
        for name, change in self._from_base(changes, memory).items():
            wanted, earlier = change @ rows.T, memory.get(f"wanted/{name}")
            kept[f"wanted/{name}"] = wanted if earlier is None else torch.cat([earlier, wanted], 1)
            kept[f"merged/{name}"] = (
                change.clone()
                if earlier is None
                else constrained(kept[f"wanted/{name}"], kept["held/text"], self._gram(changes))
            )
        return kept

    def fold(self, changes: Changes, memory: Memory) -> Mapping[str, Tensor]:
        kept = self.remember(changes, memory)
        steps = {
            name: kept[f"merged/{name}"] - _before(memory, name, change.value)
            for name, change in weights(changes).items()
        }
        return {**super().fold(changes, memory), **steps}

    def _from_base(self, changes: Changes, memory: Memory) -> dict[str, Tensor]:
        """Δ_t = W_t − W_0: the change is since W_{t−1}, which holds what was merged so far."""
        return {name: change.value + _before(memory, name, change.value) for name, change in weights(changes).items()}

    def _rows(self, changes: Changes) -> Tensor:
        """The leading directions of the word's text features, (directions, width)."""
        return torch.linalg.svd(features_of(changes).word, full_matrices=False).Vh[: self.directions].contiguous()

    def _gram(self, changes: Changes) -> Tensor:
        """C_regᵀ C_reg with its ridge, (width, width), float64."""
        generic = features_of(changes).past.generic.double()
        gram = generic.T @ generic
        return gram + self.ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def constrained(wanted: Tensor, rows: Tensor, gram: Tensor) -> Tensor:
    """The change M that is least on generic prompts and meets M c_i = `wanted`_i for every row c_i of `rows`.

    `wanted` (out, K), `rows` (K, width), `gram` (width, width) = C_regᵀ C_reg. Where two rows are nearly one direction
    and want different things, the least-squares answer.
    """
    c, e = rows.double(), wanted.double()
    # d = C (C_regᵀ C_reg)⁻¹;  vᵀ = (V − W_0 Cᵀ)(d Cᵀ)⁻¹;  Ŵ − W_0 = vᵀ d  (arXiv 2212.04488, section 3.2)
    d = torch.linalg.solve(gram.double(), c.T).T
    v = e @ torch.linalg.pinv(d @ c.T, rtol=1e-6, hermitian=True)
    return (v @ d).to(wanted.dtype)


def _before(memory: Memory, name: str, value: Tensor) -> Tensor:
    return memory.get(f"merged/{name}", torch.zeros_like(value))
