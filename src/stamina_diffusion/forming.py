"""How a change is formed from its factors a few rows at a time, and how its gradient is pulled back to them.

Three autograd functions, each of which forms Δ when it needs it and forgets it: Δ itself, a layer's product with W + Δ,
and a penalty's ‖S ⊙ Δ‖². With a mask, Δ = (B A) ⊙ M, M = 1[L + g > 0], logits L = `left` `right`, g Logistic noise of a
seed; the factors are (B, A, left, right). Without one they are (B, A). A mask that says so is left to the kernels of
`fused.py`; what is here is the plain version, and their oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import fused

TILE = 1 << 17
"""Entries that are formed at a time on a CPU: what is done to them stays in its cache. A GPU takes a matrix at once."""

_QUANTILES = 1 << 16


class Mask(NamedTuple):
    """What a stochastic hard mask is drawn by, beside its logits: the seed of its noise, and τ of its gradient."""

    seed: int
    temperature: float
    fused: bool = False
    """Whether kernels draw it. They draw another noise, so a change keeps to the one or the other."""


def mask_of(seed: int, temperature: float, like: Tensor) -> Mask:
    """The mask of a change whose factors are like this tensor, drawn by whatever forms such changes."""
    return Mask(seed, temperature, not _COUNTING and fused.chosen(like))


_COUNTING = False


@contextmanager
def at_once() -> Iterator[None]:
    """Inside, a CPU too forms a matrix at once, as a GPU does: for who counts operations and does not compute them.

    Masks that are made inside are formed by operations of torch, which can be counted.
    """
    global TILE, _COUNTING
    before, TILE, _COUNTING = (TILE, _COUNTING), 1 << 62, True
    try:
        yield
    finally:
        TILE, _COUNTING = before


class _Tile(NamedTuple):
    """Some rows of a change. Its tensors are written over for the next tile."""

    rows: slice
    product: Tensor
    """B A, before the mask."""
    logits: Tensor
    """L + g; of no meaning without a mask."""
    change: Tensor


def _tiles(mask: Mask | None, factors: Sequence[Tensor]) -> Iterator[_Tile]:
    up, down = factors[:2]
    rows, columns = up.shape[0], down.shape[1]
    size = rows if up.device.type != "cpu" else min(rows, max(1, TILE // columns))
    # Three buffers, used again for each tile: more of them, or new ones, cost more than what is computed in them.
    buffers = up.new_empty(3, size, columns)
    generator = None if mask is None else torch.Generator(up.device).manual_seed(mask.seed)
    for first in range(0, rows, size):
        some = slice(first, min(first + size, rows))
        product, logits, change = buffers[:, : some.stop - first]
        if generator is None:
            torch.mm(up[some], down, out=change)
        else:
            _draw(logits, generator)
            logits.addmm_(factors[2][some], factors[3])
            torch.mm(up[some], down, out=product)
            _where_open(logits, product, out=change)
        yield _Tile(some, product, logits, change)


def _draw(noise: Tensor, generator: torch.Generator) -> None:
    """Fill `noise` from Logistic(0, 1).

    Each entry is one of the 65,536 quantiles at (k + ½) / 65,536, so that four entries take one draw of 64 bits: a
    float for each, and its logarithms, would take longer than all the rest.
    """
    count = noise.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=noise.device)
    bits.random_(-(1 << 63), None, generator=generator)
    places = bits.view(torch.uint16)[:count].int()
    torch.index_select(_quantiles(noise.dtype, noise.device), 0, places, out=noise.view(-1))


def noise_of(seed: int, rows: int, columns: int, like: Tensor) -> Tensor:
    """The noise of a whole mask, (rows, columns), tile after tile: one for a seed, a shape and a kind of device.

    It is what `mask_of` of the same seed and tensor draws.
    """
    if mask_of(seed, 1.0, like).fused:
        return fused.noise(seed, rows, columns, like.device)
    nothing = [like.new_zeros(rows, 1), like.new_zeros(1, columns)] * 2
    return torch.cat([tile.logits.clone() for tile in _tiles(Mask(seed, 1.0), nothing)])


@cache
def _quantiles(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.logit((torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES).to(device, dtype)


def _where_open(logits: Tensor, value: Tensor, *, out: Tensor) -> None:
    """`value` where the logit is above 0, else 0: the backward pass of relu, on a CPU much faster than where."""
    torch.ops.aten.threshold_backward.grad_input(value, logits, 0.0, grad_input=out)


def _pull(tile: _Tile, gradient: Tensor, mask: Mask | None, factors: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Add to `into` what `gradient`, of the tile's change, gives each factor. Writes over `gradient` and the tile."""
    rows, product, logits, _ = tile
    matrices = [gradient]
    if mask is not None:
        product.mul_(gradient)
        _where_open(logits, gradient, out=gradient)
        # ∂m/∂L = p (1 − p) / τ, p = σ((L + g)/τ)
        if mask.temperature != 1:
            product /= mask.temperature
            logits /= mask.temperature
        torch.ops.aten.sigmoid_backward.grad_input(product, logits.sigmoid_(), grad_input=product)
        matrices.append(product)
    _share(rows, matrices, factors, into)


