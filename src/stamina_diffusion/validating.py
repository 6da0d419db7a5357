"""Samples of a concept while it is learned: drawn by the model as it would be if learning ended there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from . import files, report, sheets
from .backbones.diffusion.text_to_image import TextToImage
from .errors import Notice

SAMPLES, STEPS = 2, 12
"""Pictures each time, always of the same seeds, and the steps of drawing one: a look in passing, not a verdict."""


def steps_of(every: int, steps: int) -> set[int]:
    """After which steps of a run samples are drawn; none where `every` is 0.

    >>> sorted(steps_of(40, 100)), steps_of(0, 100)
    ([40, 80], set())
    """
    return set(range(every, steps + 1, every)) if every else set()


def sampler(
    word: str, guidance: float, folder: Path, show: Callable[[int, list[Image.Image], Path], None]
) -> Callable[[int, TextToImage], None]:
    """A `peek` for `Studio.learn`: draw samples of a word, put them on a sheet in `folder` and tell `show` of both.

    Where the memory has no room for drawing beside learning, it says so once and leaves learning to itself.
    """
    import torch

    prompts = [report.PROMPT.format(word)] * SAMPLES
    full = False

    def peek(step: int, backbone: TextToImage) -> None:
        nonlocal full
        if full:
            return
        try:
            pictures = backbone.draw(prompts, range(SAMPLES), steps=STEPS, guidance=guidance)
        except torch.OutOfMemoryError:
            full = True
            said = "the memory has no room for samples beside learning: none are drawn on the way"
            warnings.warn(said, Notice, stacklevel=2)
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{step:05d}.png"
        files.write_bytes(path, sheets.png(sheets.grid(pictures, SAMPLES)))
        show(step, pictures, path)

    return peek
