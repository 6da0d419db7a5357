"""The weights that learning may change, whole and in float32: the smallest exact file, of one size for ever.

Keys are the denoiser's own, so that `unet.load_state_dict(tensors, strict=False)` is all that is needed, or
`transformer.` where the model has one. Equal models give equal bytes: the header holds nothing but the base's hash and
the tensors'.
"""

from __future__ import annotations

from pathlib import Path

from .. import files
from .embeddings import how, write_words
from .headers import hash_of
from .source import Source, Written

FILE = "weights.safetensors"

_USE = """\
```python
from safetensors.torch import load_file

unknown = pipeline.{denoiser}.load_state_dict(load_file("{file}"), strict=False).unexpected_keys
assert not unknown
{words}```
"""


def write(source: Source, folder: Path) -> Written:
    """Every key and value of cross-attention, and whatever else was changed."""
    sites = source.now.weight_sites("cross-attention")
    names = [*sites, *(name for name in source.moved if name not in sites)]
    values = source.now.weight_sites("network")
    denoiser = source.now.denoiser_name
    tensors = {name.removeprefix(f"{denoiser}."): values[name].value.detach().float().cpu() for name in names}
    digest = hash_of(tensors)
    files.write_tensors(folder / FILE, tensors, {"format": "pt", "stamina.base": source.studio.base["hash"]})
    source.tell(f"{len(tensors)} tensors, hash {digest}")
    words = write_words(source, folder)
    use = _USE.format(file=FILE, denoiser=denoiser, words=how(source, words, imported=True))
    return Written(f"{use}\nHash of the tensors: `{digest}`\n")
