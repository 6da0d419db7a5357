"""The change of every weight, whole, under kohya's names: exact in ComfyUI, A1111 and Forge, with a strength slider.

`lora_unet_<module with _>.diff` is added to the weight, `.diff_b` to the bias, `.w_norm` and `.b_norm` to those of a
norm layer. diffusers refuses such a file: it knows low-rank changes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import files
from ..loras import kohya_name
from ..sites import Site
from .embeddings import write_words
from .headers import header
from .source import Moved, Source, Written

_USE = """\
Put `{file}` where LoRA files go and the files of `embeddings/` where embeddings go. At strength 1 the host's model is
the studio's. ComfyUI calls the words `embedding:name`, A1111 and Forge `name`. diffusers does not read this form.
"""


def write(source: Source, folder: Path) -> Written:
    """One file with every difference in float32, and the words beside it."""
    moved = source.needs_change("kohya")
    sites = source.now.weight_sites("network")
    tensors, inexact, worst = {}, 0, 0.0
    for site, (before, after) in moved.items():
        difference = after - before
        # Exact, but where several changes left an entry much smaller than it was: float32 has no Δ that ends there.
        off = (before + difference - after).abs()
        inexact, worst = inexact + int(off.count_nonzero()), max(worst, float(off.max()))
        tensors |= _named(sites[site], difference, moved)
    path = folder / f"{source.studio.folder.resolve().name}.safetensors"
    files.write_tensors(path, tensors, header(source, tensors, kind="lora"))
    write_words(source, folder)
    total = sum(pair.after.numel() for pair in moved.values())
    source.tell(f"{len(moved)} weights; {total - inexact} of {total} entries come back to the bit in float32")
    told = f"{inexact} of {total} entries, that became much smaller, come back within {worst:.1g} and not to the bit."
    lost = (told,) if inexact else ()
    return Written(_USE.format(file=path.name), lost)


def _named(site: Site, difference: Tensor, moved: Mapping[str, Moved]) -> dict[str, Tensor]:
    """A site's difference under the key that hosts read for its kind of layer."""
    name, bias = kohya_name(site.name), site.parameter == "bias"
    norm = isinstance(site.module, nn.GroupNorm | nn.LayerNorm)
    keys = {"weight": "w_norm", "bias": "b_norm"} if norm else {"weight": "diff", "bias": "diff_b"}
    found = {f"{name}.{keys[site.parameter]}": difference}
    # A1111 reads a bias only beside its weight, and a norm only when both are there.
    twin = "weight" if bias else "bias"
    if (bias or norm) and site.name.removesuffix(site.parameter) + twin not in moved:
        found[f"{name}.{keys[twin]}"] = torch.zeros_like(getattr(site.module, twin)).float().cpu()
    return found
