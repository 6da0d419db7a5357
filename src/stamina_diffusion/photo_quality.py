"""Judges a photo as a photographer would: too small, blurred, dark, or almost the same as another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from .photo_findings import Finding

# The thresholds of the quality findings. They are set so that an ordinary photo passes: see the tests.
SAMPLE = 256  # the side of the square that quality is judged on
EXTREME_ASPECT = 3.0
BLURRY_BELOW = 15.0  # variance of the Laplacian; ordinary photos have 200 to 5000
DARK_BELOW = 60.0  # of the 95th percentile of brightness
BRIGHT_PIXEL, OVEREXPOSED_ABOVE = 250, 0.7  # share of such pixels in the middle: a white background is fine
GREY_BELOW = 4.0  # largest difference between channels, at the 99th percentile of pixels
NEAR = 3  # differing bits of 64, in both hashes
FLAT_BELOW = 4.0  # standard deviation of brightness under which the hashes say nothing


def quality(path: Path, size: tuple[int, int], sketch: Image.Image, frames: int, resolution: int) -> list[Finding]:
    """What a photographer would say of the photo at `path`; `sketch` is its middle square, small."""
    found: list[Finding] = []

    def add(severity: Literal["warning", "hint"], code: str, what: str, do: str) -> None:
        found.append(Finding(path, severity, code, what, do))

    width, height = size
    short, long = min(size), max(size)
    if frames > 1:
        what = f"holds {frames} pictures, and only the first is used"
        add("warning", "animated", what, "Save the pictures that you want as separate files.")
    if long > EXTREME_ASPECT * short:
        what = f"{width} x {height} has one side {long / short:.1f} times the other; only the middle square is used"
        add("warning", "extreme-aspect", what, "Crop it to roughly square around the subject.")
    if 2 * short < resolution:
        what = f"{width} x {height} pixels, which will be enlarged {resolution / short:.1f} times"
        do = f"Use a photo with at least {resolution} pixels on its shorter side."
        add("warning", "too-small", what, do)

    colour = np.asarray(sketch, dtype=np.float32)
    grey = np.asarray(sketch.convert("L"), dtype=np.float32)
    quarter = sketch.height // 4
    middle = grey[quarter : sketch.height - quarter, quarter : sketch.width - quarter]
    dark = np.percentile(grey, 95) < DARK_BELOW
    overexposed = (middle >= BRIGHT_PIXEL).mean() > OVEREXPOSED_ABOVE
    if dark:
        add("hint", "dark", "very dark nearly everywhere", "Brighten it, or take it again in more light.")
    if overexposed:
        add(
            "hint", "overexposed", "the middle is nearly all white", "Take it again in less light, the subject centred."
        )
    if np.percentile(colour.max(axis=2) - colour.min(axis=2), 99) < GREY_BELOW:
        add("hint", "grey", "has no colour", "Use a colour photo, unless the concept is to be drawn in grey.")
    # Under 128 pixels the measure says little, and a dark or white picture is flat for another reason.
    if short >= 128 and not dark and not overexposed and _sharpness(grey) < BLURRY_BELOW:
        add("hint", "blurry", "looks blurred", "Use a sharper photo of the subject, if there is one.")
    return found


def _sharpness(grey: np.ndarray) -> float:
    """The variance of the Laplacian."""
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


Print = tuple[int, int] | None  # 64 bits each, or None for a picture too flat to tell from another


def fingerprint(sketch: Image.Image) -> Print:
    """The average hash and the difference hash of a picture."""
    grey = sketch.convert("L")
    if np.asarray(grey, dtype=np.float32).std() < FLAT_BELOW:
        return None
    small = np.asarray(grey.resize((8, 8), Image.Resampling.BOX), dtype=np.int16)
    wide = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small > small.mean(), wide[:, 1:] > wide[:, :-1])
    average, difference = (int.from_bytes(np.packbits(bit).tobytes(), "big") for bit in bits)
    return average, difference


def nearest_print(mark: Print, others: Sequence[Print]) -> int | None:
    """The first of `others` within NEAR bits of `mark` in both hashes."""
    if mark is None:
        return None
    for place, other in enumerate(others):
        if other and (mark[0] ^ other[0]).bit_count() <= NEAR and (mark[1] ^ other[1]).bit_count() <= NEAR:
            return place
    return None
