"""How a concept is learned, whatever the method: steps, batch, precision, prompts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .errors import SettingsError

Precision = Literal["no", "bf16", "fp16"]
Optimizer = Literal["adamw", "adamw8bit"]
Schedule = Literal["constant", "cosine", "coda"]
Storage = Literal["float32", "bf16", "float8"]

LARGEST = 16384
"""Pixels of a side that no model draws: what is beyond is a slip of the keyboard."""


@dataclass(frozen=True)
class Plan:
    """The settings of one run of `learn`; the defaults are those of design table 6 of the reconstruction."""

    steps: int = 500
    batch: int = 4
    accumulation: int = 1
    """Batches whose gradients are added before a step."""
    seed: int = 0
    precision: Precision = "no"
    """What the network computes in; sites, words and their changes stay in float32."""
    storage: Storage = "float32"
    """What the weights that do not learn are stored in; bf16 and float8 (8 bits) save memory and want a precision."""
    optimizer: Optimizer = "adamw"
    """adamw8bit keeps its moments in 8 bits; it needs bitsandbytes and a GPU."""
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: more time, less memory."""
    resolution: int | None = None
    """Pixels of a side; the base's own when None."""
    prompts: tuple[str, ...] = ("a photo of {}",)
    """Where the word goes into a prompt; a photo with a caption of its own uses that."""
    prior_images: int = 200
    """Pictures of the class word that the frozen base draws, for methods that ask for them; 0 for none."""
    prior_weight: float = 1.0
    replay_images: int = 8
    """Pictures of each earlier word that the model draws before it learns another, for methods that ask for them."""
    replay_weight: float = 1.0
    schedule: Schedule = "constant"
    """How the rates fall from their peak: not at all; along half a cosine to zero; or as in CODA-Prompt's code (arXiv
    2211.13218), cos(99π e / (200 (K − 1))) in epoch e of K, which ends a little above zero."""
    epochs: int = 1
    """K, how often the steps go through the pictures: only that schedule asks."""
    clip_norm: float = 1.0
    """Gradients longer than this are shortened to it; 0 leaves them."""
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch", 1),
            ("accumulation", 1),
            ("epochs", 1),
            ("prior_images", 0),
            ("replay_images", 0),
        ):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} is {getattr(self, name)}", do=f"Give {name} a value of {least} or more.")
        if self.resolution is not None and not 1 <= self.resolution <= LARGEST:
            what = f"resolution is {self.resolution}"
            raise SettingsError(what, do=f"Give the pixels of a side, 1 to {LARGEST}; most models have 512 or 1024.")
        if self.precision not in ("no", "bf16", "fp16"):
            raise SettingsError(f"there is no precision {self.precision!r}", do="Choose no, bf16 or fp16.")
        if self.optimizer not in ("adamw", "adamw8bit"):
            raise SettingsError(f"there is no optimizer {self.optimizer!r}", do="Choose adamw or adamw8bit.")
        if self.schedule not in ("constant", "cosine", "coda"):
            raise SettingsError(f"there is no schedule {self.schedule!r}", do="Choose constant, cosine or coda.")
        if self.storage not in ("float32", "bf16", "float8"):
            raise SettingsError(f"there is no storage {self.storage!r}", do="Choose float32, bf16 or float8.")
        if self.storage != "float32" and self.precision == "no":
            raise SettingsError(
                f"weights stored in {self.storage} cannot be computed with in precision no", do="Add precision bf16."
            )
        if not self.prompts or any("{}" not in prompt for prompt in self.prompts):
            raise SettingsError("a prompt has no place for the word", do="Write {} where the word goes.")

    def share_of_rate(self, step: int) -> float:
        """What part of its peak a rate is at a step, the first being 0.

        >>> [round(Plan(steps=4, schedule="cosine").share_of_rate(step), 2) for step in range(4)]
        [1.0, 0.85, 0.5, 0.15]
        >>> [round(Plan(steps=4, epochs=2, schedule="coda").share_of_rate(step), 4) for step in range(4)]
        [1.0, 1.0, 0.0157, 0.0157]
        """
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * step / self.steps)) / 2
        if self.schedule == "coda" and self.epochs > 1:
            return math.cos(99 * math.pi * (step * self.epochs // self.steps) / (200 * (self.epochs - 1)))
        return 1.0

    def settings(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return asdict(self) | {"prompts": list(self.prompts)}
