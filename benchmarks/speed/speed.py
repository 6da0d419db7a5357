"""How fast, and in how little memory, against what people run today? One command makes every row again.

    python benchmarks/speed/speed.py --out benchmarks/speed/results.json --diffusers PATH

PATH is a checkout of github.com/huggingface/diffusers, for its training scripts; without it their rows say so. Rows
are ratios of medians in one run, ours over the peer's: below 1 is faster or smaller.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import drawing
import layers
import scripts
import step
import torch
from diffusers.utils import logging

from stamina_diffusion import files, testing

HERE = Path(__file__).parent
GROWTH = HERE.parent / "growth" / "results.json"

ON_A_GPU = (
    "training step at 64x64 latents, bf16: time, and over the floor of its operations and bytes",
    "a concept of 500 steps, seconds",
    "peak memory of a training step",
)


def growth() -> list[dict[str, Any]]:
    """What the growth benchmark found, as rows; it has a command of its own."""
    found = json.loads(GROWTH.read_text(encoding="utf-8"))
    pairs = (
        ("training step (s), concept 50 over concept 1", "step_seconds_last", "step_seconds_first", "concept 1"),
        ("drawing 4 pictures (s), 50 concepts folded in", "draw_seconds_grown", "draw_seconds_base", "the plain base"),
    )
    keep = {key: found[key] for key in ("machine", "command", "date")}
    return [
        {
            "measure": measure,
            "model": f"the embedded base, {found['concepts']} concepts",
            "ours": found[ours],
            "peer": found[peer],
            "peer_name": name,
            "ratio": round(found[ours] / found[peer], 3),
            **keep,
        }
        for measure, ours, peer, name in pairs
    ]


def not_measured() -> list[dict[str, Any]]:
    note = "not measured: no GPU"
    return [
        {
            "measure": measure,
            "model": model,
            "machine": "GPU",
            "ours": None,
            "peer": None,
            "peer_name": "",
            "ratio": None,
        }
        | {"note": note}
        for model in ("Stable Diffusion 1.5", "SDXL")
        for measure in ON_A_GPU
    ]


def steps_and_scripts(given: argparse.Namespace, threads: int) -> list[dict[str, Any]]:
    """Training steps of the real architecture, and diffusers' scripts on the same model in a folder."""
    found = step.rows(given.latents, given.rank, given.steps, given.turns, threads)
    ours = next(row for row in found if row["measure"] == "training step, time (s): STAMINA, full mask")
    with tempfile.TemporaryDirectory() as folder:
        model, photos = Path(folder) / "model", Path(folder) / "photos"
        if given.diffusers:
            step.pipeline(given.latents).save_pretrained(model)
            photos.mkdir()
            for place, picture in enumerate(testing.noise_pictures(2, 8 * given.latents)):
                picture.save(photos / f"{place}.png")
        options = {"resolution": 8 * given.latents, "steps": given.steps, "threads": threads}
        named = {"name": "STAMINA, full mask", "seconds": ours["ours"], "model": ours["model"]}
        return found + scripts.rows(given.diffusers, model, photos, named, **options)


def commit() -> str:
    ran = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unknown"


def main(given: argparse.Namespace) -> list[dict[str, Any]]:
    logging.set_verbosity_error()
    threads = torch.get_num_threads()
    parts: dict[str, Any] = {
        # First, while this process has used one thread only: its arms are forks of it.
        "step": lambda: steps_and_scripts(given, threads),
        "layers": lambda: [
            *(
                row
                for model, share in (("Stable Diffusion 1.5", given.share // 3 or 1), ("SDXL", given.share))
                for prompts in (1, 8)
                for row in layers.rows(model, share, prompts, given.rank, given.repeats)
            ),
            layers.held_by_all("SDXL", given.rank),
        ],
        "drawing": lambda: drawing.rows(given.rank, 10, given.repeats),
        "growth": growth,
        "gpu": not_measured,
    }
    found: list[dict[str, Any]] = []
    shared = {
        "machine": f"{platform.machine()}, {threads} thread(s), torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start",
        "command": " ".join(["python benchmarks/speed/speed.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }
    for name, part in parts.items():
        if given.only and name not in given.only:
            continue
        if name != "step":
            torch.set_num_threads(threads)
        for row in part():
            found.append(shared | row)
            print(json.dumps(row, ensure_ascii=False), flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--diffusers", type=Path, help="a checkout of diffusers' repository")
    parser.add_argument("--only", nargs="*", choices=["step", "layers", "drawing", "growth", "gpu"])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5, help="turns of the layers and the drawing")
    parser.add_argument("--share", type=int, default=10, help="take every n-th matrix of SDXL, n/3-th of SD 1.5")
    parser.add_argument("--latents", type=int, default=16, help="side of the latents of a training step; 64 is real")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=2, help="runs of each arm of the training step")
    options = parser.parse_args()
    if options.diffusers:
        options.diffusers = options.diffusers.resolve()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    answer = main(options)
    if options.out:
        files.write_json(options.out, answer)
