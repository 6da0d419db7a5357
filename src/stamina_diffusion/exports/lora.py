"""An ordinary LoRA of one rank that comes as near as that rank can: Δ ≈ B A, by singular values (Eckart, Young 1936).

The change of several masked concepts is of full rank, so this file is not the model itself: it says for each layer how
far off it is, ‖Δ − BA‖/‖Δ‖, and for whole pictures how far the host's drawings lie from the studio's. A layer is what
the layout calls one: in kohya's names of SD 3 and FLUX.1, query, key and value of a stream together.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import files
from ..backbones.diffusion.original_names import Place, gathered
from ..backbones.diffusion.text_to_image import TextToImage
from ..errors import ExportError
from ..loras import kohya_name, module_of
from . import hosts, pictures
from .embeddings import how, in_uis, load, write_words
from .headers import header
from .source import Source, Written

RANK = 16
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"

_DIFFUSERS = """\
```python
pipeline.load_lora_weights("{folder}", weight_name="{file}")
{words}```
"""
_KOHYA = """\
Put `{file}` where {hosts} look for LoRA files.

{uis}
"""


class Factors(NamedTuple):
    """A layer's change by its singular values, the largest first; a convolution's with its kernel laid flat."""

    up: Tensor
    """U √S, (out, n)."""
    down: Tensor
    """√S Vᵀ, (n, in)."""
    values: Tensor
    """S, (n,)."""
    kernel: tuple[int, ...]
    """What of the change's shape follows (out, in): nothing for a linear layer, (height, width) for a convolution."""

    def error(self, rank: int) -> float:
        """What ‖Δ − BA‖/‖Δ‖ is at a rank: the weight of the singular values left out."""
        energy = self.values.double().square()
        return float((energy[rank:].sum() / energy.sum()).sqrt())

    def off(self, change: Tensor, rank: int) -> float:
        """‖Δ − BA‖/‖Δ‖ of the factors as they are written."""
        near = self.up[:, :rank].double() @ self.down[:rank].double()
        return float((change.double().flatten(1) - near).norm() / change.double().norm())

    def at(self, rank: int) -> tuple[Tensor, Tensor]:
        """A and B at a rank, in the shapes that hosts expect; filled up with zeros where the layer has fewer values."""
        missing = max(0, rank - len(self.values))
        down = nn.functional.pad(self.down[:rank], (0, 0, 0, missing))
        up = nn.functional.pad(self.up[:, :rank], (0, missing))
        ones = (1,) * len(self.kernel)
        return down.view(rank, -1, *self.kernel), up.view(-1, rank, *ones)


def write(source: Source, folder: Path) -> Written:
    """The LoRA in the layout asked for, the words beside it, and the error of every layer."""
    moved = source.needs_change("lora")
    sites = source.now.weight_sites("network")
    mine = {
        name: pair.after.double() - pair.before.double()
        for name, pair in moved.items()
        if sites[name].parameter == "weight" and isinstance(sites[name].module, nn.Linear | nn.Conv2d)
    }
    if not mine:
        raise ExportError(
            "no layer that a LoRA can have was changed", where=source.studio.folder, do="Take --to kohya."
        )
    place = source.now.place if source.wanted.layout == "kohya" else Place
    changes = {module_of(name): change for name, change in gathered(mine, place).items()}
    factors = {name: factorize(change) for name, change in changes.items()}
    rank = chosen_rank(factors, source.wanted.rank, source.wanted.error)
    errors = {name: factors[name].off(change, rank) for name, change in changes.items()}
    tensors, path = named(factors, rank, source), folder / _file(source)
    told = header(source, tensors, kind="lora", rank=rank) | _metadata(factors, rank, source)
    files.write_tensors(path, tensors, told)
    words = write_words(source, folder)
    lost = _told_errors(source, errors, rank)
    left = len(moved) - len(mine)
    if left:
        lost.append(f"{left} changed tensors of norms and biases are left out: take --to kohya for them.")
    for line in lost:
        source.tell(line)
    picture = _picture_difference(source, path, words)
    source.tell(picture)
    use = (
        ""
        if source.wanted.layout == "diffusers"
        else _KOHYA.format(file=path.name, hosts=hosts.known(source.now).hosts, uis=in_uis(source))
    )
    if _diffusers_reads(source):
        use += "\nIn diffusers:\n\n" if use else ""
        use += _DIFFUSERS.format(folder=".", file=path.name, words=how(source, words))
    return Written(use, (*lost, picture))


def _diffusers_reads(source: Source) -> bool:
    return source.wanted.layout == "diffusers" or hosts.known(source.now).diffusers_reads_kohya


