"""What a network's tensors are called in the code that had its family first; hosts and kohya's tools name layers by it.

Stable Diffusion XL's U-Net is one of numbered blocks; Stable Diffusion 3 and FLUX.1 keep query, key and value of an
attention in one matrix, of which each of diffusers' is a third. Stable Diffusion 1.x and 2.x have such names too, in
single files; hosts and kohya's tools take diffusers' for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Place(NamedTuple):
    """Where one of diffusers' tensors stands: in which tensor, and in which of its rows."""

    name: str
    start: int = 0
    rows: int | None = None
    """Of the whole tensor; None where it is the same tensor."""
    swapped: bool = False
    """Whether its two halves, scale and shift, stand in the other order."""

    def theirs(self, ours: Tensor) -> Tensor:
        """Rows of ours in the order of theirs; and the other way round."""
        return torch.cat(ours.chunk(2)[::-1]) if self.swapped else ours


def gathered(ours: Mapping[str, Tensor], place: Callable[[str], Place]) -> dict[str, Tensor]:
    """Tensors under their original names; rows that none of `ours` has are zero."""
    found: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        at = place(name)
        if at.rows is None:
            found[at.name] = at.theirs(tensor)
            continue
        whole = found.setdefault(at.name, tensor.new_zeros(at.rows, *tensor.shape[1:]))
        whole[at.start : at.start + len(tensor)] = tensor
    return found


# ----------------------------------------------------------------------------------------------------------- the U-Net

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
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


def of_unet(name: str, layers: int, attended: bool = False) -> str:
    """A U-Net tensor's name; `layers` is the config's `layers_per_block`, `attended` whether its block has attention.

    >>> of_unet("down_blocks.1.resnets.0.conv1.weight", 2), of_unet("up_blocks.1.attentions.2.norm.bias", 2)
    ('input_blocks.4.0.in_layers.2.weight', 'output_blocks.5.1.norm.bias')
    >>> of_unet("down_blocks.0.downsamplers.0.conv.bias", 2), of_unet("up_blocks.0.upsamplers.0.conv.bias", 2, True)
    ('input_blocks.3.0.op.bias', 'output_blocks.2.2.conv.bias')
    """
    for start, place in _UNET_ENDS.items():
        if name.startswith(f"{start}."):
            return place + name.removeprefix(start)
    if found := re.fullmatch(r"mid_block\.resnets\.(\d)\.(\w+)\.(\w+)", name):
        return f"middle_block.{2 * int(found[1])}.{_UNET_RESNET[found[2]]}.{found[3]}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if found is None:
        return name  # a layer that the published models have not
    way, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    # A block has its layers and then, except the last, one that changes the size; the first number is conv_in's.
    first = block * (layers + 1) + (1 if way == "down" else 0)
    side = "input_blocks" if way == "down" else "output_blocks"
    if kind == "downsamplers":
        return f"{side}.{first + layers}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        # Behind the block's last attention, where it has one.
        return f"{side}.{first + layers}.{2 if attended else 1}.{rest}"
    if kind == "attentions":
        return f"{side}.{first + layer}.1.{rest}"
    part, _, end = rest.rpartition(".")
    return f"{side}.{first + layer}.0.{_UNET_RESNET[part]}.{end}"


# ---------------------------------------------------------------------------------------------------- joint attention

