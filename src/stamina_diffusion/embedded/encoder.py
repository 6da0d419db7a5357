"""The embedded encoder: a small image tower whose features tell identities apart and name a picture's attributes.

It is the image half of the contrastive image–text pair whose text half is the embedded base's frozen text encoder. It
was trained on pictures of the procedural world alone: it measures the embedded base, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from .. import files
from ..world import FAMILIES, grades

RESOLUTION = 64
HIDDEN_SIZES = [48, 96, 128, 160]
WIDTH = HIDDEN_SIZES[-1]
SHARED_WIDTH = 128
"""The width of the space that pictures and captions share."""


def factors() -> dict[str, tuple[str, ...]]:
    """Every factor of the world as '<family>/<factor>', with its grades."""
    return {f"{family}/{name}": values for family in FAMILIES for name, values in grades(family).items()}


class EmbeddedEncoder(nn.Module):
    """Pictures (N, 3, H, W) in [0, 1] → unit features (N, 160)."""

    def __init__(self, factor_grades: Mapping[str, Sequence[str]], text_width: int) -> None:
        super().__init__()
        self.factor_grades = {name: tuple(values) for name, values in factor_grades.items()}
        self.tower = ResNetModel(
            ResNetConfig(
                embedding_size=HIDDEN_SIZES[0], hidden_sizes=HIDDEN_SIZES, depths=[1, 1, 1, 1], layer_type="basic"
            )
        )
        self.attribute_head = nn.Linear(WIDTH, sum(len(values) for values in self.factor_grades.values()))
        self.image_projection = nn.Linear(WIDTH, SHARED_WIDTH, bias=False)
        self.text_projection = nn.Linear(text_width, SHARED_WIDTH, bias=False)

    def features(self, images: Tensor) -> Tensor:
        """Features (N, 160) before normalisation, of pictures (N, 3, H, W) in [0, 1] at any resolution."""
        if images.shape[-2:] != (RESOLUTION, RESOLUTION):
            images = F.interpolate(images, (RESOLUTION, RESOLUTION), mode="bilinear", antialias=True)
        return self.tower(images * 2 - 1).pooler_output.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.features(images), dim=-1)

    def attribute_logits(self, features: Tensor) -> dict[str, Tensor]:
        """Of unit features (N, 160): the logits of every factor's grades, (N, grades)."""
        sizes = [len(values) for values in self.factor_grades.values()]
        return dict(zip(self.factor_grades, self.attribute_head(features * WIDTH**0.5).split(sizes, -1), strict=True))

    def image_in_shared_space(self, features: Tensor) -> Tensor:
        """Unit features (N, 160) → unit vectors (N, 128) comparable with those of captions."""
        return F.normalize(self.image_projection(features * WIDTH**0.5), dim=-1)

    def text_in_shared_space(self, pooled: Tensor) -> Tensor:
        """Pooled text features (N, text width) → unit vectors (N, 128) comparable with those of pictures."""
        return F.normalize(self.text_projection(pooled), dim=-1)

    def save(self, path: Path) -> None:
        """Write the encoder as one safetensors file, in float16."""
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        described = {"factors": json.dumps(self.factor_grades), "text_width": str(self.text_projection.in_features)}
        files.write_tensors(path, tensors, described)

    @classmethod
    def load(cls, path: Path) -> EmbeddedEncoder:
        """The encoder of a file that `save` wrote, in float32 and evaluation mode."""
        with safe_open(path, framework="pt") as file:
            described = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it cannot be iterated)
        encoder = cls(json.loads(described["factors"]), int(described["text_width"]))
        encoder.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
        return encoder.eval().requires_grad_(False)


def to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size → (N, 3, H, W) in [0, 1]."""
    return torch.stack(
        [torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255 for picture in pictures]
    )
