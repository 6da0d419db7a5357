"""Pictures of an export: the grid on its card, and how far two sets of drawings lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..backbones.diffusion.text_to_image import TextToImage
from ..sheets import grid
from .source import Source

MOST = 16
"""Words on a grid; with more, the newest."""


def samples(source: Source) -> Image.Image | None:
    """A picture of each word by the newest model, picture k from seed k; None when there is no word."""
    prompts = [f"a photo of {word}" for word in source.words.values()][-MOST:]
    if not prompts:
        return None
    with source.drawing(source.now) as backbone:
        return grid(drawn(source, backbone, prompts))


def drawn(source: Source, backbone: TextToImage, prompts: Sequence[str]) -> list[Image.Image]:
    """A picture of each prompt by a model that `source.drawing` has put where it draws, picture k from seed k."""
    draw = source.draw
    return backbone.draw(prompts, range(len(prompts)), steps=draw.steps, guidance=draw.guidance)


def difference(some: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    """Mean absolute difference of a channel of a pixel, in [0, 255]."""
    pairs = zip(some, others, strict=True)
    return float(np.mean([np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean() for a, b in pairs]))
