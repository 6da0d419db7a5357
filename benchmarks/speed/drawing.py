"""Drawing with many concepts: folded into the weights, or as so many LoRAs that diffusers has loaded at once."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft import LoraConfig

from stamina_diffusion import embedded

LOADED = (10, 50)


def with_loras(pipeline: Any, count: int, rank: int) -> Any:
    """A copy of the pipeline with `count` LoRAs of its cross-attention's keys and values, all of them on."""
    pipeline = copy.deepcopy(pipeline)
    names = [f"concept_{n}" for n in range(count)]
    for name in names:
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["attn2.to_k", "attn2.to_v"])
        pipeline.unet.add_adapter(config, adapter_name=name)
    pipeline.unet.set_adapters(names, [1.0] * count)
    return pipeline


def seconds(pipeline: Any, steps: int) -> float:
    began = time.perf_counter()
    draws = [torch.Generator().manual_seed(n) for n in range(4)]
    pipeline(["a photo of a person"] * 4, num_inference_steps=steps, generator=draws, output_type="np")
    return time.perf_counter() - began


def rows(rank: int, steps: int, turns: int) -> list[dict[str, object]]:
    """The plain pipeline, which is what a folded one is (see the growth benchmark), over N LoRAs loaded."""
    plain: Any = StableDiffusionPipeline.from_pretrained(embedded.folder(), safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    arms = {0: plain, **{count: with_loras(plain, count, rank) for count in LOADED}}
    times: dict[int, list[float]] = {count: [] for count in arms}
    for turn in range(turns + 1):
        for count, pipeline in arms.items():
            spent = seconds(pipeline, steps)
            if turn:
                times[count].append(spent)
    medians = {count: statistics.median(each) for count, each in times.items()}
    return [
        {
            "measure": f"drawing 4 pictures in {steps} steps (s), {count} concepts folded in",
            "model": f"the embedded base, rank {rank}, fp32",
            "ours": round(medians[0], 4),
            "peer": round(medians[count], 4),
            "peer_name": f"diffusers with {count} LoRAs loaded and on",
            "ratio": round(medians[0] / medians[count], 3),
        }
        for count in LOADED
    ]
