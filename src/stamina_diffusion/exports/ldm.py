"""A whole Stable Diffusion in the layout of the code that had it first, latent-diffusion, from diffusers' tensors.

The layout: the U-Net under `model.diffusion_model.` as numbered input, middle and output blocks; the autoencoder under
`first_stage_model.`; the text encoder under `cond_stage_model.transformer.` (1.x, CLIP) or `cond_stage_model.model.`
(2.x, OpenCLIP, its query, key and value in one matrix). SDXL's two are `conditioner.embedders.0.transformer.` (CLIP)
and `conditioner.embedders.1.model.` (OpenCLIP, with its projection).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..backbones.diffusion.original_names import of_unet

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
FIRST_OF_TWO, SECOND_OF_TWO = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def unet(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A U-Net's state dict under the first layout's names; `layers` is the config's `layers_per_block`."""
    attended = {int(found[1]) for name in tensors if (found := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    named = {}
    for name, tensor in tensors.items():
        block = int(name.split(".")[1]) if name.startswith("up_blocks.") else -1
        named[UNET + of_unet(name, layers, block in attended)] = tensor
    return named


def vae_name(name: str, blocks: int) -> str:
    """An autoencoder tensor's name in the first layout; `blocks` is the number of its sizes.

    >>> vae_name("decoder.up_blocks.0.resnets.1.conv_shortcut.bias", 4)
    'decoder.up.3.block.1.nin_shortcut.bias'
    >>> vae_name("encoder.mid_block.attentions.0.to_out.0.weight", 4)
    'encoder.mid.attn_1.proj_out.weight'
    """
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    # The decoder's blocks are counted from the largest picture there, from the smallest here.
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{blocks - 1 - int(found[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{blocks - 1 - int(found[1])}.upsample", name)
    if found := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(\w+)", name):
        name = f"{found[1]}.mid.attn_1.{_VAE_ATTENTION[found[2]]}.{found[3]}"
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def vae(tensors: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """An autoencoder's state dict under the first layout's names; there attention is made of 1 × 1 convolutions."""
    named = {}
    for name, tensor in tensors.items():
        turned = ".mid_block.attentions." in name and tensor.dim() == 2
        named[VAE + vae_name(name, blocks)] = tensor[:, :, None, None] if turned else tensor
    return named


def clip(tensors: Mapping[str, Tensor], place: str = CLIP) -> dict[str, Tensor]:
    """CLIP's text encoder, as Stable Diffusion 1.x holds it, or SDXL as its first."""
    return {f"{place}text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}


def open_clip(tensors: Mapping[str, Tensor], place: str = OPEN_CLIP) -> dict[str, Tensor]:
    """OpenCLIP's text encoder, as Stable Diffusion 2.x holds it, or SDXL as its second."""
    plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    named = {}
    for name, tensor in plain.items():
        if name in _OPEN_CLIP_ENDS:
            named[place + _OPEN_CLIP_ENDS[name]] = tensor
            continue
        if name == "text_projection.weight":
            named[f"{place}text_projection"] = tensor.T
            continue
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if found is None:
            continue  # a buffer of positions
        block = f"{place}transformer.resblocks.{found[1]}"
        if found[2] in _OPEN_CLIP_LAYER:
            named[f"{block}.{_OPEN_CLIP_LAYER[found[2]]}.{found[3]}"] = tensor
        elif found[2] == "self_attn.q_proj":
            three = [plain[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            named[f"{block}.attn.in_proj_{found[3]}"] = torch.cat(three)
    return named
