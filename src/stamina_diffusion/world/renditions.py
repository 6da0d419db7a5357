"""The same thing in another manner: a picture redrawn as a sketch, as pixel art, or as seen at night.

ImageNet-R (arXiv 2006.16241) asks whether a class is known through its renditions; these are the world's. Each is a
fixed filter of the finished picture, without any chance in it, so that a view and its rendition have one seed.
"""

from __future__ import annotations

import numpy as np

RENDITIONS = ("plain", "sketch", "pixel", "night")

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_PAPER = np.array([255, 252, 244], dtype=np.float32)
_MOONLIGHT = np.array([0.42, 0.52, 0.86], dtype=np.float32)
_LEVELS = 5
"""Values that a channel has in pixel art."""


def redraw(pictures: np.ndarray, rendition: str) -> np.ndarray:
    """Pictures (..., H, W, 3) uint8 in another rendition, same shape and type.

    Raises ValueError for a rendition that there is none of.

    >>> redraw(np.full((1, 8, 8, 3), 200, dtype=np.uint8), "night")[0, 0, 0].tolist()
    [97, 108, 147]
    """
    if rendition == "plain":
        return pictures
    if rendition not in RENDITIONS:
        raise ValueError(f"unknown rendition {rendition!r}: choose one of {', '.join(RENDITIONS)}")
    seen = pictures.astype(np.float32)
    drawn = {"sketch": _sketch, "pixel": _pixel, "night": _night}[rendition](seen)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def _sketch(seen: np.ndarray) -> np.ndarray:
    """Pencil on paper: light divided by the light around it leaves lines where it changes; shadows stay as hatching."""
    light = seen @ _GREY
    line = np.clip((light + 8) / (_blurred(light, max(1, seen.shape[-2] // 32)) + 8), 0, 1)
    tone = 0.75 + 0.25 * light / 255
    return (line**1.5 * tone)[..., None] * _PAPER


def _blurred(light: np.ndarray, radius: int) -> np.ndarray:
    """The mean of the square of 2·radius + 1 pixels around each, (..., H, W)."""
    size = 2 * radius + 1
    padded = np.pad(light, [(0, 0)] * (light.ndim - 2) + [(radius, radius)] * 2, mode="edge")
    height, width = light.shape[-2:]
    rows = np.mean([padded[..., i : i + height, :] for i in range(size)], axis=0)
    return np.mean([rows[..., i : i + width] for i in range(size)], axis=0)


def _pixel(seen: np.ndarray) -> np.ndarray:
    """Squares of one colour, 32 or fewer a side, in few levels a channel."""
    *before, height, width, channels = seen.shape
    side = max(2, height // 32)
    whole = seen[..., : height // side * side, : width // side * side, :]
    cells = whole.reshape(*before, height // side, side, width // side, side, channels).mean((-4, -2))
    cells = np.rint(cells / 255 * (_LEVELS - 1)) * 255 / (_LEVELS - 1)
    drawn = cells.repeat(side, -3).repeat(side, -2)
    drawn = np.pad(
        drawn, [(0, 0)] * len(before) + [(0, height - drawn.shape[-3]), (0, width - drawn.shape[-2]), (0, 0)], "edge"
    )
    return drawn


def _night(seen: np.ndarray) -> np.ndarray:
    """Moonlight: darker, bluer, and most of the colour gone."""
    light = (seen @ _GREY)[..., None]
    return (0.3 * seen + 0.7 * light * _MOONLIGHT) * (0.5 + 0.4 * light / 255)
