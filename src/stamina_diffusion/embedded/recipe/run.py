"""All stages, one after another, or one of them; what is done is not done again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from ...errors import SettingsError
from . import Recipe, autoencoder, card, data, denoiser, judge, pack, pair


def stage(out: Path, recipe: Recipe, name: str) -> None:
    """One stage of `main`, in a process of its own: on a GPU two that do not need each other may run at a time.

    Raises SettingsError for the U-Net and the encoder where the pair, which both need, is not finished.
    """
    log = out / "pair.jsonl"
    if name in ("denoiser", "encoder") and (not log.exists() or card.log_of(log)[-1]["step"] < recipe.pair_steps):
        raise SettingsError("stage pair is not finished", where=out, do="Run it first: --stage pair")
    device = _device()
    out.mkdir(parents=True, exist_ok=True)
    pool = data.render(out / "data", recipe)
    if name == "autoencoder":
        autoencoder.make(out, recipe, pool, device)
        return
    tokenizer = data.tokenizer_of(out, pool, recipe)
    if name == "data":
        data.tokens_of(out, pool, tokenizer, recipe)
        return
    towers = pair.make(out, recipe, pool, tokenizer, device)
    if name == "encoder":
        pair.go_on_with_image_tower(out, recipe, pool, tokenizer, device, towers)
    if name == "denoiser":
        coder = autoencoder.build(recipe, pool).to(device)  # pyright: ignore[reportArgumentType]
        denoiser.make(out, recipe, pool, towers.text, tokenizer, coder, device)


def _device() -> torch.device:
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main(
    out: Path,
    recipe: Recipe | None = None,
    *,
    captions: int = 200,
    start: Path | None = None,
    part: Literal["denoiser", "encoder"] = "denoiser",
) -> judge.Verdict:
    """Make the embedded base in `out`: checkpoints and logs there, the files to ship under `out/weights`.

    With `start`, a folder of packed weights, only their U-Net is trained, and further, or with `part` their encoder:
    all else stays as it is. Interrupted, the same call goes on. On a GPU if there is one.
    """
    recipe = recipe or Recipe()
    device = _device()
    out.mkdir(parents=True, exist_ok=True)
    pool = data.render(out / "data", recipe)
    if start is not None:
        return _go_on(out, recipe, pool, start, part, device, captions)
    tokenizer = data.tokenizer_of(out, pool, recipe)
    towers = pair.make(out, recipe, pool, tokenizer, device)
    coder = autoencoder.build(recipe, pool)
    unet = denoiser.make(out, recipe, pool, towers.text, tokenizer, coder.to(device), device)  # pyright: ignore[reportArgumentType]
    coder = autoencoder.make(out, recipe, pool, device)
    towers = pair.go_on_with_image_tower(out, recipe, pool, tokenizer, device, towers)
    weights = pack.pack(out / "weights", towers.text, towers.encoder, tokenizer, coder, unet)
    return describe(out, weights, recipe, captions)


def _go_on(
    out: Path,
    recipe: Recipe,
    pool: data.BasePool,
    start: Path,
    part: Literal["denoiser", "encoder"],
    device: torch.device,
    captions: int,
) -> judge.Verdict:
    pipeline, encoder = pack.unpack(start)
    text, coder, unet = pipeline.text_encoder.eval().requires_grad_(False), pipeline.vae, pipeline.unet
    if part == "encoder":
        towers = pair.from_packed(recipe, pool, pipeline.tokenizer, text, encoder).to(device)
        encoder = pair.go_on_with_image_tower(out, recipe, pool, pipeline.tokenizer, device, towers).encoder
    else:
        text, coder = text.to(device), coder.to(device)
        unet = denoiser.make(out, recipe, pool, text, pipeline.tokenizer, coder, device, unet)
    weights = pack.pack(out / "weights", text, encoder, pipeline.tokenizer, coder, unet)
    return describe(out, weights, recipe, captions, start, {"denoiser": "U-Net"}.get(part, part))


def describe(
    out: Path, weights: Path, recipe: Recipe, captions: int = 200, start: Path | None = None, part: str = "U-Net"
) -> judge.Verdict:
    """Judge the packed files as a user would load them, and write the card beside them."""
    pipeline, encoder = pack.unpack(weights)
    device = _device()
    pipeline.to(device)
    encoder.to(device)
    verdict, shown = judge.judge(pipeline, encoder, captions=captions)
    networks = {"text encoder": pipeline.text_encoder, "U-Net": pipeline.unet, "autoencoder": pipeline.vae}
    parts = {
        name: (type(network).__name__, sum(p.numel() for p in network.parameters()))
        for name, network in (networks | {"encoder": encoder}).items()
    }
    card.write(weights, out, recipe, verdict, shown, parts, start, part)
    return verdict


def recipe_with(**changes: object) -> Recipe:
    """The recipe with other numbers, for a smaller run. Raises TypeError for a number it does not have."""
    return dataclasses.replace(Recipe(), **changes)  # type: ignore[arg-type]
