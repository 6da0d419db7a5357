"""Handwritten digits of scikit-learn, 8×8, in five tasks of two: the whole loop in five seconds, and no more than that.

Too easy to tell methods apart (a nearest neighbour is right in 99 of 100), it shows that everything runs.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..errors import SettingsError
from . import ClassStream, Labelled

EVERY = 5
"""Each fifth picture of a class is for the test."""


def digits() -> ClassStream:
    """1,797 digits, four fifths of each to learn from. Raises SettingsError where scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-not-found]
    except ImportError as error:
        do = "Run: pip install scikit-learn"
        raise SettingsError("stream digits needs the package scikit-learn", do=do) from error
    found = load_digits()
    pixels = np.clip(found.images * 16, 0, 255).astype(np.uint8)
    return of_arrays(pixels, found.target)


def of_arrays(pixels: np.ndarray, labels: np.ndarray) -> ClassStream:
    """Grey pictures (N, 8, 8) uint8 and their digits (N,) as the stream."""
    seen: dict[int, int] = {}
    parts: dict[str, tuple[list[Image.Image], list[int]]] = {"train": ([], []), "test": ([], [])}
    for picture, label in zip(pixels, labels.tolist(), strict=True):
        number = seen[label] = seen.get(label, 0) + 1
        pictures, own = parts["test" if number % EVERY == 0 else "train"]
        pictures.append(Image.fromarray(picture).convert("RGB"))
        own.append(label)
    train, test = (Labelled(pictures, tuple(own)) for pictures, own in parts.values())
    told = "scikit-learn's digits; each fifth of a class is for the test"
    return ClassStream("digits", tuple(str(label) for label in sorted(seen)), train, test, told)
