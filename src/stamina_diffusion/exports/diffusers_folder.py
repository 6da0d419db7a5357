"""A plain diffusers pipeline folder: one call loads it, with the new words in its tokenizer."""

from __future__ import annotations

from pathlib import Path

from ..settings import draw_settings, preset_for
from .source import Source, Written

_USE = """\
```python
import torch
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("{folder}")
picture = pipeline(
    "a photo of {word}",
    num_inference_steps={steps},
    guidance_scale={guidance},
    generator=torch.Generator("cpu").manual_seed(0),
).images[0]
```

Picture k of `stamina draw --seed s` is drawn from `torch.Generator("cpu").manual_seed(s + k)`.
"""


def write(source: Source, folder: Path) -> Written:
    """The pipeline of the newest version, whole; nothing is lost."""
    source.now.pipeline.save_pretrained(folder, safe_serialization=True)
    draw = draw_settings(preset_for(source.studio.base))
    word = [*source.words.values(), "..."][len(source.words) - 1 if source.words else 0]
    return Written(_USE.format(folder=source.name, word=word, steps=draw.steps, guidance=draw.guidance))
