"""A LoRA file of diffusers or kohya, read as changes of a base's sites: Δ = alpha/r · B A, and what it cannot say.

Names: diffusers writes `unet.<module>.lora_A.weight` and `.lora_B.weight`, or `transformer.` (older:
`.lora.down.weight`, or `.processor.to_k_lora.down.weight`); kohya writes `lora_unet_<module with _>.lora_down.weight`,
`.lora_up.weight` and `.alpha`, and calls modules as the family's first code did (`TextToImage.place`), where one matrix
may be three of diffusers'. Without an alpha it is the rank, so that the change is B A itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .errors import LoraError
from .sites import Site

if TYPE_CHECKING:
    from .backbones.diffusion.original_names import Place
    from .backbones.diffusion.text_to_image import TextToImage

KOHYA = "lora_unet_"
_DENOISERS = ("unet.", "transformer.")
_TEXT = (
    *("text_encoder.", "text_encoder_2.", "text_encoders."),
    *("lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "bundle_emb."),
)
_XL, _FIRST, _SD3, _FLUX = "Stable Diffusion XL", "Stable Diffusion 1.x or 2.x", "Stable Diffusion 3", "FLUX.1"
_OTHER = "Stable Diffusion 3 or another diffusion transformer"
_FAMILIES = {
    _FLUX: r"(lora_unet_|diffusion_model\.)(double|single)_blocks|(transformer\.|lora_transformer_)single_",
    _SD3: r"(lora_unet_|diffusion_model\.)joint_blocks",
    _OTHER: r"transformer\.|diffusion_model\.|lora_transformer_",
    # Only SDXL has more than one or two of them in a U-Net's attention, and none in the first block.
    _XL: r"lora_te2_|text_encoder_2\.|lora_unet_(input|middle|output)_block|.*transformer_blocks[._][2-9]",
    _FIRST: r"(unet\.|lora_unet_)?(down_blocks[._]0[._]attentions|up_blocks[._]3)",
}
"""Family → how keys begin that only its LoRA files have; the first that fits."""
_HEADERS = {
    "stable-diffusion-xl": _XL,
    "sdxl": _XL,
    "stable-diffusion-v1": _FIRST,
    "stable-diffusion-v2": _FIRST,
    "sd_v": _FIRST,
    "stable-diffusion-3": _SD3,
    "stable-diffusion-v3": _SD3,
    "sd3": _SD3,
    "flux": _FLUX,
}
"""How `modelspec.architecture` or `ss_base_model_version` begins → family."""
_PARTS = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "alpha": "alpha",
}
_NO_LORA = {
    r"dora_scale$|lora_magnitude_vector": "is a DoRA: its weights are rescaled after the change",
    r"\.hada_": "is a LyCORIS LoHa",
    r"\.lokr_": "is a LyCORIS LoKr",
    r"\.lora_mid": "is a LoCon with a core tensor",
    r"\.oft_": "is an OFT adapter",
    r"\.diff(_b)?$|\.set_weight$": "holds whole differences, not a LoRA",
}
_ONLY_PLAIN = "Only plain LoRA files can be folded in."
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class Adopted:
    """What a LoRA file adds to a base."""

    changes: Mapping[str, Tensor]
    """By the name of the site, in its shape, float32."""
    ranks: Mapping[str, int]
    left_out: tuple[str, ...]
    """What is in the file and not in the changes, in words."""
    trigger: str | None
    """The words that its header names as the ones that call it."""
    sha256: str = ""
    path: Path = field(default_factory=Path)


def kohya_name(module: str) -> str:
    """The name of a module in kohya's files, from its path within the denoiser.

    >>> kohya_name("mid_block.attentions.0.proj_in")
    'lora_unet_mid_block_attentions_0_proj_in'
    """
    return KOHYA + module.replace(".", "_")


def module_of(site: str) -> str:
    """The module's path within the denoiser.

    >>> module_of("unet.conv_in.weight"), module_of("transformer.transformer_blocks.0.attn.to_q.bias")
    ('conv_in', 'transformer_blocks.0.attn.to_q')
    """
    return _within(site).rpartition(".")[0]


def _within(name: str) -> str:
    return next((name.removeprefix(start) for start in _DENOISERS if name.startswith(start)), name)


class _Target(NamedTuple):
    """A site that a layer of a file changes, by all of its rows or by some."""

    site: str
    at: Place | None


def read(path: Path, backbone: TextToImage) -> Adopted:
    """The changes that a LoRA file makes to a network's weights.

    Raises LoraError for what is no safetensors file, is quantised, is no LoRA, is for another family of models, or
    does not fit: each says which.
    """
    from . import files

    tensors, header = _opened(path)
    adapter = _adapter(path, header)
    text = [key for key in tensors if key.startswith(_TEXT)]
    rest = {key: tensor for key, tensor in tensors.items() if key not in text}
    sites = backbone.weight_sites("network")
    names = _names(backbone, sites)
    layers, unknown = _sorted(path, rest, names)
    made_for = _made_for(tensors, header, backbone.name)
    if unknown:
        what = f"is a LoRA for {made_for}" if made_for else f"has {len(unknown)} unknown keys, such as {unknown[0]}"
        raise LoraError(what, where=path, do=f"Take a LoRA that was made for the studio's own base, {backbone.name}.")
    if not layers:
        what = "changes only the text encoder" if text else "holds no LoRA"
        raise LoraError(what, where=path, do="A concept's change must be in the denoiser: take another file.")
    changes, ranks = {}, {}
    for module, parts in layers.items():
        for name, at in names[module]:
            if name in changes:
                raise LoraError(f"changes {name} twice", where=path, do="The file is damaged: fetch it again.")
            try:
                change, rank = _change(path, name, parts, sites[name], at, adapter, made_for)
            except (IndexError, RuntimeError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
                what = f"is damaged at {name}: {str(error)[:200]}"
                raise LoraError(what, where=path, do="Fetch it again.") from error
            # Of three that share a layer in the file some may stay as they are.
            if at is None or at.rows is None or bool(change.any()):
                changes[name], ranks[name] = change, rank
    left_out = (f"{len(text)} tensors of the text encoder: only its new word is learned here",) if text else ()
    # A word in angle brackets is a new row of another model's table: its letters mean nothing to this one.
    trigger = header.get("modelspec.trigger_phrase", "").split(",")[0].strip()
    trigger = None if not trigger or "<" in trigger else trigger
    return Adopted(changes, ranks, left_out, trigger, files.sha256(path), path.resolve())


def _names(backbone: TextToImage, sites: Mapping[str, Site]) -> dict[str, list[_Target]]:
    """What files call a layer → the sites that it is, or that are parts of it."""
    names: dict[str, list[_Target]] = {}
    for site in sites:
        if not site.endswith(".weight"):
            continue
        module, at = module_of(site), backbone.place(site)
        own = (module, kohya_name(module), f"lora_transformer_{module.replace('.', '_')}")
        names |= {name: [_Target(site, None)] for name in own}
        theirs = at.name.removesuffix(".weight")
        if theirs != module:
            for name in (kohya_name(theirs), f"diffusion_model.{theirs}"):
                names.setdefault(name, []).append(_Target(site, at))
    return names


def _made_for(tensors: Mapping[str, Tensor], header: Mapping[str, str], own: str) -> str | None:
    """The family that a file says it is for, or that its names are of; None where it may be `own`."""
    said = [str(header.get(key, "")) for key in ("modelspec.architecture", "ss_base_model_version")]
    found = next((family for start, family in _HEADERS.items() if any(one.startswith(start) for one in said)), None)
    if found is None:
        signs = _FAMILIES.items()
        found = next((family for family, sign in signs if any(re.match(sign, key) for key in tensors)), None)
    like_own = {_OTHER: (_SD3, _FLUX)}.get(found or "", (found,))
    return None if own in like_own else found


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise LoraError("there is no such file", where=path, do="Give the path of a .safetensors file.")
    if path.suffix.lower() in _PICKLES:
        raise LoraError(
            "is a pickle, which can run code when it is opened",
            where=path,
            do="Convert it to safetensors where you trust it.",
        )
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118, no mapping
            strange = sorted({kind for kind in found.values() if kind not in ("F32", "F16", "BF16", "F64")})
            if strange:
                raise LoraError(
                    f"is quantised: it holds {', '.join(strange)}",
                    where=path,
                    do="Take the version in fp16, bf16 or fp32: what was rounded away cannot be folded back.",
                )
            tensors = {key: file.get_tensor(key) for key in found}
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise LoraError(f"cannot be read as safetensors ({error})", where=path, do="Fetch it again.") from error


def _adapter(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """What the header says of the denoiser's adapter: rank, alpha and their exceptions, as diffusers writes it."""
    try:
        from . import files

        values = dict(files.parse_json(header.get("lora_adapter_metadata", "{}")))
    except (ValueError, TypeError) as error:
        raise LoraError("is damaged: its adapter metadata is no JSON", where=path, do="Fetch it again.") from error
    found = {_within(key): value for key, value in values.items() if not key.startswith(_TEXT)}
    if found.get("use_dora"):
        raise LoraError("is a DoRA", where=path, do=_ONLY_PLAIN)
    return found


