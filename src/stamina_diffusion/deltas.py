"""Changes that more than one method uses: trainable tensors in the shape of their site, zero at the start.

Shapes follow torch: a weight is (out, in), so the papers' x W with W = A B reads W = B A here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .compact import LowRankChange


class Delta(nn.Module):
    """A trainable tensor, a function of its own parameters and nothing else; zero when it is made."""

    def forward(self) -> Tensor:
        """The change, in the shape of its site: in training mode it may be a `Compact` one, else a plain tensor.

        Stochastic changes draw only in training mode.
        """
        raise TypeError(f"{type(self).__name__} does not say what its change is")

    def turn(self) -> None:
        """The method's `turn` has come: for a change that is to keep what it is now."""


class Free(Delta):
    """Every entry is free: Δ itself is the parameter."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        return self.change


class LowRank(Delta):
    """Δ = scale · B A with A (rank, in) and B (out, rank): LoRA (arXiv 2106.09685).

    A starts Kaiming-uniform, B at zero, as in LoRA's own code.
    """

    def __init__(self, shape: torch.Size, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        rows, columns = shape
        self.rank, self.scale = min(rank, rows, columns), scale
        self.down = nn.Parameter(torch.empty(self.rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, self.rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def factors(self) -> tuple[Tensor, Tensor]:
        """scale · B and A, as copies: a change that was handed out keeps its value when the parameters move on."""
        return self.scale * self.up, self.down.clone()

    def forward(self) -> Tensor:
        change = LowRankChange(*self.factors())
        return change if self.training else change.dense()


class WordMLP(Delta):
    """Δ = MLP(1): a word's row as the output of a small network with the fixed input 1 (S5 of `Stamina`).

    Linear(1, width) → GELU → Linear(width, row). The last bias makes the start exactly zero; afterwards
    the network is a change of coordinates in which the row is learned in fewer steps.
    """

    def __init__(self, shape: torch.Size, width: int) -> None:
        super().__init__()
        rows, columns = shape
        self.rows = rows
        self.hidden = nn.Linear(1, width)
        self.out = nn.Linear(width, rows * columns)
        nn.init.normal_(self.hidden.weight)
        nn.init.normal_(self.hidden.bias)
        with torch.no_grad():
            self.out.bias.copy_(-self._hidden() @ self.out.weight.T)

    def _hidden(self) -> Tensor:
        one = self.hidden.weight.new_ones(1)
        return nn.functional.gelu(self.hidden(one))

    def forward(self) -> Tensor:
        return (self._hidden() @ self.out.weight.T + self.out.bias).view(self.rows, -1)


class Since(Delta):
    """Δ = change − before, for a network that holds `before` already: it computes with `change` alone.

    So a method starts again from the pre-trained weights, or trains on what it trained last time, while the network in
    memory is the newest one. Zero when it is made only if `change` is `before` then.
    """

    def __init__(self, change: Delta, before: Tensor) -> None:
        super().__init__()
        self.change = change
        # Neither a parameter nor a buffer: it is in the method's memory, and no checkpoint needs it again.
        self.before = before

    def forward(self) -> Tensor:
        change = self.change()
        self.before = self.before.to(change.device)
        return change - self.before
