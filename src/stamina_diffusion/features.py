"""What turns pictures into features that tell one concept from another, and how well a concept is kept by them.

A concept's *kept* score compares what the model draws of it now with what it drew when it had just learned it; the
score *like its photos* compares with the photos. Both are cosine similarities. An encoder measures the pictures that it
was made for and no others, so a base that has no encoder of its own gets none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from . import files

FILE = "features.safetensors"
"""In a concept's folder: unit features of its photos and of its samples when it had just been learned; no pictures."""


class Encoder(NamedTuple):
    """A network of unit features (N, D) of pictures (N, 3, H, W) in [0, 1], and its name."""

    name: str
    network: nn.Module

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit features (N, D) of RGB pictures of one size."""
        from .embedded.encoder import to_tensor

        device = next(self.network.parameters()).device
        return F.normalize(self.network(to_tensor(pictures).to(device)).float(), dim=-1).cpu()


@dataclass(frozen=True)
class Remembered:
    """What a concept looked like when it had just been learned."""

    photos: Tensor
    samples: Tensor
    made: Mapping[str, Any]
    """How the samples were drawn (prompt, steps, guidance), so that they can be drawn again in the same way."""


def encoder_for(base: Mapping[str, Any]) -> tuple[Encoder | None, str]:
    """The encoder that can judge pictures of a base, or None with the reason."""
    if base.get("kind") != "embedded":
        return None, "not measured: no encoder is known for this base (the embedded one knows its own world only)"
    from .embedded import load_encoder

    return Encoder("embedded", load_encoder()), ""


def kept(now: Tensor, then: Tensor) -> float:
    """Mean cosine similarity of samples with those drawn from the same seeds before; 1 when nothing has changed.

    >>> kept(torch.eye(2), torch.eye(2))
    1.0
    """
    count = min(len(now), len(then))
    return float((now[:count] * then[:count]).sum(-1).mean())


def likeness(samples: Tensor, photos: Tensor) -> float:
    """Mean cosine similarity over all pairs of a sample and a photo.

    >>> likeness(torch.tensor([[1.0, 0.0]]), torch.eye(2))
    0.5
    """
    return float((samples @ photos.T).mean())


def remember(folder: Path, encoder: Encoder, remembered: Remembered) -> None:
    """Write features into a concept's folder."""
    # One entry of metadata: safetensors keeps no order among several, and equal features should give equal bytes.
    described = {"made": json.dumps({"encoder": encoder.name, **remembered.made}, sort_keys=True)}
    tensors = {"photos": remembered.photos, "samples": remembered.samples}
    files.write_tensors(folder / FILE, tensors, described)


def recall(folder: Path, encoder: Encoder) -> Remembered | None:
    """The features in a concept's folder, or None when they are missing, damaged or of another encoder."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            made = files.parse_json((file.metadata() or {}).get("made", "{}"))
            found = Remembered(file.get_tensor("photos"), file.get_tensor("samples"), made)
        return found if made.get("encoder") == encoder.name and _sound(found) else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sound(found: Remembered) -> bool:
    """Whether they can be compared with and drawn again: no hash of the ledger covers them."""
    tensors, made = (found.photos, found.samples), found.made
    return (
        all(t.dim() == 2 and t.is_floating_point() and bool(t.isfinite().all()) for t in tensors)
        and found.photos.shape[1] == found.samples.shape[1]
        and not any(brace in made["prompt"].replace("{}", "") for brace in "{}")
        and type(made["steps"]) is int
        and type(made["samples"]) is int
        and 1 <= made["steps"] <= 1000
        and 1 <= made["samples"] <= 64
        and 0 <= made["guidance"] < 1e6
    )
