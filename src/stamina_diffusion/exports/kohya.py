"""The change of every weight, whole, under kohya's names: exact in ComfyUI, A1111 and Forge, with a strength slider.

`lora_unet_<module with _>.diff` is added to the weight, `.diff_b` to the bias, `.w_norm` and `.b_norm` to those of a
norm layer. Modules have the names of the family's first code where hosts know them by it; keys and values that share
one matrix there are written as that matrix, with zeros for what did not change. diffusers refuses such a file: it knows
low-rank changes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import files
from ..backbones.diffusion.original_names import gathered
from ..loras import kohya_name
from ..sites import Site
from . import hosts
from .embeddings import in_uis, write_words
from .headers import header
from .source import Source, Written

_USE = """\
Put `{file}` where {hosts} look for LoRA files. At strength 1 the host's model is the studio's. diffusers does not read
this form.

{uis}
"""


def write(source: Source, folder: Path) -> Written:
    """One file with every difference in float32, and the words beside it."""
    moved = source.needs_change("kohya")
    sites = source.now.weight_sites("network")
    differences, inexact, worst = {}, 0, 0.0
    for site, (before, after) in moved.items():
        differences[site] = difference = after - before
        # Exact, but where several changes left an entry much smaller than it was: float32 has no Δ that ends there.
        off = (before + difference - after).abs()
        inexact, worst = inexact + int(off.count_nonzero()), max(worst, float(off.max()))
    changes = _with_twins(differences, sites)
    norms = {source.now.place(site).name for site in changes if _is_norm(sites[site])}
    whole = gathered(changes, source.now.place)
    tensors = {_key(name, name in norms): value for name, value in whole.items() if _has_key(name)}
    left = [name for name in whole if not _has_key(name)]
    path = folder / f"{source.studio.folder.resolve().name}.safetensors"
    files.write_tensors(path, tensors, header(source, tensors, kind="lora"))
    write_words(source, folder)
    total = sum(pair.after.numel() for pair in moved.values())
    source.tell(f"{len(moved)} weights; {total - inexact} of {total} entries come back to the bit in float32")
    lost = []
    if inexact:
        told = f"{inexact} of {total} entries, that became much smaller, come back within {worst:.1g}, not to the bit."
        lost.append(told)
    if left:
        lost.append(f"{len(left)} changed tensors have no name in such files and are left out, among them {left[0]}.")
        source.tell(lost[-1])
    use = _USE.format(file=path.name, hosts=hosts.known(source.now).hosts, uis=in_uis(source))
    return Written(use, tuple(lost))


def _has_key(name: str) -> bool:
    """Whether hosts have a key for a tensor: a scale of FLUX's norms has none."""
    return name.endswith((".weight", ".bias"))


def _key(name: str, norm: bool) -> str:
    """The key that hosts read for a tensor of a kind of layer."""
    module, _, parameter = name.rpartition(".")
    keys = {"weight": "w_norm", "bias": "b_norm"} if norm else {"weight": "diff", "bias": "diff_b"}
    return f"{kohya_name(module)}.{keys[parameter]}"


def _is_norm(site: Site) -> bool:
    return isinstance(site.module, nn.GroupNorm | nn.LayerNorm)


def _with_twins(changes: Mapping[str, Tensor], sites: Mapping[str, Site]) -> dict[str, Tensor]:
    """The changes, and zeros where A1111 wants more: a bias only beside its weight, a norm only with both."""
    found = dict(changes)
    for name in changes:
        site, bias = sites[name], sites[name].parameter == "bias"
        twin = "weight" if bias else "bias"
        other = site.name.removesuffix(site.parameter) + twin
        if (bias or _is_norm(site)) and other not in changes:
            found[other] = torch.zeros_like(getattr(site.module, twin)).float().cpu()
    return found
