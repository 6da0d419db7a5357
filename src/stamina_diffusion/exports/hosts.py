"""What hosts know of each family: which formats something opens, who opens them, and how a header names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backbones.diffusion.text_to_image import TextToImage


@dataclass(frozen=True)
class Known:
    """Of a family."""

    hosts: str
    """Who reads files in kohya's names."""
    tag: str
    """The hub's word for it."""
    kohya_module: str
    """`ss_network_module` of its LoRA files."""
    refused: dict[str, str]
    """Format → why nothing opens it."""
    diffusers_reads_kohya: bool = True
    diffusers_reads_words: bool = True
    summarises: bool = True
    """Whether the denoiser gets CLIP's summary of a prompt beside its states."""
    has_t5: bool = False


_UIS = "ComfyUI, A1111 and Forge"
_NO_CHECKPOINT = {
    "checkpoint": "diffusers' scripts turn such files into pipelines and not the other way, so no layout is certain"
}
_KNOWN = {
    "Stable Diffusion 1.x or 2.x": Known(_UIS, "stable-diffusion", "networks.lora", {}, summarises=False),
    "Stable Diffusion XL": Known(_UIS, "stable-diffusion-xl", "networks.lora", {}),
    "Stable Diffusion 3": Known(
        "ComfyUI",
        "sd3",
        "networks.lora_sd3",
        _NO_CHECKPOINT,
        diffusers_reads_kohya=False,
        diffusers_reads_words=False,
        has_t5=True,
    ),
    "FLUX.1": Known("ComfyUI and Forge", "flux", "networks.lora_flux", _NO_CHECKPOINT, has_t5=True),
}
_WIDTHS = {768: ("stable-diffusion-v1", "sd_v1"), 1024: ("stable-diffusion-v2-512", "sd_v2")}


def known(backbone: TextToImage) -> Known:
    return _KNOWN[backbone.name]


def architecture(backbone: TextToImage) -> tuple[str, str]:
    """A model as `modelspec.architecture` and as kohya's `ss_base_model_version` say it."""
    config: Any = backbone.denoiser.config
    if backbone.name == "FLUX.1":
        return ("flux-1-dev" if config.guidance_embeds else "flux-1-schnell"), "flux1"
    if backbone.name == "Stable Diffusion 3":
        size = {24: "5-medium" if config.dual_attention_layers else "m", 38: "5-large"}.get(config.num_layers)
        return (f"stable-diffusion-3-{size}" if size else "stable-diffusion-3"), size or "sd3"
    if backbone.name == "Stable Diffusion XL":
        return "stable-diffusion-xl-v1-base", "sdxl_base_v1-0"
    width = config.cross_attention_dim
    found, version = _WIDTHS.get(width, (f"latent-diffusion-unet-{width}", f"unet_{width}"))
    if version == "sd_v2" and backbone.pipeline.scheduler.config.get("prediction_type") == "v_prediction":
        return "stable-diffusion-v2-768-v", "sd_v2_v"
    return found, version
