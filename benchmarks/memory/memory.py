"""How much memory would a preset take at the real size of its model? Found from shapes alone, on any machine.

    python benchmarks/memory/memory.py --out benchmarks/memory/results.json

The networks have the published sizes and no weights. Nothing is computed; a GPU's own software takes half a GiB and
more on top. What is shown is what `stamina learn --dry-run` would say.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from stamina_diffusion import files, testing_pipelines
from stamina_diffusion.backbones.diffusion.sdxl import SDXL
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.backbones.diffusion.text_to_image import TextToImage
from stamina_diffusion.estimate import estimate
from stamina_diffusion.settings import resolve

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import forks

METHODS = ("stamina", "lora")
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}


def empty(cls: Any, *given: Any, **values: Any) -> Any:
    """A network of its real shapes, whose memory is never touched."""
    with torch.device("meta"):
        return cls(*given, **values).to_empty(device="cpu")


def sd15() -> TextToImage:
    pipeline = testing_pipelines.tiny_pipeline()
    pipeline.unet = empty(UNet2DConditionModel, sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    pipeline.text_encoder = empty(CLIPTextModel, CLIPTextConfig(**CLIP_L))
    return _sized(StableDiffusion, pipeline)


def sdxl() -> TextToImage:
    pipeline = testing_pipelines.tiny_sdxl()
    pipeline.unet = empty(
        UNet2DConditionModel,
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    pipeline.text_encoder = empty(CLIPTextModel, CLIPTextConfig(**CLIP_L))
    pipeline.text_encoder_2 = empty(CLIPTextModelWithProjection, CLIPTextConfig(**CLIP_G, hidden_act="gelu"))
    return _sized(SDXL, pipeline)


def _sized(cls: type[TextToImage], pipeline: Any) -> TextToImage:
    pipeline.vae_scale_factor = 8
    backbone = cls(pipeline)
    for tokenizer in backbone.tokenizers:
        tokenizer.model_max_length = 77
    return backbone


PRESETS = {"sd15-8gb": sd15, "sdxl-12gb": sdxl, "sdxl-24gb": sdxl}


def main() -> list[dict[str, Any]]:
    rows = []
    for preset, make in PRESETS.items():
        backbone: TextToImage | None = None
        for place, method in enumerate(METHODS):
            resolved = resolve(preset, method)
            backbone = backbone or make().store(resolved.plan.storage)
            found = estimate(backbone, resolved.method, resolved.plan, f"a{place}", None)
            gibibytes = {f"{name}_gib": round(size / 2**30, 2) for name, size in found._asdict().items()}
            row = {"preset": preset, "method": method, **gibibytes, "whole_gib": round(found.whole / 2**30, 2)}
            rows.append({**row, "batch": resolved.plan.batch, "prior_images": resolved.plan.prior_images})
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {"rows": main(), **forks.facts("python benchmarks/memory/memory.py")}
    if given.out:
        files.write_json(given.out, found)
    else:
        print(json.dumps(found, indent=2))
