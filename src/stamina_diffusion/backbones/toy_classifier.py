"""A tiny random classifier of the same kind as a vision transformer, for tests: two blocks, 8×8 pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .. import seeds
from .classifier import MATRICES, Classifier, Matrix, empty_head
from .seeing import Sight

SIDE = 8
PATCH = 4


class Block(nn.Module):
    """x + O softmax(Q x (K x)ᵀ / √width) V x, then a layer of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mix = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.query(tokens) @ self.key(tokens).mT / math.sqrt(tokens.shape[-1])
        tokens = tokens + self.out(scores.softmax(-1) @ self.value(tokens))
        return tokens + torch.tanh(self.mix(tokens))


class Network(nn.Module):
    """Pictures (N, 3, 8, 8) → logits (N, classes)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = empty_head(width)

    def encoded(self, pixels: Tensor) -> Tensor:
        tokens = self.patches(pixels).flatten(2).mT
        tokens = torch.cat([self.first.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.encoded(pixels))


class ToyClassifier(Classifier):
    """A `Network` that learns. The same `seed` makes the same network."""

    network: Network

    def __init__(self, seed: int = 0, sight: Sight = Sight(side=SIDE)) -> None:  # noqa: B008 (it is immutable)
        with seeds.drawing_for(seed, "toy classifier"):
            network = Network()
        super().__init__(network, sight)

    @property
    def head(self) -> nn.Linear:
        return self.network.head

    def replace_head(self, head: nn.Linear) -> None:
        self.network.head = head

    def attention(self) -> Mapping[nn.Module, Matrix]:
        blocks = [module for module in self.network.modules() if isinstance(module, Block)]
        return {getattr(block, matrix): matrix for block in blocks for matrix in MATRICES}

    def encoded(self, pixels: Tensor) -> Tensor:
        return self.network.encoded(pixels)

    def logits(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)
