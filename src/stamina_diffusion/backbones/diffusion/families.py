"""Which family a pipeline folder is of, by what the folder says of itself; nothing slow is imported to find out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import files
from ...errors import BaseModelError

if TYPE_CHECKING:
    import torch

    from .text_to_image import TextToImage

INDEX = "model_index.json"


@dataclass(frozen=True)
class Family:
    """Models of one make."""

    name: str
    pipeline: str
    """The diffusers class that loads and draws them."""
    backbone: str
    """Module and class in this folder."""
    networks: tuple[str, ...]
    """The folders that a pipeline must have, with weights in them."""
    optional: tuple[str, ...] = ()
    """Those that it may lack."""
    left_out: tuple[str, ...] = ()
    """Components that are not loaded."""
    preset: str = "paper"
    """The preset to take for a model of it when none is named."""


FAMILIES = (
    Family(
        "Stable Diffusion 1.x and 2.x",
        "StableDiffusionPipeline",
        "stable_diffusion.StableDiffusion",
        ("unet", "vae", "text_encoder"),
        left_out=("safety_checker",),
    ),
    Family(
        "Stable Diffusion XL",
        "StableDiffusionXLPipeline",
        "sdxl.SDXL",
        ("unet", "vae", "text_encoder", "text_encoder_2"),
        preset="sdxl",
    ),
    Family(
        "Stable Diffusion 3 and 3.5",
        "StableDiffusion3Pipeline",
        "sd3.SD3",
        ("transformer", "vae", "text_encoder", "text_encoder_2"),
        optional=("text_encoder_3",),
        preset="sd3",
    ),
    Family(
        "FLUX.1",
        "FluxPipeline",
        "flux.Flux",
        ("transformer", "vae", "text_encoder", "text_encoder_2"),
        preset="flux",
    ),
)
"""Every family, one entry each; a family's module is imported when a model of it is loaded."""

SUPPORTED = f"Families that can be taught: {', '.join(family.name for family in FAMILIES)}; text-to-image models."


DEEPEST = 1000
"""Layers of a network; the deepest that people draw with have fewer than a hundred."""


def recognise(folder: Path) -> Family:
    """The family of a diffusers pipeline folder. Raises BaseModelError that names the families we know."""
    return family_of(_index(folder), folder)


def family_of(described: Any, where: str | Path) -> Family:
    """The family of what a model_index.json says. Raises BaseModelError."""
    try:
        class_name = described["_class_name"]
    except (KeyError, TypeError) as error:
        raise BaseModelError("names no pipeline class in its model_index.json", where=where, do=SUPPORTED) from error
    for family in FAMILIES:
        if family.pipeline == class_name:
            return family
    raise BaseModelError(f"is a {class_name}", where=where, do=SUPPORTED)


def networks_in(folder: Path) -> list[str]:
    """The folders of networks that a pipeline's own index promises, the family's must-haves first."""
    family, described = recognise(folder), _index(folder)
    present = [name for name in family.optional if described.get(name) not in (None, [None, None])]
    return [*family.networks, *present]


def load(folder: Path, *, variant: str | None = None, where: str = "the base") -> TextToImage:
    """The model in a pipeline folder, every weight in float32, from safetensors only; `where` names it in errors.

    Raises BaseModelError.
    """
    import diffusers
    import torch

    family = recognise(folder)
    kind: Any = getattr(diffusers, family.pipeline)
    left_out: dict[str, Any] = dict.fromkeys(family.left_out)
    if left_out:
        left_out["requires_safety_checker"] = False
    for name in networks_in(folder):
        _check_depth(folder / name / "config.json")
    try:
        pipeline = kind.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, variant=variant, **left_out
        )
    except Exception as error:  # of three libraries, and of whatever a configuration makes them do
        lines = str(error).strip().splitlines() or [type(error).__name__]
        do = "Restore the pipeline's files; if they are right, they need more memory than there is."
        raise BaseModelError(f"the base cannot be loaded: {lines[0][:300]}", where=folder, do=do) from error
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            _check_complete(folder / name, part)
        elif name.startswith("tokenizer") and part is not None:
            _check_words(folder / name, part, pipeline.components.get(name.replace("tokenizer", "text_encoder")))
    return backbone_class(family)(pipeline, where)


def _check_depth(path: Path) -> None:
    """Raise BaseModelError where a network would have more layers than anybody could wait for."""
    try:
        numbers = {key: value for key, value in dict(files.read_json(path)).items() if "layers" in key}
    except (OSError, ValueError, TypeError):
        return  # the library says what is wrong with it
    for key, value in numbers.items():
        if isinstance(value, int) and value > DEEPEST:
            raise BaseModelError(f"has {value} as {key}", where=path, do="Restore the pipeline's files.")


def _check_words(folder: Path, tokenizer: Any, encoder: Any) -> None:
    """Raise BaseModelError where most words of a text encoder are not in its tokenizer."""
    known, wanted = len(tokenizer), int(encoder.config.vocab_size) if encoder is not None else 0
    if known < wanted // 2:
        what = f"knows {known} words, and its text encoder has {wanted}"
        raise BaseModelError(what, where=folder, do="Restore the pipeline's files.")


def _check_complete(folder: Path, network: torch.nn.Module) -> None:
    """Raise BaseModelError unless the files of a network hold every weight of it."""
    if not type(network).__module__.startswith("transformers."):
        # Diffusers leaves what it did not find without numbers; its old files have other names than the network.
        _say_absent(folder, [name for name, weight in network.named_parameters() if weight.is_meta])
        return
    # Transformers makes up what is missing, and only warns.
    from safetensors import safe_open

    there: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            there |= {key.removeprefix("text_model.") for key in file.keys()}  # noqa: SIM118 (no mapping)
    # By identity: a weight that is tied to another is in the files once.
    weights = dict(network.named_parameters(remove_duplicate=False))
    found = {id(weight) for name, weight in weights.items() if name.removeprefix("text_model.") in there}
    _say_absent(folder, [name for name, weight in weights.items() if id(weight) not in found])


def _say_absent(folder: Path, absent: list[str]) -> None:
    if absent:
        what = f"lacks {len(absent)} of its weights, among them {absent[0]}"
        raise BaseModelError(what, where=folder, do="Restore the pipeline's files.")


def backbone_class(family: Family) -> type[TextToImage]:
    """The class that teaches a family's models."""
    module, _, attribute = family.backbone.partition(".")
    return getattr(import_module(f".{module}", __package__), attribute)


def _index(folder: Path) -> dict[str, Any]:
    try:
        return files.read_json(folder / INDEX)
    except (OSError, ValueError) as error:
        raise BaseModelError(
            "is damaged: it names no pipeline class", where=folder / INDEX, do="Restore the file."
        ) from error
