"""SD-LoRA: what was learned stays as a direction, and how far to go along it is learned anew (arXiv 2501.13198)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..compact import LowRankChange
from ..deltas import Delta, LowRank
from ..method import Changes, Memory, weights
from ..sites import Site
from .lora import LoRA


class Decoupled(Delta):
    """Δ = Σ_k a_k D_k + B A, D_k = U_k V_k of norm ‖U_k‖ = ‖V_k‖ = 1 given; a, B and A are learned, a from zero.

    a_k is how much further it goes along D_k than before: a weight decay then leaves what was learned where it is.
    U (out, Σ ranks) and V (Σ ranks, in) hold the factors of all D_k side by side; `of` (Σ ranks) says whose each is.
    """

    def __init__(self, change: LowRank, ups: Tensor, downs: Tensor, of: Tensor) -> None:
        super().__init__()
        self.change = change
        self.further = nn.Parameter(torch.zeros(int(of.max()) + 1))
        # Neither parameters nor buffers: they are in the method's memory, and no checkpoint needs them again.
        self.given = (ups, downs, of)

    def forward(self) -> Tensor:
        self.given = ups, downs, of = tuple(tensor.to(self.further.device) for tensor in self.given)
        up, down = self.change.factors()
        change = LowRankChange(torch.cat([ups * self.further[of.long()], up], 1), torch.cat([downs, down]))
        return change if self.training else change.dense()


@dataclass(frozen=True)
class SDLoRA(LoRA):
    """W_t = W_init + Σ_{k<t} α_k D_k + s · B_t A_t, D_k = B_k A_k / (‖B_k‖ ‖A_k‖); all α_k learned (arXiv 2501.13198).

    The paper's α_t of the new direction only scales B_t A_t, so it is taken from it: α_t = s ‖B_t‖ ‖A_t‖. Each α_k
    starts where it ended, so that the network starts unchanged, and each weight has its own; the authors' code starts
    them all at 0.8 and has one for all layers. Its variants with fewer ranks or with distillation are not here.
    """

    name: ClassVar[str] = "sd-lora"
    paper: ClassVar[str] = "arXiv 2501.13198"
    magnitude_rate: float = 5e-3
    """Learning rate of the α_k, which are as long as a change is, not as one of its entries."""

    @property
    def additive(self) -> bool:
        return False

    @property
    def divisible(self) -> bool:
        return True

    def rate_of(self, site: Site, parameter: str) -> float:
        return self.magnitude_rate if parameter == "further" else super().rate_of(site, parameter)

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change, name = super().delta(site, memory), site.name
        if not isinstance(change, LowRank) or f"magnitudes/{name}" not in memory:
            return change
        return Decoupled(change, *(memory[f"{what}/{name}"] for what in ("ups", "downs", "of")))

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept = dict(memory)
        for name, change in weights(changes).items():
            delta = change.delta
            new = delta.change if isinstance(delta, Decoupled) else delta
            if not isinstance(new, LowRank):
                continue
            up, down = (factor.detach() for factor in new.factors())
            length = up.norm() * down.norm()
            found = {
                "ups": up / up.norm().clamp(min=1e-12),
                "downs": down / down.norm().clamp(min=1e-12),
                "of": up.new_zeros(len(down)),
                "magnitudes": (change.share * length).view(1),
            }
            if isinstance(delta, Decoupled):
                before = memory[f"magnitudes/{name}"]
                # A merge folds a share of how far each went.
                gone = before + change.share * delta.further.detach()
                found["magnitudes"] = torch.cat([gone, found["magnitudes"]])
                found["of"] = torch.cat([memory[f"of/{name}"], found["of"] + len(before)])
                found["ups"] = torch.cat([memory[f"ups/{name}"], found["ups"]], 1)
                found["downs"] = torch.cat([memory[f"downs/{name}"], found["downs"]])
            kept |= {f"{what}/{name}": value for what, value in found.items()}
        return kept
