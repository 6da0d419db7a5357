"""The names of Stable Diffusion 1.x and 2.x in the code that first had them, latent-diffusion, from diffusers' names.

The layout: the U-Net under `model.diffusion_model.` as numbered input, middle and output blocks; the autoencoder under
`first_stage_model.`; the text encoder under `cond_stage_model.transformer.` (1.x, CLIP) or `cond_stage_model.model.`
(2.x, OpenCLIP, its query, key and value in one matrix).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
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


def unet_name(name: str, layers: int) -> str:
    """A U-Net tensor's name in the first layout; `layers` is the config's `layers_per_block`.

    >>> unet_name("down_blocks.1.resnets.0.conv1.weight", 2), unet_name("up_blocks.1.attentions.2.norm.bias", 2)
    ('input_blocks.4.0.in_layers.2.weight', 'output_blocks.5.1.norm.bias')
    >>> unet_name("down_blocks.0.downsamplers.0.conv.bias", 2)
    'input_blocks.3.0.op.bias'
    """
    for start, place in _UNET_ENDS.items():
        if name.startswith(f"{start}."):
            return place + name.removeprefix(start)
    if found := re.fullmatch(r"mid_block\.resnets\.(\d)\.(\w+)\.(\w+)", name):
        return f"middle_block.{2 * int(found[1])}.{_UNET_RESNET[found[2]]}.{found[3]}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    assert found is not None, name
    way, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    # A block has its layers and then, except the last, one that changes the size; the first number is conv_in's.
    first = block * (layers + 1) + (1 if way == "down" else 0)
    side = "input_blocks" if way == "down" else "output_blocks"
    if kind == "downsamplers":
        return f"{side}.{first + layers}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        # Behind the block's last attention, where it has one; `unet` knows and puts its number here.
        return f"{side}.{first + layers}.{{}}.{rest}"
    if kind == "attentions":
        return f"{side}.{first + layer}.1.{rest}"
    part, _, end = rest.rpartition(".")
    return f"{side}.{first + layer}.0.{_UNET_RESNET[part]}.{end}"


def unet(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A U-Net's state dict under the first layout's names."""
    attended = {int(found[1]) for name in tensors if (found := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    named = {}
    for name, tensor in tensors.items():
        block = int(name.split(".")[1]) if name.startswith("up_blocks.") else -1
        named[UNET + unet_name(name, layers).format(2 if block in attended else 1)] = tensor
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


def clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's text encoder, as Stable Diffusion 1.x holds it."""
    return {CLIP + name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}


def open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's text encoder, as Stable Diffusion 2.x holds it."""
    plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    named = {}
    for name, tensor in plain.items():
        if name in _OPEN_CLIP_ENDS:
            named[OPEN_CLIP + _OPEN_CLIP_ENDS[name]] = tensor
            continue
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if found is None:
            continue  # a buffer of positions
        block = f"{OPEN_CLIP}transformer.resblocks.{found[1]}"
        if found[2] in _OPEN_CLIP_LAYER:
            named[f"{block}.{_OPEN_CLIP_LAYER[found[2]]}.{found[3]}"] = tensor
        elif found[2] == "self_attn.q_proj":
            three = [plain[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            named[f"{block}.attn.in_proj_{found[3]}"] = torch.cat(three)
    return named
