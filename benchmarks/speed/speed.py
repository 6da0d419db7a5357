"""How fast, and in how little memory, against what people run today? One command makes every row again.

    python benchmarks/speed/speed.py --out benchmarks/speed/results.json --diffusers PATH --lycoris PATH

The first PATH is a checkout of github.com/huggingface/diffusers, for its training scripts; the second a folder with
LyCORIS (see lycoris_peer.py). Without them their rows say so. Rows are ratios of medians in one run, ours over the
peer's: below 1 is faster or smaller. `--add` keeps the rows of other measures and sizes, such as those of

    python benchmarks/speed/speed.py --only step --latents 64 --add --out benchmarks/speed/results.json --diffusers PATH

`--quick` takes fewer matrices, steps and turns, to see that all of it runs.
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
import time
from pathlib import Path
from typing import Any

import drawing
import layers
import lycoris_peer
import scripts
import step
import storage
import torch

from stamina_diffusion import files, testing
from stamina_diffusion.quieting import quiet

HERE = Path(__file__).parent
GROWTH = HERE.parent / "growth" / "results.json"

SAME = ("measure", "model", "peer_name")
"""By what a row is known."""
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


def no_lycoris() -> list[dict[str, Any]]:
    missing = {"model": "", "ours": None, "peer": None, "ratio": None, "note": "not measured: it is not installed"}
    return [
        {"measure": measure, **missing, "peer_name": peer}
        for peer in lycoris_peer.ALGORITHMS
        for measure in ("training step", "K/V layers")
    ]


def steps_and_scripts(given: argparse.Namespace, threads: int, lycoris: bool) -> list[dict[str, Any]]:
    """Training steps of the real architecture, and diffusers' scripts on the same model in a folder."""
    found = step.rows(given.latents, given.rank, given.steps, given.turns, threads, with_lycoris=lycoris)
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
    quiet()
    threads = torch.get_num_threads()
    lycoris = lycoris_peer.find(given.lycoris)
    parts: dict[str, Any] = {
        # First, while this process has used one thread only: its arms are forks of it.
        "step": lambda: steps_and_scripts(given, threads, lycoris),
        "layers": lambda: [
            *(
                row
                for model, share in (("Stable Diffusion 1.5", given.share // 3 or 1), ("SDXL", given.share))
                for prompts, pictures in ((1, 1), (1, 8), (8, 1))
                for row in layers.rows(
                    model, share, prompts, given.rank, given.repeats, pictures=pictures, lycoris=lycoris
                )
            ),
            layers.held_by_all("SDXL", given.rank),
        ],
        "storage": lambda: storage.rows(given.rank),
        "drawing": lambda: drawing.rows(given.rank, 10, given.repeats),
        "growth": growth,
        "gpu": not_measured,
        "lycoris": (list) if lycoris else no_lycoris,
    }
    found: list[dict[str, Any]] = []
    shared = {
        "machine": f"{platform.machine()}, {threads} thread(s), torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start",
        "command": " ".join(["python benchmarks/speed/speed.py", *map(named, sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }
    for name, part in parts.items():
        if given.only and name not in given.only:
            continue
        if name != "step":
            torch.set_num_threads(threads)
        began = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        for row in part():
            found.append(shared | row)
            print(json.dumps(row, ensure_ascii=False), flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def named(word: str) -> str:
    """A word of the command, for others: of a path what it is called, and not where it is on this machine."""
    return Path(word).name if Path(word).is_absolute() else word


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--diffusers", type=Path, help="a checkout of diffusers' repository")
    parser.add_argument("--only", nargs="*", choices=["step", "layers", "storage", "drawing", "growth", "gpu"])
    parser.add_argument("--lycoris", type=Path, help="a folder with LyCORIS, if it is not installed")
    parser.add_argument("--add", action="store_true", help="keep what is in --out and is not measured anew")
    parser.add_argument("--quick", action="store_true", help="small and few, to see that all of it runs")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5, help="turns of the layers and the drawing")
    parser.add_argument("--share", type=int, default=20, help="take every n-th matrix of SDXL, n/3-th of SD 1.5")
    parser.add_argument("--latents", type=int, default=16, help="side of the latents of a training step; 64 is real")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=2, help="runs of each arm of the training step")
    options = parser.parse_args()
    if options.quick:
        quick = {"repeats": 1, "share": 40, "latents": 8, "steps": 1, "turns": 1}
        options = argparse.Namespace(**vars(options) | quick)
    if options.diffusers:
        options.diffusers = options.diffusers.resolve()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    answer = main(options)
    if options.out:
        found = {tuple(row[key] for key in SAME): row for row in answer}
        before = files.read_json(options.out) if options.add else []
        kept = {tuple(row[key] for key in SAME): row for row in before}
        files.write_json(options.out, list((kept | found).values()))
