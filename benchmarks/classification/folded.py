"""Is a classifier that has learned tasks still the plain network, as fast and the same to five digits?

    python benchmarks/classification/folded.py --out benchmarks/classification/folded.json

Of the embedded ViT and of a ViT-B/16 with random weights: two tasks are learned by STAMINA, the classifier is exported
and read by transformers alone, and its forward pass is timed against the network that was never taught, with a head of
as many rows, turn by turn in one run. The same run says how far logits before the fold, computed with the changes
beside the weights, are from those after it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import ViTConfig, ViTForImageClassification

from stamina_diffusion import embedded, files, testing
from stamina_diffusion.backbones import vit
from stamina_diffusion.backbones.seeing import Sight
from stamina_diffusion.benchmarks import making
from stamina_diffusion.concepts import Task
from stamina_diffusion.learn import learn
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.plan import Plan

CLASSES = 4
METHOD = Stamina(rank=16, rate=1e-3, word_rate=1e-2, mask_bias=0.5, mask_rate=0.1, prior=False)


def taught(classifier: vit.VisionTransformer, steps: int) -> tuple[float, float]:
    """Learn two tasks; the answer is the largest difference of a logit before and after the fold, and the largest that
    learning the second task made to a logit of the first: what the other would be if nothing were folded."""
    memory: Any = {}
    apart = moved = 0.0
    for number in range(2):
        names = tuple(f"{number}-{place}" for place in range(CLASSES // 2))
        pictures = testing.noise_pictures(2 * len(names), classifier.sight.side)
        labels = tuple(place // 2 for place in range(len(pictures)))
        before: list[torch.Tensor] = []
        old = classifier.predict(pictures) if number else torch.zeros(len(pictures), 0)
        learned = learn(
            classifier,
            METHOD,
            Task(f"task-{number}", pictures, classes=names, labels=labels),
            memory,
            Plan(steps=steps, batch=2, seed=number),
            peek=lambda step, pictures=pictures, before=before: before.append(classifier.predict(pictures)),
            peek_at=(steps,),
        )
        memory = learned.memory
        after = classifier.predict(pictures)
        apart = max(apart, float((after - before[0]).abs().max()))
        if number:
            moved = float((after[:, : old.shape[1]] - old).abs().max())
    return apart, moved


@torch.no_grad()
def timed(networks: list[ViTForImageClassification], pixels: torch.Tensor, repeats: int) -> list[float]:
    """Median seconds of a forward pass of each network, turn by turn."""
    found: list[list[float]] = [[] for _ in networks]
    for turn in range(repeats + 1):
        for network, times in zip(networks, found, strict=True):
            began = time.perf_counter()
            network(pixel_values=pixels)
            if turn:  # the first warms up
                times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in found]


def rows(name: str, classifier: vit.VisionTransformer, plain: Any, steps: int, batch: int, repeats: int) -> list[Any]:
    apart, moved = taught(classifier, steps)
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder))
        read: Any = ViTForImageClassification.from_pretrained(folder)
    pixels = torch.randn(batch, 3, classifier.sight.side, classifier.sight.side)
    ours, peer = timed([read.eval(), plain.eval()], pixels, repeats)
    return [
        {
            "measure": f"forward pass of {batch} pictures (s), two tasks folded in",
            "model": name,
            "ours": round(ours, 5),
            "peer": round(peer, 5),
            "peer_name": "the same network, never taught",
            "ratio": round(ours / peer, 3),
        },
        {"measure": "largest difference of a logit before and after the fold, float32", "model": name, "ours": apart}
        | {"peer": moved, "peer_name": "what the second task did to logits of the first"},
    ]


def plain_of(source: Path | ViTConfig) -> Any:
    """The network that was never taught, with as many rows in its head."""
    if isinstance(source, ViTConfig):
        return ViTForImageClassification(ViTConfig(**{**source.to_dict(), "num_labels": CLASSES}))
    return ViTForImageClassification.from_pretrained(source, num_labels=CLASSES, ignore_mismatched_sizes=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=21)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    small = embedded.vit_folder()
    found = rows("embedded ViT", vit.load(small), plain_of(small), 10, 32, asked.repeats)
    config = ViTConfig(num_labels=0, layer_norm_eps=1e-6)
    large = vit.VisionTransformer(ViTForImageClassification(config), Sight(224))
    found += rows("ViT-B/16, random weights", large, plain_of(config), 2, 1, asked.repeats)
    made = making.made() | {"command": "python " + making.shortened(" ".join(sys.argv))}
    files.write_json(asked.out, [{**row, **made, "threads": asked.threads} for row in found])
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
