"""Stage 3: 64×64 pictures to 16×16×12 latents and back: a fixed linear encoder, and a decoder learned for it.

The encoder is the principal components of 4×4 blocks, written exactly into the weights of an `AutoencoderTiny` without
blocks. A thin variational autoencoder trained whole was tried first: after 12 minutes of a core it was worse (25.8 dB)
than eight components drawn back linearly (26.1 dB) and had lost small colours. Linear drawing back leaves a grid, so
the decoder is a convolutional network; as the encoder is fixed, the U-Net need not wait for it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from ... import checkpoints, seeds
from . import Recipe
from .data import BasePool, as_input
from .loop import mixed_precision, train

BLOCK = 4
ENTRIES = 3 * BLOCK * BLOCK
"""Numbers in a block of 4×4 pixels: the encoder's width, so that it can carry a block whole."""
WHITENING = 0.5
"""Component k is divided by its standard deviation to this power: between plain pixels (0) and equal variances (1)."""


def pictures_of(pool: BasePool, chosen: Tensor) -> Tensor:
    """Pictures by place, (N, 3, 64, 64) in [−1, 1]."""
    return as_input(pool.pictures[chosen.numpy()])


def build(recipe: Recipe, pool: BasePool) -> AutoencoderTiny:
    """The autoencoder with its encoder in place, scaled to latents of variance 1, and an untrained decoder."""
    width = recipe.autoencoder_width
    torch.manual_seed(seeds.derive(recipe.seed, "autoencoder", "start"))
    model = AutoencoderTiny(
        latent_channels=recipe.latent_channels,
        encoder_block_out_channels=(ENTRIES,) * 3,
        num_encoder_blocks=(0, 0, 0),
        decoder_block_out_channels=(width,) * 3,
        num_decoder_blocks=recipe.decoder_blocks,
        force_upcast=False,
    )
    sample = torch.randperm(len(pool.pictures), generator=seeds.generator(recipe.seed, "components"))[:2048]
    images = pictures_of(pool, sample)
    write_components(model, *components(images, recipe.latent_channels))
    with torch.no_grad():
        latents = model.encode(images[:512]).latents  # pyright: ignore[reportAttributeAccessIssue]
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    return model.eval().requires_grad_(False)


def components(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean block (48,) and the partly whitened principal axes (count, 48) of pictures in [−1, 1]."""
    blocks = F.pixel_unshuffle((images.double() + 1) / 2, BLOCK).permute(0, 2, 3, 1).reshape(-1, ENTRIES)
    variance, axes = torch.linalg.eigh(torch.cov(blocks.T))
    variance, axes = variance.flip(0)[:count], axes.flip(1)[:, :count]
    # An axis and its opposite are equally good; the largest entry is made positive so that machines agree.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return blocks.mean(0).float(), (axes * variance.sqrt() ** -WHITENING).T.float()


@torch.no_grad()
def write_components(model: AutoencoderTiny, mean: Tensor, axes: Tensor) -> None:
    """Write `axes @ (block − mean)` into the encoder's four convolutions; nothing is approximate."""
    enter, halve, quarter, leave = (layer for layer in model.encoder.layers if isinstance(layer, nn.Conv2d))
    for layer in (enter, halve, quarter, leave):
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    for colour in range(3):
        enter.weight[colour, colour, 1, 1] = 1
    for layer, channels in ((halve, 3), (quarter, 12)):
        # A stride of two with a 3×3 kernel sees the 2×2 pixels it replaces at places 1 and 2 of the kernel.
        for channel in range(channels):
            for down in range(2):
                for right in range(2):
                    layer.weight[4 * channel + 2 * down + right, channel, 1 + down, 1 + right] = 1
    order = F.pixel_unshuffle(F.pixel_unshuffle(torch.arange(ENTRIES).view(3, BLOCK, BLOCK), 2), 2).flatten()
    place = F.pixel_unshuffle(torch.arange(ENTRIES).view(3, BLOCK, BLOCK), BLOCK).flatten()
    column = {int(entry): i for i, entry in enumerate(place)}
    picked = axes[:, [column[int(entry)] for entry in order]]
    leave.weight[:, :, 1, 1] = picked
    assert leave.bias is not None
    leave.bias.copy_(-axes @ mean)


def edges(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours: a loss on them keeps thin lines (glasses, windows) that a pixel loss blurs."""
    return images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1]


def make(folder: Path, recipe: Recipe, pool: BasePool, device: torch.device) -> AutoencoderTiny:
    """Train the decoder, or read it when it is done."""
    model = build(recipe, pool).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportArgumentType]
    model.decoder.requires_grad_(True).train()
    pictures = torch.from_numpy(pool.pictures).to(device)

    def loss_at(step: int) -> dict[str, Tensor]:
        generator = seeds.generator(recipe.seed, "autoencoder", step)
        chosen = torch.randint(0, len(pool.pictures), (recipe.decoder_batch,), generator=generator).to(device)
        images = as_input(pictures[chosen])
        drawing = seeds.generator(recipe.seed, "autoencoder", step, "noise", device=device)
        with torch.no_grad():
            latents = model.encode(images).latents  # pyright: ignore[reportAttributeAccessIssue]
            # The U-Net's latents will not be perfect: a little noise teaches the decoder to forgive.
            level = recipe.decoder_noise * torch.rand(len(chosen), 1, 1, 1, generator=drawing, device=device)
            latents = latents + level * torch.randn(latents.shape, generator=drawing, device=device)
        with mixed_precision(device):
            again = model.decode(latents).sample  # pyright: ignore[reportAttributeAccessIssue]
        again = again.float()
        pixel = F.l1_loss(again, images) + F.mse_loss(again, images)
        edge = sum(F.l1_loss(a, b) for a, b in zip(edges(again), edges(images), strict=True))
        return {"loss": pixel + edge, "pixel": pixel}

    train(
        "autoencoder",
        folder,
        steps=recipe.decoder_steps,
        rate=recipe.decoder_rate,
        warm_up=50,
        trained=list(model.decoder.parameters()),
        state=checkpoints.named_tensors(decoder=model.decoder),
        loss_at=loss_at,
        weight_decay=0.0,
    )
    return model.eval().requires_grad_(False)


@torch.no_grad()
def encode(model: AutoencoderTiny, pool: BasePool, chosen: Tensor, device: torch.device) -> Tensor:
    """The latents of pictures by place, unscaled, (N, channels, 16, 16) on the CPU."""
    return torch.cat([model.encode(pictures_of(pool, some).to(device)).latents.cpu() for some in chosen.split(256)])  # pyright: ignore[reportAttributeAccessIssue]
