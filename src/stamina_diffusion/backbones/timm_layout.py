"""timm's layout of a vision transformer, read into transformers' model and written back, weight by weight.

The two libraries compute the same network; timm keeps query, key and value as one matrix and names things otherwise.
Nothing is approximate: cutting and stacking rows alters no number. timm itself is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from .. import files
from ..errors import BaseModelError
from .seeing import Grey, Sight

OUTSIDE = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj.weight": "vit.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "vit.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "vit.layernorm.weight",
    "norm.bias": "vit.layernorm.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
"""timm's name → transformers', outside the blocks."""

INSIDE = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
"""The same inside block N, 'blocks.N.' and 'vit.layers.N.', for weights and biases alike."""

FUSED, APART = "attn.qkv", ("attention.q_proj", "attention.k_proj", "attention.v_proj")

_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
_HEAD_WIDTH = 64
"""Of all ViTs that timm has under these names."""


def from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's tensors under transformers' names. Raises ValueError for a tensor that a plain ViT does not have."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if name in OUTSIDE:
            found[OUTSIDE[name]] = value
        elif block and block[2] == FUSED:
            for part, rows in zip(APART, value.chunk(3), strict=True):
                found[f"vit.layers.{block[1]}.{part}.{block[3]}"] = rows.clone()
        elif block and block[2] in INSIDE:
            found[f"vit.layers.{block[1]}.{INSIDE[block[2]]}.{block[3]}"] = value
        else:
            raise ValueError(f"a plain ViT has no {name!r}")
    return found


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under timm's names. Raises ValueError for a tensor that a plain ViT does not have."""
    outside, inside = ({there: here for here, there in names.items()} for names in (OUTSIDE, INSIDE))
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        block = re.fullmatch(r"vit\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if name in outside:
            found[outside[name]] = value
        elif block and block[2] == APART[0]:
            parts = [state[f"vit.layers.{block[1]}.{part}.{block[3]}"] for part in APART]
            found[f"blocks.{block[1]}.{FUSED}.{block[3]}"] = torch.cat(parts)
        elif block and block[2] in inside:
            found[f"blocks.{block[1]}.{inside[block[2]]}.{block[3]}"] = value
        elif not (block and block[2] in APART):
            raise ValueError(f"a plain ViT has no {name!r}")
    return found


def is_timm(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of timm: its configuration names an architecture rather than a model type."""
    try:
        told = files.read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and "architecture" in told and "model_type" not in told


def read(folder: Path) -> ViTForImageClassification:
    """timm's checkpoint as transformers' model. Raises BaseModelError for what is no plain ViT, or not whole."""
    told = files.read_json(folder / "config.json")
    try:
        tensors = files.read_tensors(folder / "model.safetensors")
        state = from_timm(tensors)
        network = ViTForImageClassification(_config(state, told))
        lacking, _ = network.load_state_dict(state, strict=False)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        do = "Take a plain ViT of timm (vit_base_patch16_224 and its kin) as safetensors."
        raise BaseModelError(f"timm's checkpoint cannot be read: {error}", where=folder, do=do) from error
    rows, said = network.config.num_labels, told.get("num_classes")
    if isinstance(said, int) and rows and said != rows:
        do = "Mend num_classes in its config.json, or export it again."
        raise BaseModelError(f"it names {said} classes and its head has {rows} rows", where=folder, do=do)
    if lacking:
        raise BaseModelError(f"it lacks {lacking[0]}", where=folder, do="Take a whole checkpoint.")
    return network.eval()


def _config(state: Mapping[str, Tensor], told: Mapping[str, Any]) -> ViTConfig:
    width, channels, patch, _ = state["vit.embeddings.patch_embeddings.projection.weight"].shape
    places = state["vit.embeddings.position_embeddings"].shape[1] - 1
    layers = 1 + max(int(match[1]) for name in state if (match := re.match(r"vit\.layers\.(\d+)\.", name)))
    inner = state["vit.layers.0.mlp.fc1.weight"].shape[0]
    asked = told.get("model_args") or {}
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=asked.get("num_heads", max(1, width // _HEAD_WIDTH)),
        intermediate_size=inner,
        image_size=round(places**0.5) * patch,
        patch_size=patch,
        num_channels=channels,
        # timm's; transformers' own default is 1e-12.
        layer_norm_eps=1e-6,
        num_labels=state["classifier.bias"].shape[0] if "classifier.bias" in state else 0,  # pyright: ignore
    )
    names = told.get("label_names")
    if isinstance(names, list) and len(names) == config.num_labels:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: place for place, name in enumerate(names)}
    return config


def sight_of(folder: Path) -> Sight:
    """How a checkpoint of timm wants its pictures."""
    told = files.read_json(folder / "config.json").get("pretrained_cfg") or {}
    side = told.get("input_size", [3, 224, 224])[-1]
    share = told.get("crop_pct") or 1.0
    squeezed = told.get("crop_mode") == "squash" and share == 1
    return Sight(
        side=side,
        resize=None if squeezed else int(side / share),
        mean=_grey(told.get("mean")),
        spread=_grey(told.get("std")),
        filter="bilinear" if told.get("interpolation") == "bilinear" else "bicubic",
    )


def _grey(told: Sequence[float] | None) -> Grey:
    red, green, blue = told or (0.5, 0.5, 0.5)
    return red, green, blue


def described(config: ViTConfig, classes: Sequence[str], sight: Sight) -> dict[str, Any]:
    """timm's `config.json`: `create_model(architecture, num_classes=..., **model_args)` makes the network."""
    size, patch, side = _SIZES.get(config.hidden_size, "base"), config.patch_size, config.image_size
    return {
        "architecture": f"vit_{size}_patch16_224",
        "num_classes": len(classes),
        "num_features": config.hidden_size,
        "label_names": list(classes),
        "model_args": {
            "img_size": side,
            "patch_size": patch,
            "embed_dim": config.hidden_size,
            "depth": config.num_hidden_layers,
            "num_heads": config.num_attention_heads,
            "mlp_ratio": config.intermediate_size / config.hidden_size,
        },
        "pretrained_cfg": {
            "input_size": [3, sight.side, sight.side],
            "interpolation": sight.filter,
            "crop_mode": "squash" if sight.resize is None else "center",
            "crop_pct": 1.0 if sight.resize is None else sight.side / sight.resize,
            "mean": list(sight.mean),
            "std": list(sight.spread),
            "num_classes": len(classes),
            "classifier": "head",
            "first_conv": "patch_embed.proj",
        },
    }
