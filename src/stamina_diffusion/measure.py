"""What a version of the model still knows, in numbers that need no encoder: held-out loss, and drift of the base.

Noise, timesteps and seeds are fixed, so two numbers differ by what was learned in between and by nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import columns, files, seeds
from .settings import Draw, Report

if TYPE_CHECKING:
    from .backbones.diffusion.text_to_image import TextToImage
    from .studio import Studio

TIMESTEPS = 8
"""Timesteps at which a picture is noised: the middles of as many equal slices of the schedule."""
PICTURES = 4
"""Pictures of a concept that are noised; more would take longer and say little else, since the noise is fixed."""
TILE = 128
"""Pixels of a side of the small pictures that a column keeps."""
GENERIC = {
    "embedded": (
        "a photo of a person",
        "a photo of a landmark",
        "a photo of a person smiling on a blue background",
        "a photo of a landmark at night",
    ),
    "other": ("a photo of a person", "a photo of a house", "a photo of a dog", "a painting of a landscape"),
}
"""Prompts without any learned word, in the words that a base knows."""
_REFERENCE = "base.safetensors"


@torch.no_grad()
def held_out_loss(backbone: TextToImage, prompt: str, pictures: Sequence[Image.Image]) -> float:
    """Mean ‖target − U-Net(noisy, timestep, prompt)‖² over pictures and timesteps, from noise that is always the same.

    `pictures` are RGB, square, of the backbone's resolution.
    """
    latents = backbone.encode(pictures[:PICTURES])
    errors = [
        _error(*_predicted(backbone, prompt, latent, ("held-out", place))) for place, latent in enumerate(latents)
    ]
    return float(torch.stack(errors).mean())


def _error(said: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(said, target)


@torch.no_grad()
def _predicted(
    backbone: TextToImage, prompt: str, latent: Tensor, purpose: tuple[int | str, ...]
) -> tuple[Tensor, Tensor]:
    """What the denoiser says of a latent (channels, height, width) at each timestep, and what it should: (T, …)."""
    length = backbone.schedule_length
    timesteps = torch.tensor([int((k + 0.5) / TIMESTEPS * length) for k in range(TIMESTEPS)])
    noise = torch.randn((TIMESTEPS, *latent.shape), generator=seeds.generator(*purpose)).to(backbone.device)
    noisy, target, timesteps = backbone.noised(latent.expand(TIMESTEPS, -1, -1, -1), noise, timesteps)
    with backbone.computing():
        once = backbone.text_states(backbone.tokenize([prompt]))
        text = {part: states.expand(TIMESTEPS, *states.shape[1:]) for part, states in once.items()}
        said = backbone.predict(noisy, timesteps, text)
    return said.float(), target.float()


# -- drift of the base ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Generic:
    """What the base says and draws for one prompt without a learned word."""

    latent: Tensor
    """Of the picture that it draws, (channels, height, width)."""
    said: Tensor
    """Its predictions on that latent, (timesteps, channels, height, width)."""
    picture: Tensor
    """The picture itself, small, (height, width, 3), uint8."""


def generic_prompts(studio: Studio) -> list[str]:
    """The prompts that drift is measured on: the base's neutral ones, and the class words of the concepts."""
    neutral = GENERIC["embedded" if studio.base["kind"] == "embedded" else "other"]
    classes = [f"a photo of a {entry.class_word}" for entry in studio.entries if entry.class_word]
    return list(dict.fromkeys((*neutral, *classes)))


def base_reference(
    studio: Studio, backbone: TextToImage, prompts: Sequence[str], draw: Draw, report: Report
) -> dict[str, Generic]:
    """What the base says to each prompt; kept in a file, so that the base is built once and not after each concept."""
    path = studio.folder / columns.FOLDER / _REFERENCE
    # The prompts' own drawing settings are part of it: pictures of other settings could not be compared.
    described = {"base": studio.base["hash"], "steps": report.steps, "guidance": draw.guidance}
    known = _read_reference(path, described)
    if missing := [prompt for prompt in prompts if prompt not in known]:
        with _aside(backbone):
            known |= _generic(studio.rebuilt(0), missing, draw, report)
        _write_reference(path, known, described)
    return {prompt: known[prompt] for prompt in prompts}


def _generic(base: TextToImage, prompts: Sequence[str], draw: Draw, report: Report) -> dict[str, Generic]:
    pictures = base.draw(prompts, [0] * len(prompts), steps=report.steps, guidance=draw.guidance)
    found = {}
    for prompt, picture, latent in zip(prompts, pictures, base.encode(pictures), strict=True):
        said, _ = _predicted(base, prompt, latent, ("drift", prompt))
        found[prompt] = Generic(latent.cpu(), said.cpu(), torch.from_numpy(np.array(small(picture))))
    return found


def drift(backbone: TextToImage, reference: Mapping[str, Generic]) -> dict[str, float]:
    """For each prompt ‖U-Net now − U-Net of the base‖ / ‖U-Net of the base‖; 0 where nothing has changed."""
    found = {}
    for prompt, generic in reference.items():
        said, _ = _predicted(backbone, prompt, generic.latent.to(backbone.device), ("drift", prompt))
        found[prompt] = float((said.cpu() - generic.said).norm() / generic.said.norm())
    return found


@contextmanager
def _aside(backbone: TextToImage) -> Iterator[None]:
    """Inside, the model is in the CPU's memory, so that another one of its size fits on the device."""
    device = backbone.device
    backbone.to(torch.device("cpu"))
    try:
        yield
    finally:
        backbone.to(device)


def _read_reference(path: Path, described: Mapping[str, Any]) -> dict[str, Generic]:
    try:
        with safe_open(path, framework="pt") as file:
            found = files.parse_json((file.metadata() or {})["made"])
            prompts = found.pop("prompts")
            if found != described:
                return {}
            return {
                prompt: Generic(*(file.get_tensor(f"{part}/{place}") for part in ("latent", "said", "picture")))
                for place, prompt in enumerate(prompts)
            }
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_reference(path: Path, known: Mapping[str, Generic], described: Mapping[str, Any]) -> None:
    tensors = {}
    for place, generic in enumerate(known.values()):
        tensors |= {
            f"latent/{place}": generic.latent,
            f"said/{place}": generic.said,
            f"picture/{place}": generic.picture,
        }
    path.parent.mkdir(exist_ok=True)
    made = json.dumps({**described, "prompts": list(known)}, sort_keys=True)
    files.write_tensors(path, tensors, {"made": made})


def base_pictures(studio: Studio) -> dict[str, Image.Image]:
    """What the base drew for each generic prompt, small; nothing when it was never measured."""
    path = studio.folder / columns.FOLDER / _REFERENCE
    try:
        with safe_open(path, framework="pt") as file:
            found = files.parse_json((file.metadata() or {})["made"])
            if found["base"] != studio.base["hash"]:
                return {}
            return {
                prompt: Image.fromarray(file.get_tensor(f"picture/{place}").numpy())
                for place, prompt in enumerate(found["prompts"])
            }
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def small(picture: Image.Image) -> Image.Image:
    """A picture of at most `TILE` pixels a side."""
    side = min(TILE, picture.width)
    return picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