_EMBEDDER = "time_text_embed."
_SD3_ENDS = {
    "pos_embed.proj": "x_embedder.proj",
    f"{_EMBEDDER}timestep_embedder.linear_1": "t_embedder.mlp.0",
    f"{_EMBEDDER}timestep_embedder.linear_2": "t_embedder.mlp.2",
    f"{_EMBEDDER}text_embedder.linear_1": "y_embedder.mlp.0",
    f"{_EMBEDDER}text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_SD3_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_FLUX_ENDS = {
    f"{_EMBEDDER}timestep_embedder.linear_1": "time_in.in_layer",
    f"{_EMBEDDER}timestep_embedder.linear_2": "time_in.out_layer",
    f"{_EMBEDDER}text_embedder.linear_1": "vector_in.in_layer",
    f"{_EMBEDDER}text_embedder.linear_2": "vector_in.out_layer",
    f"{_EMBEDDER}guidance_embedder.linear_1": "guidance_in.in_layer",
    f"{_EMBEDDER}guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_FLUX_BLOCK = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_FLUX_SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
_THIRDS = {
    **{f"to_{one}": place for place, one in enumerate("qkv")},
    **{f"add_{one}_proj": place for place, one in enumerate("qkv")},
}
_SINGLE_PARTS = {"attn.to_q": 0, "attn.to_k": 1, "attn.to_v": 2, "proj_mlp": 3}
_MLP = 4
"""How many times wider than its stream the hidden layer of a single block of FLUX is."""


def of_sd3(name: str, width: int, blocks: int) -> Place:
    """A tensor of Stable Diffusion 3's transformer, which has streams of `width` and so many blocks.

    >>> of_sd3("transformer_blocks.3.attn.add_k_proj.weight", 1536, 24)
    Place(name='joint_blocks.3.context_block.attn.qkv.weight', start=1536, rows=4608, swapped=False)
    >>> of_sd3("proj_out.bias", 1536, 24).name
    'final_layer.linear.bias'
    """
    module, _, parameter = name.rpartition(".")
    if module in _SD3_ENDS:
        return Place(f"{_SD3_ENDS[module]}.{parameter}", swapped=module == "norm_out.linear")
    found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", module)
    if found is None:
        return Place(name)
    block, layer = f"joint_blocks.{found[1]}", found[2]
    attention, _, part = layer.rpartition(".")
    if attention in ("attn", "attn2") and part in _THIRDS:
        stream = "context_block" if part.startswith("add_") else "x_block"
        return Place(f"{block}.{stream}.{attention}.qkv.{parameter}", _THIRDS[part] * width, 3 * width)
    # The last block makes nothing more of the text, so its norm there is the other kind, with scale before shift.
    swapped = layer == "norm1_context.linear" and int(found[1]) == blocks - 1
    return Place(f"{block}.{_SD3_BLOCK.get(layer, layer)}.{parameter}", swapped=swapped)


def of_flux(name: str, width: int) -> Place:
    """A tensor of FLUX.1's transformer, which has streams of `width`.

    >>> of_flux("transformer_blocks.0.attn.add_v_proj.weight", 3072)
    Place(name='double_blocks.0.txt_attn.qkv.weight', start=6144, rows=9216, swapped=False)
    >>> of_flux("single_transformer_blocks.7.proj_mlp.bias", 3072)
    Place(name='single_blocks.7.linear1.bias', start=9216, rows=21504, swapped=False)
    """
    module, _, parameter = name.rpartition(".")
    if module in _FLUX_ENDS:
        return Place(f"{_FLUX_ENDS[module]}.{parameter}", swapped=module == "norm_out.linear")
    found = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", module)
    if found is None:
        return Place(name)
    layer, part = found[3], found[3].rpartition(".")[2]
    if found[1]:
        block = f"single_blocks.{found[2]}"
        if layer in _SINGLE_PARTS:
            return Place(f"{block}.linear1.{parameter}", _SINGLE_PARTS[layer] * width, (3 + _MLP) * width)
        place = _FLUX_SINGLE.get(layer, layer)
    else:
        block = f"double_blocks.{found[2]}"
        if part in _THIRDS:
            stream = "txt_attn" if part.startswith("add_") else "img_attn"
            return Place(f"{block}.{stream}.qkv.{parameter}", _THIRDS[part] * width, 3 * width)
        place = _FLUX_BLOCK.get(layer, layer)
    return Place(f"{block}.{place}.{'scale' if place.endswith('_norm') else parameter}")
