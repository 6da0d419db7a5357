"""One file with the whole model in the layout of Stable Diffusion's first code, or SDXL's, which every host opens.

Hosts ship their own tokenizer and expect its number of rows, so the new words are not in it: they stand beside it as
embeddings. The configuration stands beside it too, for `from_single_file(..., config=...)` without a network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..errors import ExportError
from . import hosts, ldm
from .diffusers_folder import forget_places
from .embeddings import how, in_uis, write_words
from .headers import header
from .source import Source, Written

FILE, CONFIG = "model.safetensors", "config"

_USE = """\
```python
from diffusers import {pipeline}

pipeline = {pipeline}.from_single_file("{file}", config="{config}")
{words}```

In {hosts} put `{file}` where checkpoints go. {uis}
`stamina init NEW --base {file}` goes on from it.
"""


def write(source: Source, folder: Path) -> Written:
    """The U-Net as it is now, the base's own text encoders and autoencoder, and the words beside it."""
    # Read once more: its tables and tokenizers have no new words, which hosts have no room for.
    base = source.studio.bare().pipeline
    check(base, source.studio.base["source"])
    tensors = {
        **ldm.unet(source.now.denoiser.state_dict(), base.unet.config.layers_per_block),
        **ldm.vae(base.vae.state_dict(), len(base.vae.config.block_out_channels)),
        **_encoders(base),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Straight to the disk: a whole model is not held a second time in memory as bytes.
    save_file(tensors, folder / FILE, header(source, tensors))
    _write_config(base, folder / CONFIG)
    words = write_words(source, folder)
    told = f"{len(words)} new words are not in the file's own table: load them from embeddings/."
    lost = (told,) if words else ()
    for line in lost:
        source.tell(line)
    use = _USE.format(
        pipeline=type(base).__name__,
        file=FILE,
        config=CONFIG,
        words=how(source, words),
        hosts=hosts.known(source.now).hosts,
        uis=in_uis(source),
    )
    return Written(use, lost)


def _encoders(pipeline: Any) -> dict[str, Tensor]:
    """The text encoders in their places: one, CLIP's or OpenCLIP's; or both."""
    first = pipeline.text_encoder
    if hasattr(pipeline, "text_encoder_2"):
        second = ldm.open_clip(pipeline.text_encoder_2.state_dict(), ldm.SECOND_OF_TWO)
        return ldm.clip(first.state_dict(), ldm.FIRST_OF_TWO) | second
    return (ldm.open_clip if first.config.hidden_act == "gelu" else ldm.clip)(first.state_dict())


def check(pipeline: Any, where: str) -> None:
    """Raise ExportError for a base that the layout has no names for."""
    vae, layers = pipeline.vae, pipeline.unet.config.layers_per_block
    if type(vae).__name__ != "AutoencoderKL":
        raise ExportError(
            f"has an {type(vae).__name__}, for which a single file has no names",
            where=where,
            do="Take --to diffusers, or weights for the U-Net alone.",
        )
    if not isinstance(layers, int):
        raise ExportError("has blocks of different length", where=where, do="Take --to diffusers.")


def _write_config(pipeline: Any, folder: Path) -> None:
    """The pipeline's folder without its weights: what a single file does not say of itself."""
    pipeline.save_config(folder)
    for name in ("unet", "vae"):
        getattr(pipeline, name).save_config(folder / name)
    for name in ("", "_2") if hasattr(pipeline, "text_encoder_2") else ("",):
        getattr(pipeline, f"text_encoder{name}").config.save_pretrained(folder / f"text_encoder{name}")
        getattr(pipeline, f"tokenizer{name}").save_pretrained(folder / f"tokenizer{name}")
    pipeline.scheduler.save_config(folder / "scheduler")
    forget_places(folder)
