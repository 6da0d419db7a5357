"""What does the guard leave to the next words, and what do they cost the old ones, by how it holds these?

    python benchmarks/guard/room.py --work out/room --out benchmarks/guard/results.json

Forty concepts of the tuning stream are learned one after another on the embedded base by a LoRA under the guard, as the
customization benchmark learns them. From there eight more are learned, once for each way to hold the forty: the span
that has 0.999 of their squares, ridges, and one ridge with generic prompts too. Of the eight: I and
R@1 among all 48 when just learned, and the share of the frozen base's held-out loss that is gone. Of every fourth of
the forty: F_mmd and I, before and after.

Of the forty words themselves it is said how little of each is new to those before it: `directions` of the text width
that their span holds (and one of energy 0.999999), the share of the word's squared features `outside` it, and `leak`,
how much more of a change reaches the words before where it must stay off the span than where it need not, when it does
as much to the word. What is done is kept in `--work` and not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stamina_diffusion import files
from stamina_diffusion.benchmarks import making
from stamina_diffusion.benchmarks.concept_streams import Subject
from stamina_diffusion.benchmarks.customization import Customization
from stamina_diffusion.benchmarks.customization_run import CustomizationRun
from stamina_diffusion.benchmarks.eyes import Array, Embedded
from stamina_diffusion.benchmarks.grid import Cell
from stamina_diffusion.benchmarks.judging import plain
from stamina_diffusion.benchmarks.protocol import read_protocol
from stamina_diffusion.benchmarks.rows import chosen, read_tuned
from stamina_diffusion.methods.guard import Guard, extended, off
from stamina_diffusion.metrics import images
from stamina_diffusion.observe import TEMPLATES

TUNED = Path(__file__).parents[1] / "customization" / "tuned.toml"
ROW = "guard over lora"
KNOWN, NEW, EVERY = 40, 8, 4
PROTOCOL = {"steps": "100", "samples": "12", "context_samples": "0", "generic_samples": "0", "heldout_every": "1000"}
SPAN = {"ridge": 0.0, "energy": 0.999, "price": 100.0, "generic": False}
WAYS: dict[str, dict[str, Any]] = {
    "span 0.999": SPAN,
    "ridge 1e-5": SPAN | {"ridge": 1e-5},
    "ridge 1e-6": SPAN | {"ridge": 1e-6},
    "ridge 1e-7": SPAN | {"ridge": 1e-7},
    "ridge 1e-6, generic prompts too": SPAN | {"ridge": 1e-6, "generic": True},
}


class Room:
    """The forty concepts, and what comes after them."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed = work, seed
        work.mkdir(parents=True, exist_ok=True)

    def open(self, way: str) -> CustomizationRun:
        benchmark = Customization(
            protocol=read_protocol("cpu", PROTOCOL), rows=tuple(chosen(ROW, read_tuned(TUNED))), draws=False
        )
        run = CustomizationRun(benchmark, Cell(ROW, "tuning", KNOWN + NEW, self.seed), self.work)
        run.method = dataclasses.replace(run.method, **WAYS[way])
        return run

    def looked(self, run: CustomizationRun, eyes: Embedded, some: Sequence[Subject]) -> list[Array]:
        return [eyes.look(run._draw(run._own_prompts([one]))) for one in some]

    def start(self) -> None:
        """Learn the forty, and keep the state, what it draws, and the photos' features."""
        if (self.work / "start.npz").is_file():
            return
        run = self.open("span 0.999")
        with tempfile.TemporaryDirectory() as folder:
            rows = []
            for task in range(KNOWN):
                rows.append(run.learn(task, Path(folder)))
                print(f"{task + 1} of {KNOWN}: {rows[-1]['concepts'][0]}", flush=True)
        eyes = Embedded(run.backbone.pipeline)
        save_file({name: one.contiguous() for name, one in run.state().items()}, self.work / "start.safetensors")
        files.write_json(self.work / "start.json", rows)
        photos = [eyes.look(run._photos(one)) for one in run.subjects]
        old = self.looked(run, eyes, run.subjects[:KNOWN:EVERY])
        np.savez(self.work / "start.npz", photos=np.stack(photos), old=np.stack(old))

    def seen(self) -> list[Tensor]:
        """The features of the forty words' prompts, each (rows, width), in float64."""
        run = self.open("span 0.999")
        run.restore(load_file(self.work / "start.safetensors"), json.loads((self.work / "start.json").read_text()))
        words = [one.word for one in run.subjects[:KNOWN]]
        return [run.backbone.text_features([text.format(word) for text in TEMPLATES]).double() for word in words]

    def measured(self, way: str) -> dict[str, Any]:
        """Learn the eight in one way."""
        path = self.work / f"{way}.json"
        if path.is_file():
            return json.loads(path.read_text())
        run, kept = self.open(way), np.load(self.work / "start.npz")
        run.restore(load_file(self.work / "start.safetensors"), json.loads((self.work / "start.json").read_text()))
        eyes, photos, before = Embedded(run.backbone.pipeline), list(kept["photos"]), list(kept["old"])
        gains, then = [], []
        with tempfile.TemporaryDirectory() as folder:
            for task in range(KNOWN, KNOWN + NEW):
                row, subject = run.learn(task, Path(folder)), run.subjects[task]
                gains.append(1 - row["heldout"][subject.name] / run.base_losses[task])
                then += self.looked(run, eyes, [subject])
        # What stands for the forty in the search is their photos alone: only the eight are asked.
        found = images.retrieval([*photos[:KNOWN], *then], photos)[KNOWN:]
        after = self.looked(run, eyes, run.subjects[:KNOWN:EVERY])
        certificates = [float(value) for name, value in run.memory.items() if name.startswith("certificate/")]
        measured = {
            "way": way,
            **WAYS[way],
            "image_alignment": [images.image_alignment(x, y) for x, y in zip(then, photos[KNOWN:], strict=True)],
            "retrieval": found,
            "gain": gains,
            "old_f_mmd": images.f_mmd(before, after),
            "old_image_alignment": [
                np.mean([images.image_alignment(x, y) for x, y in zip(some, photos[:KNOWN:EVERY], strict=True)])
                for some in (before, after)
            ],
            "certificate": max(certificates),
        }
        result = plain(measured)
        files.write_json(path, result)
        return result


