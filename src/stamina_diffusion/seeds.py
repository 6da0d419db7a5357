"""Every random draw derives from what it is for, never from what happened to run before.

A run that is interrupted and resumed, or that does its parts in another order, draws the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(*purpose: int | str) -> int:
    """A seed in [0, 2⁶³) from a purpose such as (seed, concept, step, "noise")."""
    text = "\x1f".join(str(part) for part in purpose)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*purpose: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose, of the CPU unless told; one of a GPU draws other numbers from the same seed."""
    return torch.Generator(device).manual_seed(derive(*purpose))


@contextmanager
def drawing_for(*purpose: int | str) -> Iterator[None]:
    """Inside, torch's global generators are seeded for `purpose`; after, they are as before."""
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices):
        torch.manual_seed(derive(*purpose))
        yield