def _sorted(
    path: Path, tensors: Mapping[str, Tensor], names: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """The tensors of each layer by their part, and the keys of which nothing is known."""
    pairs: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        plain = _within(re.sub(r"\.processor\.(to_\w+?)_lora\.(down|up)\.", r".\1.lora.\2.", key))
        part = next((part for part in _PARTS if plain.endswith(f".{part}")), None)
        module = re.sub(r"\.to_out$", ".to_out.0", plain.removesuffix(f".{part}"))
        if part is None or module not in names:
            for sign, what in _NO_LORA.items():
                if re.search(sign, plain):
                    raise LoraError(what, where=path, do=_ONLY_PLAIN)
            unknown.append(key)
            continue
        pairs.setdefault(module, {})[_PARTS[part]] = tensor
    return pairs, unknown


def _change(
    path: Path,
    name: str,
    parts: Mapping[str, Tensor],
    site: Site,
    at: Place | None,
    adapter: Mapping[str, Any],
    made_for: str | None,
) -> tuple[Tensor, int]:
    """Δ = alpha/r · B A in the shape of the site, which may be some rows of the file's layer; and r."""
    if "down" not in parts or "up" not in parts:
        missing = "down" if "up" in parts else "up"
        raise LoraError(f"has no {missing} matrix for {name}", where=path, do="The file is incomplete: fetch it again.")
    down, up = parts["down"].float(), parts["up"].float()
    a, b = down.flatten(1), up.flatten(1)
    rank = len(a)
    if b.shape[1] != rank:
        what = f"is damaged: at {name} one half has rank {rank}, the other {b.shape[1]}"
        raise LoraError(what, where=path, do="Fetch it again.")
    rows, columns = site.shape[0], site.shape[1:].numel()
    if at is not None and at.rows is not None:
        rows = at.rows
    fits = (len(b), a.shape[1]) == (rows, columns) and (down.dim() == 2 or down.shape[1:] == site.shape[1:])
    if not fits:
        other = made_for or "another model"
        raise LoraError(
            f"was made for {other}: at {name} it changes a {len(b)} × {a.shape[1]} matrix, and the base has "
            f"{rows} × {columns}",
            where=path,
            do="Take a LoRA that was made for the studio's own base model.",
        )
    if rank > min(rows, columns):
        raise LoraError(
            f"has rank {rank} at {name}, above the layer's own {min(rows, columns)}",
            where=path,
            do="No LoRA needs that: the file is damaged or made for another model.",
        )
    alpha = float(parts["alpha"]) if "alpha" in parts else _alpha(module_of(name), adapter, rank)
    scale = alpha / (rank**0.5 if adapter.get("use_rslora") else rank)
    if at is not None:
        b = at.theirs(b)[at.start : at.start + site.shape[0]]
    change = (scale * (b @ a)).view(site.shape)
    if not bool(torch.isfinite(change).all()):
        raise LoraError(f"holds numbers that are not finite, at {name}", where=path, do="Take another version of it.")
    return change, rank


def _alpha(module: str, adapter: Mapping[str, Any], rank: int) -> float:
    for pattern, value in (adapter.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith(f".{pattern}"):
            return float(value)
    return float(adapter.get("lora_alpha") or rank)