def _share(rows: slice, matrices: Sequence[Tensor], factors: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Add to `into` what the gradients of some rows of B A, and of the logits, give the factors of each."""
    for place, of_matrix in enumerate(matrices):
        (tall, wide), (of_tall, of_wide) = factors[2 * place :][:2], into[2 * place :][:2]
        torch.mm(of_matrix, wide.T, out=of_tall[rows])
        of_wide.addmm_(tall[rows].T, of_matrix)


class Dense(torch.autograd.Function):
    """Mask, factors → Δ (out, in)."""

    @staticmethod
    def forward(ctx: Any, mask: Mask | None, *factors: Tensor) -> Tensor:
        ctx.mask = mask
        ctx.save_for_backward(*factors)
        if mask is not None and mask.fused:
            return fused.form(mask.seed, factors)
        change = factors[0].new_empty(factors[0].shape[0], factors[1].shape[1])
        for tile in _tiles(mask, factors):
            change[tile.rows] = tile.change
        return change

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        mask, factors = ctx.mask, ctx.saved_tensors
        into = [torch.zeros_like(factor) for factor in factors]
        if mask is not None and mask.fused:
            _share(slice(None), fused.pull(mask.seed, mask.temperature, factors, gradient), factors, into)
            return None, *into
        for tile in _tiles(mask, factors):
            _pull(tile, gradient[tile.rows].clone(), mask, factors, into)
        return None, *into


class Linear(torch.autograd.Function):
    """x (..., in), W (out, in), bias (out,), mask, factors → x (W + Δ)ᵀ + bias, in the precision of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, mask: Mask, *factors: Tensor) -> Tensor:
        ctx.mask = mask
        ctx.save_for_backward(x, weight, *factors)
        if mask.fused:
            changed = fused.form(mask.seed, factors, weight, x.dtype)
        else:
            changed = torch.empty_like(weight, dtype=x.dtype)
            for tile in _tiles(mask, factors):
                torch.add(weight[tile.rows], tile.change, out=changed[tile.rows])
        return F.linear(x, changed, None if bias is None else bias.to(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        mask, (x, weight, *factors) = ctx.mask, ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_weight = flat.T @ x.reshape(-1, x.shape[-1])
        into = [torch.zeros_like(factor) for factor in factors]
        changed = None
        if mask.fused:
            if ctx.needs_input_grad[0]:
                changed = fused.form(mask.seed, factors, weight, x.dtype)
            _share(slice(None), fused.pull(mask.seed, mask.temperature, factors, of_weight), factors, into)
        else:
            of_weight = of_weight.to(weight)
            changed = torch.empty_like(weight, dtype=x.dtype) if ctx.needs_input_grad[0] else None
            for tile in _tiles(mask, factors):
                if changed is not None:
                    torch.add(weight[tile.rows], tile.change, out=changed[tile.rows])
                _pull(tile, of_weight[tile.rows], mask, factors, into)
        of_x = None if changed is None else (flat @ changed).view_as(x)
        return of_x, None, None, None, *into


class Squares(torch.autograd.Function):
    """S (out, in), mask, factors → ‖S ⊙ Δ‖²_F. The factors' gradients are taken along: forward, Δ is formed anyway."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Mask | None, *factors: Tensor) -> Tensor:
        ctx.into = [torch.zeros_like(factor) for factor in factors]
        if mask is not None and mask.fused:
            cost, matrices = fused.squares(mask.seed, mask.temperature, factors, weight)
            _share(slice(None), matrices, factors, ctx.into)
            return cost
        cost = factors[0].new_zeros(())
        for tile in _tiles(mask, factors):
            # ∂/∂Δ Σ S²Δ² = 2 S² Δ
            weighted = weight[tile.rows].square().mul_(tile.change)
            cost += weighted.flatten().dot(tile.change.flatten())
            if any(ctx.needs_input_grad[2:]):
                _pull(tile, weighted.mul_(2), mask, factors, ctx.into)
        return cost

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, *(gradient * some for some in ctx.into)
