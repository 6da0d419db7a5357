"""A change that is held as the little it is made of, and formed only where it is used, then forgotten.

W + Δ of every key and value of SDXL is 1.3 GiB, and autograd keeps several such matrices of a noisy mask. What makes a
change is small: two low-rank factors, two of the mask's logits, and the seed of its noise. So a layer with a compact
change forms W + Δ for its product, lets go of it, and forms it again in the backward pass from the same seed; the
penalty does likewise. To everything else a compact change is an ordinary tensor: any other operation on it gets the
dense one, with its graph.

The draw is fixed when the change is made: forward, penalty and backward pass, and what activation checkpointing
computes again, see the same one. docs/decisions/0006 has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from .forming import Dense, Linear, Squares, mask_of


class Compact(Tensor):
    """A tensor (out, in) that is formed when something asks for its entries."""

    @staticmethod
    def __new__(cls, tall: Tensor, wide: Tensor, *rest: Any) -> Any:
        shape, grad = (tall.shape[0], wide.shape[1]), torch.is_grad_enabled()
        return Tensor._make_wrapper_subclass(cls, shape, dtype=tall.dtype, device=tall.device, requires_grad=grad)

    def dense(self) -> Tensor:
        """The tensor itself, with its graph."""
        raise NotImplementedError

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (weight + self)ᵀ + bias; weight and bias get no gradient."""
        raise NotImplementedError

    def weighted_squares(self, weight: Tensor) -> Tensor:
        """‖weight ⊙ self‖²_F."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _ABOUT:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        if func is F.linear and len(args) > 1 and isinstance(args[1], Sum):
            x, total, bias = args[0], args[1], args[2] if len(args) > 2 else (kwargs or {}).get("bias")
            if x.dim() > 2 and len(x) > 1 and x.stride(0) == 0:
                # One prompt for the whole batch, as `expand` shows it: its product is made once.
                once = total.change.linear(x[:1], total.weight, bias)
                return once.expand(len(x), *once.shape[1:])
            return total.change.linear(x, total.weight, bias)
        return func(*tree_map(dense_of, args), **tree_map(dense_of, kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise TypeError(f"{func} reached a {cls.__name__} beneath autograd, where it has no entries: take its dense()")


_ABOUT = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "requires_grad", "ndim", "is_cuda")),
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.__len__),
}
"""What can be said of a tensor without its entries."""


def dense_of(value: Any) -> Any:
    """A compact change's entries, with their graph; anything else as it is."""
    return value.dense() if isinstance(value, Compact) else value


class Sum(Compact):
    """weight + change: what a layer sees as its weight. Only its change gets a gradient."""

    def __init__(self, weight: Tensor, change: Compact) -> None:
        self.weight, self.change = weight, change

    def dense(self) -> Tensor:
        return self.weight + self.change.dense()


def added(weight: Tensor, change: Tensor) -> Tensor:
    """weight + change, compact if the change is."""
    if isinstance(change, Compact) and not weight.requires_grad and weight.shape == change.shape:
        return Sum(weight, change)
    return weight + change


def weighted_squares(weight: Tensor, change: Tensor) -> Tensor:
    """‖weight ⊙ change‖²_F."""
    if isinstance(change, Compact):
        return change.weighted_squares(weight)
    return (weight * change).square().sum()


class LowRankChange(Compact):
    """Δ = B A, B (out, rank), A (rank, in). A layer takes x Wᵀ + (x Aᵀ) Bᵀ and never forms it."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        self.up, self.down = up, down

    def dense(self) -> Tensor:
        return self.up @ self.down

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias) + F.linear(F.linear(x, self.down.to(x)), self.up.to(x))

    def weighted_squares(self, weight: Tensor) -> Tensor:
        return Squares.apply(weight, None, self.up, self.down)


class MaskedChange(Compact):
    """Δ = (B A) ⊙ M, M = 1[L + g > 0] with logits L = `left` `right`, (out, k)(k, in), and g ~ Logistic(0, 1).

    The gradient of M is that of σ((L + g)/τ), straight through. g has its seed from torch's global generator, when the
    change is made.
    """

    def __init__(self, up: Tensor, down: Tensor, left: Tensor, right: Tensor, temperature: float) -> None:
        self.factors = (up, down, left, right)
        self.mask = mask_of(int(torch.randint(1 << 62, ())), temperature, up)

    def dense(self) -> Tensor:
        return Dense.apply(self.mask, *self.factors)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            return Linear.apply(x, weight, bias, self.mask, *self.factors)

    def weighted_squares(self, weight: Tensor) -> Tensor:
        return Squares.apply(weight, self.mask, *self.factors)
