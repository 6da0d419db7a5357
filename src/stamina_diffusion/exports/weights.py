"""The weights that learning may change, whole and in float32: the smallest exact file, of one size for ever.

Keys are the U-Net's own, so that `unet.load_state_dict(tensors, strict=False)` is all that is needed. Equal models give
equal bytes: the header holds nothing but the base's hash and the tensors'.
"""

from __future__ import annotations

from pathlib import Path

from .. import files
from .embeddings import write_words
from .headers import hash_of
from .source import Source, Written

FILE = "weights.safetensors"

_USE = """\
```python
from safetensors.torch import load_file

unknown = pipeline.unet.load_state_dict(load_file("{file}"), strict=False).unexpected_keys
assert not unknown
{words}```
"""


def write(source: Source, folder: Path) -> Written:
    """Every key and value of cross-attention, and whatever else was changed."""
    sites = source.now.weight_sites("cross-attention")
    names = [*sites, *(name for name in source.moved if name not in sites)]
    values = source.now.weight_sites("network")
    tensors = {name.removeprefix("unet."): values[name].value.detach().float().cpu() for name in names}
    digest = hash_of(tensors)
    files.write_tensors(folder / FILE, tensors, {"format": "pt", "stamina.base": source.studio.base["hash"]})
    source.tell(f"{len(tensors)} tensors, hash {digest}")
    words = write_words(source, folder)
    load = "".join(f'pipeline.load_textual_inversion("{path.relative_to(folder)}")\n' for path in words)
    return Written(f"{_USE.format(file=FILE, words=load)}\nHash of the tensors: `{digest}`\n")
