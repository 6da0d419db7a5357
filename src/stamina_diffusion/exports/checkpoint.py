"""One file with the whole model in the layout of Stable Diffusion's first code, which every host opens.

Hosts ship their own tokenizer and expect its number of rows, so the new words are not in it: they stand beside it as
embeddings. The configuration stands beside it too, for `from_single_file(..., config=...)` without a network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..errors import ExportError
from . import ldm
from .diffusers_folder import forget_places
from .embeddings import write_words
from .headers import header
from .source import Source, Written

FILE, CONFIG = "model.safetensors", "config"

_USE = """\
```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_single_file("{file}", config="{config}")
{words}```

In ComfyUI, A1111 and Forge put `{file}` where checkpoints go and the files of `embeddings/` where embeddings go.
`stamina init NEW --base {file}` goes on from it.
"""


def write(source: Source, folder: Path) -> Written:
    """The U-Net as it is now, the base's own text encoder and autoencoder, and the words beside it."""
    base = source.base.pipeline
    check(base, source.studio.base["source"])
    encoder = ldm.open_clip if base.text_encoder.config.hidden_act == "gelu" else ldm.clip
    tensors = {
        **ldm.unet(source.now.pipeline.unet.state_dict(), base.unet.config.layers_per_block),
        **ldm.vae(base.vae.state_dict(), len(base.vae.config.block_out_channels)),
        **encoder(base.text_encoder.state_dict()),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Straight to the disk: a whole model is not held a second time in memory as bytes.
    save_file(tensors, folder / FILE, header(source, tensors))
    _write_config(base, folder / CONFIG)
    words = write_words(source, folder)
    load = "".join(f'pipeline.load_textual_inversion("{path.relative_to(folder)}")\n' for path in words)
    told = f"{len(words)} new words are not in the file's own table: load them from embeddings/."
    lost = (told,) if words else ()
    for line in lost:
        source.tell(line)
    return Written(_USE.format(file=FILE, config=CONFIG, words=load), lost)


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
    pipeline.text_encoder.config.save_pretrained(folder / "text_encoder")
    pipeline.scheduler.save_config(folder / "scheduler")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    forget_places(folder)
