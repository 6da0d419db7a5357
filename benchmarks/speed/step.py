"""A training step of the real Stable Diffusion 1.5 architecture, with random weights, against what people run today.

Ours is `learn` itself. The peers are peft's LoRA and, where it is installed, LyCORIS, on the same keys and values with
the same learned word, loss, latents and optimizer. Every arm runs in a process of its own, forked from one that has
built the model and computed nothing: they share the weights, and each has its own peak of memory. Arms take turns.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import lycoris_peer
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from peft import LoraConfig
from transformers import CLIPTextConfig, CLIPTextModel

from stamina_diffusion import testing
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.concepts import Concept
from stamina_diffusion.deltas import Free
from stamina_diffusion.learn import learn
from stamina_diffusion.method import Method
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.plan import Plan
from stamina_diffusion.sites import changed

PEER = "peft LoRA"


def pipeline(latents: int) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's own architecture: 859.5 M parameters in its U-Net; a tokenizer of letters."""
    torch.manual_seed(0)
    tokenizer = testing.tiny_pipeline().tokenizer
    tokenizer.model_max_length = 77
    end = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end,
    )
    # The defaults of the U-Net's class are those of Stable Diffusion 1.x but for the width of its text.
    unet = UNet2DConditionModel(sample_size=latents, cross_attention_dim=768)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),  # type: ignore[arg-type]
        down_block_types=("DownEncoderBlock2D",) * 4,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * 4,  # type: ignore[arg-type]
        layers_per_block=2,
        sample_size=8 * latents,
    )
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **schedule),  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )


def ours(backbone: StableDiffusion, method: Method, concept: Concept, plan: Plan) -> list[float]:
    """The moments at which the steps of `learn` ended."""
    moments: list[float] = []
    learn(backbone, method, concept, {}, plan, watch=lambda step: moments.append(time.perf_counter()))
    return moments


def peft_lora(unet: Any, rank: int) -> list[torch.nn.Parameter]:
    """peft's adapters in a U-Net; the answer is what they train."""
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=["attn2.to_k", "attn2.to_v"]))
    return [p for p in unet.parameters() if p.requires_grad]


def lycoris(unet: Any, rank: int, algorithm: str) -> list[torch.nn.Parameter]:
    """LyCORIS' adapters in a U-Net; the answer is what they train."""
    return list(lycoris_peer.attach(unet, r".*attn2\.to_[kv]$", rank, algorithm).parameters())


def theirs(
    backbone: StableDiffusion, attach: Callable[[Any], list[torch.nn.Parameter]], concept: Concept, plan: Plan
) -> list[float]:
    """The same with somebody else's adapters in the U-Net; the word is learned as ours is."""
    method = LoRA(prior=False)
    backbone.grow(concept, method, plan.seed)
    sites = {name: site for name, site in backbone.sites(concept, "tokens").items() if site.role == "token"}
    words = {name: Free(site.shape) for name, site in sites.items()}
    trained = attach(backbone.pipeline.unet) + [p for word in words.values() for p in word.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=method.rate, weight_decay=plan.weight_decay)
    material = backbone.material(concept, method, plan)
    moments = []
    for step in range(plan.steps):
        with changed(sites, {name: word() for name, word in words.items()}):
            backbone.loss(backbone.batch(material, plan, plan.seed, concept.name, step)).backward()
        torch.nn.utils.clip_grad_norm_(trained, plan.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        moments.append(time.perf_counter())
    return moments


def in_a_fork(run: Callable[[], list[float]], threads: int) -> tuple[list[float], int]:
    """Seconds between the moments that `run` gives, without the first, and the peak of memory in bytes."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def child() -> None:
        torch.set_num_threads(threads)
        moments = run()
        there.send((moments, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))

    process: Any = context.Process(target=child)
    process.start()
    there.close()
    try:
        moments, peak = here.recv()
    except EOFError:
        raise SystemExit("a run of the step benchmark ended before its answer; is the memory full?") from None
    process.join()
    return [after - before for before, after in itertools.pairwise(moments)], peak


def rows(
    latents: int, rank: int, steps: int, turns: int, threads: int, *, with_lycoris: bool = False
) -> list[dict[str, object]]:
    torch.set_num_threads(1)  # A forked process cannot use threads that its parent has started.
    backbone = StableDiffusion(pipeline(latents))
    concept = Concept("rex", testing.noise_pictures(2, 8 * latents), class_word="dog")
    plan = Plan(steps=steps, batch=1, prior_images=0)
    plain: dict[str, Any] = {"rank": rank, "prior": False}
    methods: dict[str, Method] = {
        "STAMINA, full mask": Stamina(**plain, mask_rank=rank),
        "STAMINA, gates": Stamina(**plain, mask_rank=rank, mask="gates"),
        "LoRA": LoRA(**plain),
    }
    peers: dict[str, Callable[[Any], list[torch.nn.Parameter]]] = {PEER: lambda unet: peft_lora(unet, rank)}
    if with_lycoris:
        for name, algorithm in lycoris_peer.ALGORITHMS.items():
            peers[name] = lambda unet, algorithm=algorithm: lycoris(unet, rank, algorithm)
    arms: dict[str, Callable[[], list[float]]] = {
        name: lambda attach=attach: theirs(backbone, attach, concept, plan) for name, attach in peers.items()
    }
    for name, method in methods.items():
        arms[name] = lambda method=method: ours(backbone, method, concept, plan)
    times: dict[str, list[float]] = {name: [] for name in arms}
    peaks = dict.fromkeys(arms, 0)
    for _ in range(turns):
        for name, arm in arms.items():
            print(f"  step: {name}", file=sys.stderr, flush=True)
            gaps, peak = in_a_fork(arm, threads)
            times[name] += gaps
            peaks[name] = max(peaks[name], peak)
    what = (
        f"Stable Diffusion 1.5's architecture, random weights, {latents}x{latents} latents, batch 1, rank {rank}, "
        f"fp32, {len(times[PEER])} steps an arm"
    )
    medians = {name: statistics.median(each) for name, each in times.items()}
    return [
        {
            "measure": f"training step, {measure}: {name}",
            "model": what,
            "ours": round(values[name], 4),
            "peer": round(values[peer], 4),
            "peer_name": f"{peer} on the same K/V, with the same learned word",
            "ratio": round(values[name] / values[peer], 3),
        }
        for peer in peers
        for name in methods
        if peer == PEER or name.startswith("STAMINA")
        for measure, values in (("time (s)", medians), ("peak memory (bytes)", peaks))
    ]
