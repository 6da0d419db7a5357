"""Stage 5: the pipeline folder and the encoder's file, in float16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from ... import files
from ..encoder import EmbeddedEncoder
from .denoiser import scheduler

LARGEST = 20_000_000
"""Bytes of all the files that the package ships."""


def pack(
    out: Path,
    text: CLIPTextModel,
    encoder: EmbeddedEncoder,
    tokenizer: CLIPTokenizer,
    autoencoder: AutoencoderTiny,
    unet: UNet2DConditionModel,
) -> Path:
    """Write `pipeline/` and `encoder.safetensors` under `out`; float16 on the disk, float32 when loaded."""
    shutil.rmtree(out, ignore_errors=True)
    networks: list[nn.Module] = [text, autoencoder, unet]
    for network in networks:
        network.to("cpu", torch.float16)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,  # pyright: ignore[reportArgumentType]
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )  # type: ignore[call-arg]
    pipeline.save_pretrained(out / "pipeline", safe_serialization=True)
    # transformers loads in the type that the configuration names, diffusers in float32: let both be float32.
    config = out / "pipeline" / "text_encoder" / "config.json"
    files.write_json(config, json.loads(config.read_text()) | {"dtype": "float32"})
    encoder.cpu().save(out / "encoder.safetensors")
    for network in networks:
        network.float()
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if size > LARGEST:
        raise ValueError(f"the packed files take {size} bytes, more than {LARGEST}")
    return out


def unpack(weights: Path) -> tuple[StableDiffusionPipeline, EmbeddedEncoder]:
    """What `pack` wrote, as a user would load it."""
    pipeline = StableDiffusionPipeline.from_pretrained(weights / "pipeline", safety_checker=None)
    return pipeline, EmbeddedEncoder.load(weights / "encoder.safetensors")
