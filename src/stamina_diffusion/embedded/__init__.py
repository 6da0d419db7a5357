"""The embedded base: a small, real Stable Diffusion pipeline of the procedural world, inside the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BaseModelError

if TYPE_CHECKING:
    from .encoder import EmbeddedEncoder

WEIGHTS = Path(__file__).parent / "weights"


def folder() -> Path:
    """The pipeline's folder, for `StableDiffusionPipeline.from_pretrained`."""
    if not (WEIGHTS / "pipeline" / "model_index.json").is_file():
        raise BaseModelError("the embedded base is missing", where=WEIGHTS, do="Install the package again.")
    return WEIGHTS / "pipeline"


def vit_folder() -> Path:
    """The embedded vision transformer's folder, for `ViTForImageClassification.from_pretrained`."""
    if not (WEIGHTS / "vit" / "config.json").is_file():
        raise BaseModelError("the embedded ViT is missing", where=WEIGHTS, do="Install the package again.")
    return WEIGHTS / "vit"


def load_encoder() -> EmbeddedEncoder:
    """The encoder that measures pictures of the embedded base."""
    from .encoder import EmbeddedEncoder

    return EmbeddedEncoder.load(WEIGHTS / "encoder.safetensors")
