"""The shipped base on one GPU, within a given time: `stamina pretrain` stage by stage, two at a time where they may.

    python benchmarks/base/gpu.py OUT --seconds 400 [--set KEY=VALUE ...]

The U-Net's steps are chosen from the time that is left, by a step measured while the first stages run; the card tells
how many they were. What is not finished in time is packed as its last checkpoint has it. On a slow host the stages
before the U-Net take most of the time: see docs/decisions/0004.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open

from stamina_diffusion.embedded.recipe import denoiser, loop, run
from stamina_diffusion.embedded.recipe.card import log_of
from stamina_diffusion.toml_tables import changed

MEASURED = 30
"""Steps that are timed."""
END = 45
"""Seconds kept for packing and judging."""
SHARE = 0.9
"""Of the time left that the steps should take: beside others a step may take longer than it was measured."""
BEGIN = 25
"""Seconds that a stage takes before its first step: imports, the pool, the latents."""

began = time.monotonic()


def say(what: str) -> None:
    print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)


def stage(out: Path, name: str | None, settings: list[str]) -> subprocess.Popen[bytes]:
    """One stage, or what is left, as a process with a log of its own."""
    say(f"{name or 'the rest'} begins")
    chosen = ["--stage", name] if name else []
    command = [sys.executable, "-m", "stamina_diffusion", "pretrain", "--out", str(out), *chosen]
    with open(out / f"{name or 'rest'}.log", "wb") as log:
        return subprocess.Popen([*command, *(f"--set={s}" for s in settings)], stdout=log, stderr=log)


def finished(process: subprocess.Popen[bytes], name: str, out: Path) -> None:
    if process.wait():
        print((out / f"{name}.log").read_text()[-3000:])
        raise SystemExit(f"{name} failed")
    say(f"{name} is done")


def seconds_of_a_step(recipe: run.Recipe) -> float:
    """What a step of the U-Net's training takes now, with whatever runs beside it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = denoiser.build(recipe).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = recipe.denoiser_batch(recipe.denoiser_steps)
    noisy = torch.randn(batch, recipe.latent_channels, 16, 16, device=device)
    states = torch.randn(batch, recipe.text_length, recipe.text_width, device=device)
    for step in range(MEASURED + 5):
        if step == 5:
            start = time.monotonic()
        with loop.mixed_precision(device):
            loss = model(noisy, torch.arange(batch, device=device), states, return_dict=False)[0].square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    loss.item()
    return (time.monotonic() - start) / MEASURED


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    out, settings = given.out, list(given.settings)
    out.mkdir(parents=True, exist_ok=True)
    recipe = changed(run.Recipe(), dict(one.split("=", 1) for one in settings))

    finished(stage(out, "data", settings), "data", out)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pair, coder = stage(out, "pair", settings), stage(out, "autoencoder", settings)
    time.sleep(BEGIN)
    a_step = seconds_of_a_step(recipe)
    say(f"a step of the U-Net takes {1000 * a_step:.1f} ms")
    torch.cuda.empty_cache()
    finished(pair, "pair", out)

    left = given.seconds - (time.monotonic() - began) - END - BEGIN
    steps = max(100, int(SHARE * left / a_step / 100) * 100)
    settings.append(f"denoiser_steps={steps}")
    say(f"{left:.0f} s for the U-Net: {steps} steps")
    drawer, encoder = stage(out, "denoiser", settings), stage(out, "encoder", settings)
    for process, name in ((drawer, "denoiser"), (encoder, "encoder"), (coder, "autoencoder")):
        try:
            process.wait(max(0.0, given.seconds - END - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done = checkpoint_step(out, name)
            settings.append(f"{'decoder' if name == 'autoencoder' else name}_steps={done}")
            say(f"the time is up: {name} stays as it was after {done} steps")
        else:
            finished(process, name, out)
    finished(stage(out, None, settings), "rest", out)
    for name in ("pair", "encoder", "autoencoder", "denoiser"):
        print(name, log_of(out / f"{name}.jsonl")[-1])


def checkpoint_step(out: Path, name: str) -> int:
    """The step of a stage's last checkpoint."""
    path = out / f"{name}.checkpoint.safetensors"
    if not path.exists():
        raise SystemExit(f"{name} had no time for its first checkpoint: give more --seconds; the same command goes on")
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["progress"])["step"]


if __name__ == "__main__":
    main()
