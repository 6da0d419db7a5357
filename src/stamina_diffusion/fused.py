"""The full hard mask's change by one kernel instead of ten, for who asks: STAMINA_FUSED=1, on a GPU with Triton.

Off unless asked for. On an H200 the kernels (`kernels.py`) were equal to the equations and faster than the plain
version (docs/decisions/0009); no other GPU has run them. So before their first use on a device they are tried there on
small matrices; if they fail, or say anything else than the equations do, a notice says so and the plain version does
the work.

They draw another noise of the same seed than the plain version does; `forming.noise_of` gives it. Triton comes with the
CUDA builds of torch and is imported only here.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .errors import Notice
from .switches import asked

TILE = (16, 128)
"""Rows and columns that one program forms: powers of two, the columns 4 or more. Of no influence on any value."""

_TRIED = ((16, 128), (17, 130))
"""Triton compiles other code where a size is a multiple of 16."""


def chosen(like: Tensor) -> bool:
    """Whether a change of such factors is formed by the kernels: where they are asked for, and work."""
    return asked("STAMINA_FUSED") and like.dtype == torch.float32 and _work(like.device)


@cache
def _work(device: torch.device) -> bool:
    """Whether the kernels compute what the equations say on this device; if not, a notice says why, once."""
    try:
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            raise RuntimeError(f"it is for a GPU, and this is the {device.type}")
        for rows, columns in _TRIED:
            _try(rows, columns, device)
    except Exception as error:
        # Whatever Triton, its compiler or a driver raises: there is another way to the same numbers.
        reason = f"{type(error).__name__}: {error}"[:300]
        warnings.warn(f"STAMINA_FUSED=1: going on with the plain version ({reason})", Notice, stacklevel=2)
        return False
    return True


def noise(seed: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """The noise of a mask, (rows, columns)."""
    out = torch.empty(rows, columns, device=device)
    _launch("noise", out, rows, columns, seed)
    return out


def form(
    seed: int, factors: Sequence[Tensor], weight: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """weight + Δ, or Δ alone, (out, in), in the precision `dtype`."""
    factors, sizes = _laid_out(factors)
    out = torch.empty(sizes[:2], dtype=dtype or factors[0].dtype, device=factors[0].device)
    _launch("form", None if weight is None else weight.contiguous(), *factors, out, *sizes, seed)
    return out


def pull(seed: int, temperature: float, factors: Sequence[Tensor], gradient: Tensor) -> tuple[Tensor, Tensor]:
    """What a gradient of Δ (out, in) gives B A, and what it gives the logits."""
    factors, sizes = _laid_out(factors)
    of = torch.empty(2, *sizes[:2], device=factors[0].device)
    _launch("pull", gradient.contiguous(), *factors, *of, None, *sizes, seed, 1 / temperature)
    return of[0], of[1]


def squares(
    seed: int, temperature: float, factors: Sequence[Tensor], weight: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """‖weight ⊙ Δ‖²_F, and what its gradient gives B A and the logits."""
    factors, sizes = _laid_out(factors)
    of = torch.empty(2, *sizes[:2], device=factors[0].device)
    costs = torch.empty(_grid(*sizes[:2]), device=of.device)
    _launch("pull", weight.contiguous(), *factors, *of, costs, *sizes, seed, 1 / temperature)
    return costs.sum(), (of[0], of[1])


def _laid_out(factors: Sequence[Tensor]) -> tuple[list[Tensor], tuple[int, int, int, int]]:
    """The factors row by row, and rows, columns, rank and the mask's rank."""
    up, down, left, _ = factors
    return [factor.contiguous() for factor in factors], (up.shape[0], down.shape[1], up.shape[1], left.shape[1])


def _grid(rows: int, columns: int) -> tuple[int, int]:
    return -(-rows // TILE[0]), -(-columns // TILE[1])


def _launch(name: str, *given: Any) -> None:
    """Run a kernel on the device of its tensors; `given` has rows and columns as its first two numbers."""
    from . import kernels

    rows, columns = [some for some in given if isinstance(some, int)][:2]
    device = next(some.device for some in given if isinstance(some, Tensor))
    # Triton launches on the current device, whatever its tensors are on.
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        getattr(kernels, name)[_grid(rows, columns)](*given, ROWS=TILE[0], COLUMNS=TILE[1])


def _try(rows: int, columns: int, device: torch.device) -> None:
    """Raise ArithmeticError where a kernel says anything else than the equations do, in float64 by torch's autograd."""
    seed, temperature, generator = (1 << 61) + 11, 0.7, torch.Generator().manual_seed(0)
    shapes = [(rows, 3), (3, columns), (rows, 2), (2, columns), (rows, columns)]
    *factors, given = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    g = noise(seed, rows, columns, device).double()
    if abs(g.mean()) > 0.15 or abs(g.var() - torch.pi**2 / 3) > 0.5:
        raise ArithmeticError("the noise is not logistic")
    with torch.enable_grad():
        exact = [factor.double().requires_grad_() for factor in factors]
        product, logits = exact[0] @ exact[1], exact[2] @ exact[3] + g
        soft = torch.sigmoid(logits / temperature)
        change = product * ((logits > 0).double() + soft - soft.detach())
        cost = (given.double() * change).square().sum()
        of_given = torch.autograd.grad(change, (product, logits), given.double(), retain_graph=True)
        of_cost = torch.autograd.grad(cost, (product, logits))
    paid, pulled = squares(seed, temperature, factors, given)
    change = change.detach()
    pairs = [(form(seed, factors), change), (paid, cost.detach())]
    pairs += zip(pull(seed, temperature, factors, given), of_given, strict=True)
    pairs += zip(pulled, of_cost, strict=True)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        pairs.append((form(seed, factors, given, dtype), given + change))
    for got, wanted in pairs:
        # The least precise is bf16, which has eight bits.
        if not torch.allclose(got.double(), wanted, rtol=1e-2, atol=1e-3):
            raise ArithmeticError("the kernels do not compute what the equations say")
