"""How a concept is learned, whatever the method: steps, batch, precision, prompts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .errors import SettingsError

Precision = Literal["no", "bf16", "fp16"]
Optimizer = Literal["adamw", "adamw8bit"]


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
    clip_norm: float = 1.0
    """Gradients longer than this are shortened to it; 0 leaves them."""
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("accumulation", 1), ("prior_images", 0), ("replay_images", 0)):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} is {getattr(self, name)}", do=f"Give {name} a value of {least} or more.")
        if self.precision not in ("no", "bf16", "fp16"):
            raise SettingsError(f"there is no precision {self.precision!r}", do="Choose no, bf16 or fp16.")
        if self.optimizer not in ("adamw", "adamw8bit"):
            raise SettingsError(f"there is no optimizer {self.optimizer!r}", do="Choose adamw or adamw8bit.")
        if not self.prompts or any("{}" not in prompt for prompt in self.prompts):
            raise SettingsError("a prompt has no place for the word", do="Write {} where the word goes.")

    def settings(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return asdict(self) | {"prompts": list(self.prompts)}
