"""STAMINA: low-rank changes under a learned hard mask, and words learned through a small MLP (arXiv 2311.18763).

The components are certain from the paper's abstract; the equations below are our reconstruction (docs/reconstruction.md
names every unknown and the option that stands for it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..compact import LowRankChange, MaskedChange
from ..deltas import Delta, Free, LowRank, WordMLP
from ..errors import SettingsError
from ..method import Changes, Memory, weights
from ..sites import Site
from .c_lora import CLoRA

Activation = Literal["relu", "gelu", "none"]
MaskForm = Literal["full", "gates", "none"]
_ACTIVATIONS = {"relu": torch.relu, "gelu": nn.functional.gelu, "none": lambda x: x}


class LowRankMLP(nn.Module):
    """Logits L (out, in) of a two-layer MLP over a constant input, the index of a column of W (M1, M2).

    H = φ(C), C (in, rank); L = (H D)ᵀ + b, D (rank, out). The constant one-hot input makes C the first layer itself.
    """

    def __init__(self, rows: int, columns: int, rank: int, activation: Activation, bias: float) -> None:
        super().__init__()
        self.activation = activation
        self.first = nn.Parameter(torch.empty(columns, rank))
        self.second = nn.Parameter(torch.randn(rank, rows) * 0.02)
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        nn.init.kaiming_uniform_(self.first, a=math.sqrt(5))

    def forward(self) -> Tensor:
        return (_ACTIVATIONS[self.activation](self.first) @ self.second).T + self.bias

    def factors(self) -> tuple[Tensor, Tensor]:
        """The logits as a product (out, rank + 1)(rank + 1, in); the bias is the last column, times ones."""
        hidden = _ACTIVATIONS[self.activation](self.first)
        left = torch.cat([self.second.T, self.bias.expand(self.second.shape[1], 1)], 1)
        right = torch.cat([hidden.T, hidden.new_ones(1, len(hidden))])
        return left, right


def hard(logits: Tensor, temperature: float, training: bool) -> Tensor:
    """A mask of zeros and ones.

    Training: m = 1[p > ½] + p − sg(p), p = σ((L + g)/τ), g ~ Logistic(0, 1): the straight-through Gumbel-sigmoid (M3;
    arXiv 1611.01144). Else m = 1[L > 0] (M4).
    """
    if not training:
        return (logits > 0).to(logits.dtype)
    uniform = torch.rand_like(logits).clamp_(1e-6, 1 - 1e-6)
    return straight_through(logits + uniform.log() - (1 - uniform).log(), temperature)


def straight_through(noisy: Tensor, temperature: float) -> Tensor:
    """M3 of logits with their noise, L + g."""
    soft = torch.sigmoid(noisy / temperature)
    # The difference in brackets is exactly 0; added from left to right, 1 + p − p would be 0.99999994 at times.
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


class Settling(Delta):
    """A change whose mask is noisy while it is trained; one that settles only until `turn`, from there on 1[L > 0]."""

    settled: Tensor | None

    def __init__(self, temperature: float, settles: bool) -> None:
        super().__init__()
        self.temperature = temperature
        # A buffer goes into the checkpoint: a run that is resumed has the same mask.
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool) if settles else None)

    def turn(self) -> None:
        if self.settled is not None:
            self.settled.fill_(True)

    @property
    def noisy(self) -> bool:
        return self.training and not self.settled

    def mask_of(self, logits: Tensor) -> Tensor:
        if self.training and self.settled:
            return straight_through(logits, self.temperature)
        return hard(logits, self.temperature, self.training)


class HardMasked(Settling):
    """Δ = (B A) ⊙ M, M ∈ {0, 1} of the same shape (S1)."""

    def __init__(self, change: LowRank, logits: LowRankMLP, temperature: float, settles: bool = False) -> None:
        super().__init__(temperature, settles)
        self.change, self.mask = change, logits

    def forward(self) -> Tensor:
        up, down = self.change.factors()
        if not self.noisy:
            return (up @ down) * self.mask_of(self.mask())
        # The same as with `hard` in training mode, without ever holding a matrix of the site's shape.
        return MaskedChange(up, down, *self.mask.factors(), self.temperature)

    def open(self) -> Tensor:
        """The mean of P(mask entry = 1), differentiable."""
        return torch.sigmoid(self.mask()).mean()


class HardGated(Settling):
    """Δ = (B A) ⊙ (m_out m_inᵀ) = (diag(m_out) B)(A diag(m_in)): masked rows and columns, and still of low rank."""

    def __init__(
        self, change: LowRank, rows: LowRankMLP, columns: LowRankMLP, temperature: float, settles: bool = False
    ) -> None:
        super().__init__(temperature, settles)
        self.change, self.mask_rows, self.mask_columns = change, rows, columns

    def forward(self) -> Tensor:
        rows, columns = self.mask_of(self.mask_rows()), self.mask_of(self.mask_columns())
        up, down = self.change.factors()
        change = LowRankChange(up * rows, down * columns)
        return change if self.training else change.dense()

    def open(self) -> Tensor:
        return torch.sigmoid(self.mask_rows()).mean() * torch.sigmoid(self.mask_columns()).mean()


@dataclass(frozen=True)
class Stamina(CLoRA):
    """W_t = W_{t−1} + (B_t A_t) ⊙ M_t (S2), L = L_diff + λ ‖ |S_{t−1}| ⊙ Δ_t ‖² (S3, S4), v*_t = MLP_t(1) (S5)."""

    name: ClassVar[str] = "stamina"
    paper: ClassVar[str] = "arXiv 2311.18763"
    mask: MaskForm = "full"
    """One gate an entry; one a row times one a column, which keeps the change low-rank; or none."""
    mask_rank: int = 16
    """r_m, the width of the mask's MLP."""
    mask_activation: Activation = "relu"
    mask_bias: float = 2.0
    """Where the logits start: 2 opens 88 % of the entries, so that the start is near C-LoRA."""
    mask_rate: float | None = None
    """Learning rate of the mask; the weights' when None."""
    temperature: float = 1.0
    settle: float = 1.0
    """After which part of a concept's steps the mask's noise g is left out; 1 for never.

    The weights then learn under the mask that is folded, M = 1[L > 0], instead of under a noisy one to the end.
    """
    sparsity: float = 0.0
    """λ_s of a term λ_s · mean P(mask entry = 1); the paper may have none."""
    word_mlp: bool = True
    word_width: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.settle <= 1:
            raise SettingsError(f"settle is {self.settle}", do="Give settle a value from 0 to 1.")

    @property
    def turn(self) -> float:
        return self.settle

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        if site.role == "token":
            return WordMLP(site.shape, self.word_width) if self.word_mlp else Free(site.shape)
        if site.role == "head":
            return Free(site.shape)
        change = LowRank(site.shape, self.rank, self.scale)
        rows, columns = site.shape
        if self.mask == "full":
            return HardMasked(change, self._logits(rows, columns), self.temperature, self.settle < 1)
        if self.mask == "gates":
            return HardGated(change, self._logits(rows, 1), self._logits(1, columns), self.temperature, self.settle < 1)
        return change

    def _logits(self, rows: int, columns: int) -> LowRankMLP:
        return LowRankMLP(rows, columns, self.mask_rank, self.mask_activation, self.mask_bias)

    def rate_of(self, site: Site, parameter: str) -> float:
        if parameter.startswith("mask") and self.mask_rate is not None:
            return self.mask_rate
        return super().rate_of(site, parameter)

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        cost = super().penalty(changes, memory)
        masks = [c.delta.open() for c in weights(changes).values() if isinstance(c.delta, HardMasked | HardGated)]
        if self.sparsity and masks:
            cost = cost + self.sparsity * torch.stack(masks).mean()
        return cost
