"""Less memory for the same learning: activations computed again, an 8-bit optimizer, smaller batches."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn

from .errors import Notice, SettingsError, TrainingError
from .plan import Plan


@contextmanager
def recomputed_activations(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, networks of diffusers keep only the inputs of their blocks and compute the rest again to go backward.

    Other networks stay as they are: the toy, and text encoders, which are small.
    """
    able: list[Any] = [network for network in networks if hasattr(network, "enable_gradient_checkpointing")]
    before = {module: set(vars(module)) for network in able for module in network.modules()}
    for network in able:
        network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for network in able:
            network.disable_gradient_checkpointing()
        # diffusers leaves its function in every block; the network is to be as it was.
        for module, names in before.items():
            for name in set(vars(module)) - names:
                delattr(module, name)


def optimizer_class(plan: Plan) -> Callable[..., torch.optim.Optimizer]:
    """AdamW, or the 8-bit one of bitsandbytes. Raises SettingsError when that is not installed."""
    if plan.optimizer == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found]
    except ImportError as error:
        do = "Run 'pip install bitsandbytes' (it needs a GPU), or take --set optimizer=adamw."
        raise SettingsError("optimizer adamw8bit needs the package bitsandbytes", do=do) from error
    return AdamW8bit


def smaller_batches(plan: Plan, error: RuntimeError) -> Plan:
    """A plan of as many pictures a step in batches of at most half the size, after `error` said that memory is full.

    Raises `error` itself when it says something else, and TrainingError when a batch is one picture already.
    """
    if not should_reduce_batch_size(error):
        raise error
    clear_device_cache(garbage_collection=True)
    if plan.batch == 1:
        raise TrainingError(
            "the memory is full with one picture at a time",
            do="Nothing was changed. Take a preset for less memory (--preset sdxl-12gb and the like), or --set "
            "checkpointing=true, precision=bf16 with storage=bf16 or float8, or a smaller resolution; without prior "
            "images (--set prior_images=0) half as much is in memory. --dry-run says how much a run would take.",
        ) from error
    pictures = plan.batch * plan.accumulation
    batch = max(size for size in range(1, plan.batch // 2 + 1) if pictures % size == 0)
    warnings.warn(
        f"the memory is full with batches of {plan.batch}: going on with batches of {batch}, "
        f"{pictures // batch} of them a step",
        Notice,
        stacklevel=2,
    )
    return dataclasses.replace(plan, batch=batch, accumulation=pictures // batch)
