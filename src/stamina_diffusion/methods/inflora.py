"""InfLoRA: a LoRA whose way in is designed off what the old tasks see, and then frozen (arXiv 2404.00228)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..compact import LowRankChange
from ..deltas import Delta
from ..errors import SettingsError
from ..method import Changes, Memory, weights
from ..sites import Site
from .guard import extended
from .lora import LoRA


class Designed(Delta):
    """Δ = B A with A (rank, in) given for good and B (out, rank) learned from zero."""

    def __init__(self, rows: int, down: Tensor) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(rows, len(down)))
        # Neither a parameter nor a buffer: it is made again from the memory and the same pictures.
        self.down = down

    def forward(self) -> Tensor:
        self.down = self.down.to(self.up.device)
        change = LowRankChange(self.up.clone(), self.down)
        return change if self.training else change.dense()


@dataclass(frozen=True)
class InfLoRA(LoRA):
    """W_t = W_{t−1} + s · B_t A_t, only B_t learned; the rows of A_t lie in N_t ∩ M_t^⊥ (arXiv 2404.00228).

    N_t is spanned by what the layer sees of the new task, M_t by what it saw of the old ones, where a layer's gradients
    lie: A_t holds the leading directions of the first outside the second. M_t grows as in GPM (arXiv 2103.09762) until
    ε of the new inputs lies inside, ε rising from `energy` towards `last_energy` over `tasks`. The paper's DualGPM
    keeps the smaller of M_t and its complement; one of them says the same. What the paper calls A is B here.
    """

    name: ClassVar[str] = "inflora"
    paper: ClassVar[str] = "arXiv 2404.00228, arXiv 2103.09762"
    energy: float = 0.98
    last_energy: float = 1.0
    tasks: int = 10
    criterion: Literal["covariance", "inputs"] = "covariance"
    """What ε is a share of: the squares of the eigenvalues of the mean x xᵀ, as in the authors' code, or of the inputs
    themselves, the eigenvalues, as GPM's equation has it."""
    batches: int = 16
    """How many batches of the new task its inputs are taken from, before and after; the authors take every picture."""

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise SettingsError(f"tasks is {self.tasks}", do="Give tasks a value of 1 or more.")
        for name in ("energy", "last_energy"):
            if not 0 < getattr(self, name) <= 1:
                do = f"Give {name} a value above 0 and at most 1."
                raise SettingsError(f"{name} is {getattr(self, name)}", do=do)

    @property
    def input_batches(self) -> int:
        return self.batches

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        if site.role != "weight":
            return super().delta(site, memory)
        moment = _seen(site.inputs, site)
        span = memory.get(f"seen/{site.name}", moment.new_zeros(len(moment), 0))
        down = leading(moment, span.to(moment), self.rank)
        # As long as LoRA's own rows are at their start, E‖a‖² = 1/3.
        down = self.scale / math.sqrt(3) * down.to(site.value.dtype).cpu()
        return Designed(site.shape[0], down) if len(down) else None

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept, learned = dict(memory), float(memory.get("count/inflora", torch.zeros(1)))
        # Below `last_energy` even in a longer stream: all of the inputs are all directions, and none would be left.
        rise = min(learned, self.tasks - 1) / self.tasks
        energy = self.energy + (self.last_energy - self.energy) * rise
        for name, change in weights(changes).items():
            moment = _seen(change.inputs, change.site)
            rows = moment if self.criterion == "covariance" else root(moment)
            span = memory.get(f"seen/{name}", moment.new_zeros(len(moment), 0))
            kept[f"seen/{name}"] = extended(span.to(moment), rows, energy)
        return {**kept, "count/inflora": torch.tensor([learned + 1])}


def leading(moment: Tensor, span: Tensor, count: int) -> Tensor:
    """The `count` leading eigenvectors of P C P, P = 1 − M Mᵀ, as rows, fewer if fewer are there.

    C (in, in) is the mean x xᵀ and M (in, k) has orthonormal columns. Computed in float64.
    """
    basis, inputs = span.double(), moment.double()
    off = torch.eye(len(inputs), dtype=inputs.dtype, device=inputs.device) - basis @ basis.T
    values, vectors = torch.linalg.eigh(off @ inputs @ off)
    # A direction without inputs could lie anywhere, also where the old tasks are.
    least = len(inputs) * torch.finfo(moment.dtype).eps * inputs.diagonal().max()
    there = int((values > least).sum())
    return vectors.flip(1)[:, : min(count, there)].T.to(moment.dtype)


def root(moment: Tensor) -> Tensor:
    """Rows r with Σ r rᵀ = `moment`: as good as the inputs themselves."""
    values, vectors = torch.linalg.eigh(moment.double())
    return (values.clamp(min=0).sqrt() * vectors).T.to(moment.dtype)


def _seen(inputs: Tensor | None, site: Site) -> Tensor:
    if inputs is None:
        raise SettingsError(
            f"nothing is known of what {site.name} sees, and InfLoRA is designed from it",
            do="Learn through `learn`, which shows it; from recorded changes alone it cannot be told.",
        )
    return inputs
