"""Does each preset fit the memory that it is named for? Its base at the published size, on tensors without numbers.

    python benchmarks/presets/presets.py --out benchmarks/presets/results.json

The networks are built from the published configurations. Nothing is computed and, but for a few matrices, nothing is
held: their weights are memory that was asked for and never touched. A step of learning is then run on shapes alone,
as `stamina learn --dry-run` does it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from stamina_diffusion import files
from stamina_diffusion.backbones.diffusion.text_to_image import TextToImage
from stamina_diffusion.estimate import estimate
from stamina_diffusion.quieting import quiet
from stamina_diffusion.settings import resolve
from stamina_diffusion.testing_pipelines import SD35_LARGE_SIZE, SDXL_SIZE, TINY

GIB = 2**30
FOUR: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
NAMED_FOR = {"sd15-8gb": 8, "sdxl-12gb": 12, "sdxl-24gb": 24, "sd35-24gb": 24, "flux-24gb": 24}


def clip(width: int, layers: int, *, projected: int = 0) -> nn.Module:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=projected or 768,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def t5() -> nn.Module:
    sizes: dict[str, Any] = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    return T5EncoderModel(T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", **sizes))


def parts(preset: str) -> tuple[str, dict[str, Callable[[], nn.Module]]]:
    """The family of a preset's base, and its networks at the published size."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

    if preset.startswith("sd15"):
        return "Stable Diffusion", {
            # The defaults of the U-Net's class are those of Stable Diffusion 1.x but for the width of its text.
            "unet": lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
            "text_encoder": lambda: clip(768, 12),
            "vae": lambda: AutoencoderKL(sample_size=512, **FOUR),
        }
    if preset.startswith("sdxl"):
        return "SDXL", {
            "unet": lambda: UNet2DConditionModel(**SDXL_SIZE),
            "text_encoder": lambda: clip(768, 12),
            "text_encoder_2": lambda: clip(1280, 32, projected=1280),
            "vae": lambda: AutoencoderKL(sample_size=1024, **FOUR),
        }
    if preset.startswith("sd35"):
        return "SD3", {
            "transformer": lambda: SD3Transformer2DModel(**SD35_LARGE_SIZE),
            "text_encoder": lambda: clip(768, 12, projected=768),
            "text_encoder_2": lambda: clip(1280, 32, projected=1280),
            "text_encoder_3": t5,
            "vae": lambda: AutoencoderKL(sample_size=1024, latent_channels=16, shift_factor=0.0609, **FOUR),
        }
    return "FLUX", {
        "transformer": lambda: FluxTransformer2DModel(guidance_embeds=True),
        "text_encoder": lambda: clip(768, 12),
        "text_encoder_2": t5,
        "vae": lambda: AutoencoderKL(sample_size=1024, latent_channels=16, shift_factor=0.1159, **FOUR),
    }


def untouched(network: nn.Module) -> nn.Module:
    """A network on the meta device as one on the CPU, whose weights take no memory as long as nobody reads them."""
    return network.to_empty(device="cpu")


def backbone_of(preset: str, storage: Any) -> TextToImage:
    from stamina_diffusion.backbones.diffusion.families import FAMILIES, backbone_class

    family, networks = parts(preset)
    pipeline = TINY[family]()
    for name, make in networks.items():
        with torch.device("meta"):
            network = make()
        # The tiny pipeline's own has the right tokenizer beside it, and its quirk of configuration.
        pipeline.register_modules(**{name: network.eval()})
    pipeline.vae_scale_factor = 8
    for name in ("tokenizer", "tokenizer_2"):
        if type(getattr(pipeline, name, None)).__name__ == "CLIPTokenizer":
            getattr(pipeline, name).model_max_length = 77
    known = next(one for one in FAMILIES if one.pipeline == type(pipeline).__name__)
    backbone = backbone_class(known)(pipeline).store(storage)
    for name in networks:
        untouched(getattr(pipeline, name))
    return backbone


def measured(preset: str, method: str) -> dict[str, Any]:
    began = time.perf_counter()
    resolved = resolve(preset, method)
    backbone = backbone_of(preset, resolved.plan.storage)
    found = estimate(backbone, resolved.method, resolved.plan, "rex", "dog")
    named = NAMED_FOR[preset]
    return {
        "preset": preset,
        "method": method,
        "named_for_gib": named,
        "estimated_gib": round(found.whole / GIB, 2),
        "weights_gib": round(found.weights / GIB, 2),
        "learned_gib": round(found.learned / GIB, 2),
        "step_gib": round(found.step / GIB, 2),
        "ratio": round(found.whole / GIB / named, 3),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main(presets: list[str], methods: list[str], out: Path | None) -> None:
    """Measure one after another, and write what is there after each: a large model takes minutes."""
    quiet()
    found: dict[str, Any] = {
        "rows": [],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "command": "python benchmarks/presets/presets.py --out benchmarks/presets/results.json",
        "date": datetime.date.today().isoformat(),
    }
    for preset in presets:
        for method in methods:
            print(f"{preset}, {method} ...", file=sys.stderr, flush=True)
            found["rows"].append(measured(preset, method))
            print(found["rows"][-1], flush=True)
            if out:
                files.write_json(out, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--presets", nargs="*", choices=list(NAMED_FOR), default=list(NAMED_FOR))
    parser.add_argument("--methods", nargs="*", default=["stamina"])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(given.presets, given.methods, given.out)