def fullness(seen: Sequence[Tensor]) -> list[dict[str, Any]]:
    """How full the words before leave it for each word but the first; `seen` are their features, each (rows, width)."""
    span, whole, found = seen[0].new_zeros(seen[0].shape[1], 0), seen[0].new_zeros(()), []
    most = span
    for place, features in enumerate(seen):
        if place:
            free = torch.linalg.svd(off(span)).U[:, : len(span) - span.shape[1]]
            all_ways = torch.eye(len(whole), dtype=whole.dtype)
            leak = (_least(features, whole, free) / _least(features, whole, all_ways)).median()
            outside = (features @ free).square().sum() / features.square().sum()
            row = {"words": place, "directions": span.shape[1], "directions_of_most": most.shape[1]}
            found.append(plain(row | {"outside": float(outside), "leak": float(leak)}))
        span = extended(span, features, SPAN["energy"])
        most = extended(most, features, Guard.energy)
        whole = whole + features.T @ features / len(features)
    return found


def _least(rows: Tensor, moment: Tensor, free: Tensor) -> Tensor:
    """For each row h min u C uᵀ over the u in the columns of `free` with u · h = 1: what must reach the past."""
    inside, left = rows @ free, free.T @ moment @ free
    left += 1e-9 * moment.trace() * torch.eye(len(left), dtype=left.dtype)
    return 1 / (inside * torch.linalg.solve(left, inside.T).T).sum(1).clamp(min=1e-30)


def said(row: dict[str, Any]) -> str:
    ends = " to ".join(f"{one:.3f}" for one in row["old_image_alignment"])
    return (
        f"{row['way']:32} I {np.mean(row['image_alignment']):.3f}  R@1 {100 * np.mean(row['retrieval']):.0f} %  "
        f"gain {100 * np.mean(row['gain']):.1f} %  old words: F_mmd {row['old_f_mmd']:.1f}, I {ends}  "
        f"certificate {row['certificate']:.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for what is done")
    parser.add_argument("--seed", type=int, default=0, help="the order of the concepts")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    room = Room(arguments.work, arguments.seed)
    room.start()
    rows = []
    for way in WAYS:
        rows.append(room.measured(way))
        print(said(rows[-1]), flush=True)
    if arguments.out:
        command = f"python benchmarks/guard/room.py --work out/room --seed {arguments.seed}"
        made = {name: value for name, value in making.made([]).items() if name != "command"}
        full = fullness(room.seen())
        files.write_json(
            arguments.out, {"rows": rows, "fullness": full, "known": KNOWN, "new": NEW, "command": command, **made}
        )
