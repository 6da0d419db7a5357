"""A denoiser's pass while it learns, and the way back, as two CUDA graphs, for who asks: STAMINA_GRAPHS=1, on a GPU.

A step of a small network, or of a few pictures, is a thousand kernels that a GPU is done with before the host has
launched the next. Recorded once, all of a pass is launched at once. Whatever changes from step to step goes in as an
input: the noisy latents, their times, the text, and each weight with its change in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from ...compact import dense_of
from ...errors import Notice
from ...switches import asked

KEPT = 2
"""Graphs that are kept; each holds the memory of a pass."""

Say = Callable[..., Tensor]


class Replayed:
    """A denoiser whose pass is recorded the first time, and replayed where the same is asked again."""

    def __init__(self, denoiser: Any, record: Callable[..., Say] | None = None) -> None:
        self.denoiser = denoiser
        self.record = record
        self.on = record is not None or asked("STAMINA_GRAPHS")
        self.graphs: dict[Any, Say] = {}
        self.places: list[tuple[dict[str, Any], str]] = []

    def __call__(self, say: Say, *given: Tensor) -> Tensor:
        """say(*given), by a graph where one can be had. `say` calls the denoiser, and nothing that waits for a GPU."""
        if not self.on or not torch.is_grad_enabled() or self.denoiser.is_gradient_checkpointing:
            return say(*given)
        if self.record is None and given[0].device.type != "cuda":
            return say(*given)
        if not self.places:
            self.places = [(one._parameters, name) for one in self.denoiser.modules() for name in one._parameters]
        held = [parameters[name] for parameters, name in self.places]
        # A site with a change in place is no parameter of the network's own.
        changed = [k for k, value in enumerate(held) if value is not None and not isinstance(value, nn.Parameter)]
        if not changed:
            return say(*given)
        weights = [dense_of(held[k]) for k in changed]
        for weight in weights:
            # A graph writes its gradients where it wrote the last ones, which somebody may still be adding to.
            if weight.requires_grad:
                weight.register_hook(torch.clone)
        inputs = (*given, *weights)
        kind = given[0].device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        shapes = tuple((one.shape, one.dtype, one.requires_grad) for one in inputs)
        # A graph reads weights where they were when it was recorded: moved ones want another.
        own = tuple(value.data_ptr() for value in held if isinstance(value, nn.Parameter))
        key = (tuple(changed), precision, shapes, own)
        if key not in self.graphs:
            if len(self.graphs) >= KEPT:
                self.graphs.clear()
            replay = self._recorded(say, len(given), [self.places[k] for k in changed], inputs, kind, precision)
            if replay is None:
                return say(*given)
            self.graphs[key] = replay
        return self.graphs[key](*inputs)

    def _recorded(
        self,
        say: Say,
        count: int,
        places: Sequence[tuple[dict[str, Any], str]],
        inputs: Sequence[Tensor],
        kind: str,
        precision: torch.dtype | None,
    ) -> Say | None:
        """A function of the inputs, or None where the denoiser cannot be recorded; a notice then says why, once."""

        def run(*inputs: Tensor) -> Tensor:
            before = [parameters[name] for parameters, name in places]
            for (parameters, name), weight in zip(places, inputs[count:], strict=True):
                parameters[name] = weight
            try:
                return say(*inputs[:count])
            finally:
                for (parameters, name), weight in zip(places, before, strict=True):
                    parameters[name] = weight

        examples = tuple(one.detach().clone().requires_grad_(one.requires_grad) for one in inputs)
        record: Any = self.record or torch.cuda.make_graphed_callables
        try:
            # What autocast has cast before the recording, it would not cast again in it.
            with torch.autocast(kind, precision, enabled=precision is not None, cache_enabled=False):
                return record(run, examples, allow_unused_input=True)
        except RuntimeError as error:
            if should_reduce_batch_size(error):
                raise
            reason = f"{type(error).__name__}: {error}"[:300]
            warnings.warn(f"STAMINA_GRAPHS=1: going on without graphs ({reason})", Notice, stacklevel=2)
            self.on = False
            return None
