"""Pictures of an export: the grid on its card, and how far two sets of drawings lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..settings import draw_settings, preset_for
from ..sheets import grid
from .source import Source

MOST = 16
"""Words on a grid; with more, the newest."""


def samples(source: Source) -> Image.Image | None:
    """A picture of each word by the newest model, picture k from seed k; None when there is no word."""
    prompts = [f"a photo of {word}" for word in source.words.values()][-MOST:]
    if not prompts:
        return None
    draw = draw_settings(preset_for(source.studio.base))
    return grid(source.now.draw(prompts, range(len(prompts)), steps=draw.steps, guidance=draw.guidance))


def difference(some: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    """Mean absolute difference of a channel of a pixel, in [0, 255]."""
    pairs = zip(some, others, strict=True)
    return float(np.mean([np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean() for a, b in pairs]))
