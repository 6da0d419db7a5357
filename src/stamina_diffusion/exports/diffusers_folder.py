"""A plain diffusers pipeline folder: one call loads it, with the new words in its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from .source import Source, Written

_USE = """\
```python
import torch
from diffusers import {pipeline}

pipeline = {pipeline}.from_pretrained("{folder}")
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
    forget_places(folder)
    draw = source.draw
    word = [*source.words.values(), "..."][len(source.words) - 1 if source.words else 0]
    kind = type(source.now.pipeline).__name__
    text = _USE.format(pipeline=kind, folder=source.name, word=word, steps=draw.steps, guidance=draw.guidance)
    return Written(text)


def forget_places(folder: Path) -> None:
    """Take out of every configuration where on this machine it was read from: the libraries write that down."""
    for path in folder.rglob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
