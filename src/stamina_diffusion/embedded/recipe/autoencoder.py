"""Stage 3: a thin convolutional autoencoder, 64×64 pictures to 16×16 latents and back.

Fixed patch latents (principal components of 4×4 blocks) were tried first and leave a grid. Layers at full resolution
are what costs on a CPU, so they are thin.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from ... import checkpoints, seeds
from . import RESOLUTION, Recipe
from .data import BasePool
from .loop import train

KL_WEIGHT = 2e-6
EDGE_WEIGHT = 1.0


def build(recipe: Recipe) -> AutoencoderKL:
    levels = len(recipe.autoencoder_channels)
    return AutoencoderKL(
        latent_channels=recipe.latent_channels,
        block_out_channels=recipe.autoencoder_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=RESOLUTION,
        mid_block_add_attention=False,
    )


def pictures_of(pool: BasePool, chosen: Tensor) -> Tensor:
    """Pictures by place, (N, 3, 64, 64) in [−1, 1]."""
    return torch.from_numpy(pool.pictures[chosen.numpy()]).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours: a loss on them keeps thin lines (glasses, windows) that a pixel loss blurs."""
    return images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1]


def make(folder: Path, recipe: Recipe, pool: BasePool, device: torch.device) -> AutoencoderKL:
    """Train the autoencoder, or read it when it is done, and set its scaling factor to 1 / std of the latents."""
    torch.manual_seed(seeds.derive(recipe.seed, "autoencoder", "start"))
    model = build(recipe).to(device, memory_format=torch.channels_last)

    def loss_at(step: int) -> dict[str, Tensor]:
        generator = seeds.generator(recipe.seed, "autoencoder", step)
        chosen = torch.randint(0, len(pool.pictures), (recipe.autoencoder_batch,), generator=generator)
        images = pictures_of(pool, chosen).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            latents = model.encode(images).latent_dist
            noise = torch.randn(latents.mean.shape, generator=generator).to(device)
            again = model.decode(latents.mean + latents.std * noise).sample.float()
        pixel = F.l1_loss(again, images) + F.mse_loss(again, images)
        edge = sum(F.l1_loss(a, b) for a, b in zip(edges(again), edges(images), strict=True))
        kl = latents.kl().float().mean()
        return {"loss": pixel + EDGE_WEIGHT * edge + KL_WEIGHT * kl, "pixel": pixel, "kl": kl}

    train(
        "autoencoder",
        folder,
        steps=recipe.autoencoder_steps,
        rate=recipe.autoencoder_rate,
        warm_up=50,
        trained=list(model.parameters()),
        state=checkpoints.named_tensors(autoencoder=model),
        loss_at=loss_at,
        weight_decay=0.0,
    )
    model.eval().requires_grad_(False)
    sample = torch.randperm(len(pool.pictures), generator=seeds.generator(recipe.seed, "scale"))[:512]
    model.register_to_config(scaling_factor=round(1 / float(encode(model, pool, sample, device).std()), 5))
    return model


@torch.no_grad()
def encode(model: AutoencoderKL, pool: BasePool, chosen: Tensor, device: torch.device, batch: int = 64) -> Tensor:
    """The mean latents of pictures by place, unscaled, (N, channels, 16, 16) on the CPU."""
    parts = []
    for some in chosen.split(batch):
        images = pictures_of(pool, some).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(model.encode(images).latent_dist.mean.float().cpu())
    return torch.cat(parts)
