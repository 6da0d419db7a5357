"""The embedded ViT from nothing: render the base pool, ask the teacher, train, probe, pack with its card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ... import files
from ...backbones.seeing import Sight
from ...backbones.vit import processor_of
from .. import load_encoder
from ..encoder import RESOLUTION
from . import data, probe, vision
from .card import draw_losses, log_of, machine

LARGEST = 8_000_000
"""Bytes of all the files that the package ships of it."""
PROBE_EVERY = 1000

_CARD = """\
# The embedded ViT

A small vision transformer (`ViTForImageClassification`, {parameters:,} parameters, {width} wide, {depth} blocks,
patches of {patch} pixels of 64×64 pictures in [−1, 1]) that tells faces and landmarks of the procedural world apart in
four renditions: plain, sketch, pixel art, night. It has no class yet: `stamina classify` adds them. Made from nothing
by `stamina pretrain --what vit --out DIR` on the *base* pool; no picture of a person, no downloaded weight. It knows
its own world and nothing else.

## How good it is

Frozen features on {classes} identities of the *prior* pool, which neither it nor its teacher has seen; 24 views of each
teach, 12 ask, in all renditions; chance is {chance:.1%}.

| probe | accuracy |
|---|---|
| nearest class mean | {nearest_mean:.1%} |
| linear probe | {linear:.1%} |

## Recipe

Trained on {machine}: {steps:,} steps in {seconds:,.0f} seconds (other work on the machine included); last loss
{loss:.3f}. It learned the identities, the grades of the factors and the features of the embedded encoder.

![losses](losses.png)

| step | nearest class mean | linear probe |
|---|---|---|
{curve}

```json
{recipe}
```
"""


def main(out: Path, recipe: vision.VisionRecipe | None = None, *, identities: int = 100) -> dict[str, float]:
    """Make the embedded ViT in `out`: checkpoint and logs there, the files to ship under `out/weights`.

    Interrupted, the same call goes on. On a GPU if there is one. The answer is the probe's accuracies, in [0, 1], on
    `identities` of each family.
    """
    recipe = recipe or vision.VisionRecipe()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    pool = data.render(out / "data", recipe)
    asked = probe.prepare(out, identities)
    log = out / "probe.jsonl"

    def look(taught: vision.Taught, step: int) -> None:
        if (step + 1) % PROBE_EVERY == 0:
            row = {"step": step + 1} | asked.accuracies(features_of(taught, device))
            with open(log, "a") as file:
                file.write(json.dumps(row) + "\n")

    taught = vision.make(out, recipe, pool, _teacher(out, pool, device), device, look)
    found = asked.accuracies(features_of(taught, device))
    pack(out / "weights", taught)
    _describe(out, recipe, taught, found, 2 * identities)
    return found


def features_of(taught: vision.Taught, device: torch.device):
    """What turns pictures (N, 64, 64, 3) uint8 into features (N, width) on the CPU."""

    @torch.no_grad()
    def found(pictures: np.ndarray) -> Tensor:
        parts = (vision.as_input(pictures[i : i + 256]).to(device) for i in range(0, len(pictures), 256))
        return torch.cat([taught.features(part).cpu() for part in parts])

    return found


def _teacher(out: Path, pool: data.BasePool, device: torch.device) -> vision.Teacher:
    """What the embedded encoder says of the pool, computed once and kept."""
    path = out / "teacher.safetensors"
    if not path.exists():
        files.write_tensors(path, vision.teacher_of(load_encoder(), pool.pictures, device)._asdict())
    return vision.Teacher(**files.read_tensors(path))


def pack(out: Path, taught: vision.Taught) -> None:
    """Write the plain ViT into `out` as transformers reads it: float16 on the disk, float32 when loaded."""
    out.mkdir(parents=True, exist_ok=True)
    taught.vit.half().save_pretrained(out)
    taught.vit.float()
    # transformers loads in the type that the configuration names.
    config = out / "config.json"
    files.write_json(config, files.read_json(config) | {"dtype": "float32"})
    sight = Sight(side=RESOLUTION)
    files.write_json(out / "preprocessor_config.json", processor_of(sight))


def _describe(
    out: Path, recipe: vision.VisionRecipe, taught: vision.Taught, found: dict[str, float], classes: int
) -> None:
    weights, log = out / "weights", log_of(out / "vision.jsonl")
    curve = log_of(out / "probe.jsonl") if (out / "probe.jsonl").exists() else []
    # A run that was cut and went on may have probed a step twice; the later one counts.
    curve = list({row["step"]: row for row in curve}.values())
    draw_losses({"vision": log}, weights / "losses.png")
    card = _CARD.format(
        parameters=sum(p.numel() for p in taught.vit.parameters()),
        classes=classes,
        chance=1 / classes,
        machine=machine(),
        steps=log[-1]["step"],
        seconds=log[-1]["seconds"],
        loss=log[-1]["loss"],
        curve="\n".join(f"| {r['step']:,} | {r['nearest_mean']:.1%} | {r['linear']:.1%} |" for r in curve),
        recipe=json.dumps(dataclasses.asdict(recipe), indent=2),
        width=recipe.width,
        depth=recipe.depth,
        patch=recipe.patch,
        **found,
    )
    files.write_bytes(weights / "README.md", card.encode())
    size = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file())
    if size > LARGEST:
        raise ValueError(f"the packed files take {size} bytes, more than {LARGEST}")