def factorize(change: Tensor) -> Factors:
    """The singular values of a layer's change, split evenly over its two factors; computed in float64."""
    left, values, right = torch.linalg.svd(change.double().flatten(1), full_matrices=False)
    root = values.sqrt()
    up, down = left * root, root.unsqueeze(1) * right
    return Factors(up.float(), down.float(), values.float(), tuple(change.shape[2:]))


def chosen_rank(factors: Mapping[str, Factors], rank: int | None, error: float | None) -> int:
    """The rank that was asked for, or the smallest that keeps every layer's error at `error` or below.

    One rank for all layers: diffusers before August 2026 scaled mixed ranks wrongly. Raises ExportError for a rank that
    is above every layer's own.
    """
    if error is not None:
        return max(next(r for r in range(1, len(f.values) + 1) if f.error(r) <= error) for f in factors.values())
    largest = max(factors, key=lambda name: len(factors[name].values))
    most = len(factors[largest].values)
    if rank is not None and rank > most:
        raise ExportError(
            f"rank {rank} is above every layer's own: the largest, {largest}, has {most}",
            do=f"Take --rank {most} or less; --error 0.01 finds the rank for an error.",
        )
    return min(RANK, most) if rank is None else rank


def named(factors: Mapping[str, Factors], rank: int, source: Source) -> dict[str, Tensor]:
    """The factors of modules at a rank under the names of the layout that was asked for."""
    tensors: dict[str, Tensor] = {}
    for module, some in factors.items():
        down, up = some.at(rank)
        if source.wanted.layout == "diffusers":
            name = f"{source.now.denoiser_name}.{module}"
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        else:
            name = kohya_name(module)
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            # Hosts scale by alpha/rank.
            tensors[f"{name}.alpha"] = torch.tensor(float(rank))
    return tensors


def _file(source: Source) -> str:
    if source.wanted.layout == "diffusers":
        return DIFFUSERS_FILE
    return f"{source.studio.folder.resolve().name}.safetensors"


def _metadata(factors: Mapping[str, Factors], rank: int, source: Source) -> dict[str, str]:
    if source.wanted.layout == "kohya":
        return {}
    # diffusers hands these to peft's LoraConfig, and an older one refuses fields that it does not know: only old ones.
    fields = {"r": rank, "lora_alpha": rank, "target_modules": sorted(factors)}
    named = {f"{source.now.denoiser_name}.{key}": value for key, value in fields.items()}
    return {"lora_adapter_metadata": json.dumps(named)}


def _told_errors(source: Source, errors: Mapping[str, float], rank: int) -> list[str]:
    for module, error in errors.items():
        source.tell(f"  {error:6.1%}  {module}")
    worst = max(errors, key=lambda name: errors[name])
    mean = sum(errors.values()) / len(errors)
    return [
        f"At rank {rank} a layer's change is off by {mean:.1%} on the mean and {errors[worst]:.1%} at the most "
        f"(‖Δ − BA‖/‖Δ‖; most at {worst})."
    ]


def _picture_difference(source: Source, path: Path, words: Sequence[Path]) -> str:
    """The same seeds, drawn by the folded model and by the base with this LoRA, loaded by diffusers' own code."""
    if not source.wanted.pictures:
        return "The difference of pictures was not measured: no pictures were asked for."
    if importlib.util.find_spec("peft") is None:
        return "The difference of pictures was not measured: diffusers loads a LoRA with peft, which is not installed."
    if not _diffusers_reads(source):
        return f"The difference of pictures was not measured: diffusers reads no such names of {source.now.name}."
    prompts = [f"a photo of {word}" for word in source.words.values()][-pictures.MOST :]
    with source.drawing(source.now) as backbone:
        folded = pictures.drawn(source, backbone, prompts)
    with source.drawing(hosted(source, words)) as host:
        plain = pictures.drawn(source, host, prompts)
        host.pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
        near = pictures.drawn(source, host, prompts)
    off, without = pictures.difference(folded, near), pictures.difference(folded, plain)
    return (
        f"Pictures of the same seeds differ from the studio's by {off:.3g} of 255 on the mean over "
        f"{len(prompts)} pictures; without the LoRA, the words alone, by {without:.3g}."
    )


def hosted(source: Source, words: Sequence[Path]) -> TextToImage:
    """The base with the words, as a host has them: loaded from their files by diffusers' own code where it has some."""
    host = source.studio.bare()
    for path, word in zip(words, source.words.values(), strict=True):
        load(host, path, word)
    return host
