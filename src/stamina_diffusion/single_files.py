"""A base that is one .safetensors file, read by diffusers' own code and kept unpacked as a pipeline folder.

What a file does not say of itself (tokenizer, schedule, the autoencoder's scale) comes from a folder of configurations:
the one that is named, the folder `config` beside the file, or the family's own on the hub.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import files
from .errors import BaseModelError

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_SOUND = ("F64", "F32", "F16", "BF16", "I64", "I32")
_XL = "conditioner.embedders."
_CONVERT = "Convert it with diffusers' from_single_file and save_pretrained, and give the folder."


def config_of(path: Path, config: Path | None) -> Path | None:
    """The folder of configurations for a file: the one that is named or the one beside it; None for the hub's."""
    if config is not None:
        if not (config / "model_index.json").is_file():
            do = "Give the folder of a pipeline of the same family; its weights are not needed."
            raise BaseModelError("holds no configuration: it has no model_index.json", where=config, do=do)
        return config.resolve()
    beside = path.parent / "config"
    return beside if (beside / "model_index.json").is_file() else None


def check(path: Path) -> None:
    """Raise BaseModelError unless `path` holds a whole Stable Diffusion 1.x, 2.x or XL in plain numbers."""
    if path.suffix.lower() in _PICKLES:
        raise BaseModelError(
            "is a pickle, which can run code when it is opened",
            where=path,
            do="Take the .safetensors version, or convert it where you trust it.",
        )
    if path.suffix.lower() == ".gguf":
        do = "Take the .safetensors version in fp16, bf16 or fp32: small changes are lost in coarser numbers."
        raise BaseModelError("is quantised (GGUF)", where=path, do=do)
    if path.suffix.lower() != ".safetensors":
        do = "Give a .safetensors file or the folder of a diffusers pipeline."
        raise BaseModelError("is no model that can be read", where=path, do=do)
    kinds = _kinds(path)
    keys = list(kinds)
    strange = sorted(set(kinds.values()) - set(_SOUND))
    if strange:
        do = "Take the version in fp16, bf16 or fp32: small changes are lost in coarser numbers."
        raise BaseModelError(f"is quantised: it holds {', '.join(strange)}", where=path, do=do)
    if any(".lora_" in key or key.startswith("lora_") for key in keys):
        do = "Make a studio on its base model, then: stamina learn DIR --from-lora FILE --name NAME"
        raise BaseModelError("is a LoRA, not a model", where=path, do=do)
    for part, start in (("U-Net", "model.diffusion_model."), ("autoencoder", "first_stage_model.")):
        if not any(key.startswith(start) for key in keys):
            do = f"A file with all of Stable Diffusion 1.x, 2.x or XL is needed. Of another model: {_CONVERT}"
            raise BaseModelError(f"has no {part} of Stable Diffusion", where=path, do=do)
    if not _is_xl(keys):
        if any(key.startswith(_XL) for key in keys):
            do = "Take the base model: a refiner has one text encoder, and is drawn with behind it."
            raise BaseModelError("is the refiner of Stable Diffusion XL", where=path, do=do)
        if not any(key.startswith("cond_stage_model.") for key in keys):
            raise BaseModelError("has no text encoder", where=path, do="Take the checkpoint that has one.")


def _is_xl(keys: Iterable[str]) -> bool:
    """Whether a file has SDXL's two text encoders."""
    return all(any(key.startswith(f"{_XL}{place}.") for key in keys) for place in (0, 1))


def hash_of(path: Path, config: Path | None) -> str:
    """One hash over the file and its configuration."""
    from .bases import hash_of as of_folder

    configured = of_folder(config) if config else ""
    return hashlib.sha256(f"{files.sha256(path)}\n{configured}".encode()).hexdigest()


def unpacked(path: Path, config: Path | None, digest: str) -> Path:
    """The file as a pipeline folder in the user's cache, under the hash of the file; made where it is not there.

    Raises BaseModelError where diffusers cannot read the file or has no configuration for it.
    """
    folder = unpacked_folder(digest)
    if (folder / "model_index.json").is_file():
        return folder
    pipeline = _read(path, config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        pipeline.save_pretrained(beside, safe_serialization=True)
        if not folder.exists():
            os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def unpacked_folder(digest: str) -> Path:
    """Where the file with that hash is unpacked, or would be."""
    return cache() / digest[:32]


def cache() -> Path:
    """Where unpacked files are kept; they can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stamina-diffusion" / "bases"


def _read(path: Path, config: Path | None):
    import torch
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    kinds = _kinds(path)
    half = all(kind in ("F16", "I64", "I32") for kind in kinds.values())
    kind: Any = StableDiffusionXLPipeline if _is_xl(kinds) else StableDiffusionPipeline
    without: dict[str, Any] = {} if _is_xl(kinds) else {"safety_checker": None, "requires_safety_checker": False}
    try:
        return kind.from_single_file(
            str(path),
            config=str(config) if config else None,
            torch_dtype=torch.float16 if half else torch.float32,
            local_files_only=config is not None,
            **without,
        )
    except Exception as error:  # diffusers and the hub's client raise a dozen kinds
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if config is None:
            raise BaseModelError(
                f"its configuration could not be had from the hub ({said})",
                where=path,
                do="Give one with --config: the folder of a pipeline of the same family, without weights if need be.",
            ) from error
        raise BaseModelError(
            f"does not fit the configuration in {config} ({said})",
            where=path,
            do="Give its own family's with --config.",
        ) from error


def _kinds(path: Path) -> dict[str, str]:
    """The type of number of each tensor, by its key."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise BaseModelError(f"cannot be read as safetensors ({error})", where=path, do="Fetch it again.") from error
