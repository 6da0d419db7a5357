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
    for site, pair in moved.items():
        difference = exact_difference(pair)
        off = (pair.before + difference - pair.after).abs()
        inexact, worst = inexact + int(off.count_nonzero()), max(worst, float(off.max()))
        tensors |= _named(sites[site], difference, source.moved)
    path = folder / f"{source.studio.folder.resolve().name}.safetensors"
    files.write_tensors(path, tensors, header(source, tensors, kind="lora"))
    write_words(source, folder)
    total = sum(pair.after.numel() for pair in moved.values())
    source.tell(f"{len(moved)} weights; {total - inexact} of {total} entries come back to the bit in float32")
    lost = (f"{inexact} of {total} entries come back within {worst:.1g} and not to the bit.",) if inexact else ()
    return Written(_USE.format(file=path.name), lost)


def exact_difference(pair: Moved) -> Tensor:
    """Δ in float32 such that before + Δ, rounded, is after; the nearest there is where rounding allows none."""
    # after − before, rounded, is mostly it; where it is not, a neighbour may be.
    best = (pair.after.double() - pair.before.double()).float()
    off = (pair.before + best - pair.after).abs()
    for towards in (torch.inf, -torch.inf):
        tried = torch.nextafter(best, best.new_tensor(towards))
        tried_off = (pair.before + tried - pair.after).abs()
        best = torch.where(tried_off < off, tried, best)
        off = torch.minimum(off, tried_off)
    return best


def _named(site: Site, difference: Tensor, moved: Mapping[str, Moved]) -> dict[str, Tensor]:
    """A site's difference under the key that hosts read for its kind of layer."""
    name, bias = kohya_name(site.name), site.parameter == "bias"
    if not isinstance(site.module, nn.GroupNorm | nn.LayerNorm):
        return {f"{name}.{'diff_b' if bias else 'diff'}": difference}
    own, other = ("b_norm", "w_norm") if bias else ("w_norm", "b_norm")
    twin = site.name.removesuffix(site.parameter) + ("weight" if bias else "bias")
    # A1111 reads a norm only when both are there.
    missing = {} if twin in moved else {f"{name}.{other}": torch.zeros_like(difference)}
    return {f"{name}.{own}": difference, **missing}
