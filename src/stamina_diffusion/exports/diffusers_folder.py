"""A plain diffusers pipeline folder: one call loads it, with the new words in its tokenizer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..studio import Studio

_CARD = """\
---
library_name: diffusers
pipeline_tag: text-to-image
tags: [text-to-image, diffusers, stable-diffusion, stamina-diffusion]
---

# A model that learned {count}

Made by stamina-diffusion from `{source}`, one concept after another, each folded into the weights.

| word | learned by | steps | photos |
|---|---|---|---|
{rows}

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


def write(studio: Studio, out: Path) -> Path:
    """Write the newest version to `out`, whole or not at all."""
    pipeline = studio.backbone().pipeline
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        pipeline.save_pretrained(beside, safe_serialization=True)
        (beside / "README.md").write_text(_card(studio, out), encoding="utf-8")
        if out.exists():
            out.rmdir()
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def _card(studio: Studio, out: Path) -> str:
    from ..settings import draw_settings, preset_for

    entries = studio.entries
    draw = draw_settings(preset_for(studio.base))
    return _CARD.format(
        count="1 concept" if len(entries) == 1 else f"{len(entries)} concepts",
        source=studio.base["source"],
        rows="\n".join(f"| `{e.word}` | {e.method} | {e.steps} | {len(e.photos)} |" for e in entries),
        folder=out.name,
        word=entries[-1].word if entries else "...",
        steps=draw.steps,
        guidance=draw.guidance,
    )
