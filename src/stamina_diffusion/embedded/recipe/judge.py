"""Does the base obey its captions? The encoder names the attributes of what it draws, and of true renders.

The captions are of the *tuning* pool, of which the base and the encoder have seen neither pictures nor words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tqdm import tqdm

from ...world import FAMILIES, View, WorldConcept
from ..encoder import EmbeddedEncoder, to_tensor

FIRST = 500_000
"""Where the judge's concepts start in the pool, away from those that methods are tuned on."""
TOGETHER = 8
"""Captions that are drawn at once."""


@dataclass(frozen=True)
class Verdict:
    """Shares of named attributes that the encoder finds, in [0, 1]."""

    captions: int
    samples: int
    steps: int
    guidance: float
    true_renders: float
    generated: float
    by_factor: dict[str, tuple[float, float, int]]
    """Factor → (true renders, generated, captions that name it)."""

    @property
    def ratio(self) -> float:
        """Generated over true renders: 1 would be a base as obedient as the world itself."""
        return self.generated / self.true_renders

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def held_out(count: int) -> list[tuple[View, str, dict[str, str]]]:
    """`count` views with their caption and the attributes that the caption really says."""
    found = []
    for place in range(count):
        family = list(FAMILIES)[place % len(FAMILIES)]
        view = WorldConcept(family, "tuning", FIRST + place // len(FAMILIES)).view(0)
        caption = view.caption(0)
        words = set(caption.replace(",", " ").split())
        named = {f"{family}/{k}": grade for k, grade in view.kept(0)[0].items() if set(grade.split()) <= words}
        found.append((view, caption, named))
    return found


@torch.no_grad()
def judge(
    pipeline: StableDiffusionPipeline,
    encoder: EmbeddedEncoder,
    *,
    captions: int = 200,
    samples: int = 4,
    steps: int = 25,
    guidance: float = 6.0,
) -> tuple[Verdict, list[tuple[str, Image.Image, list[Image.Image]]]]:
    """The verdict, and for each caption its true render and its generated pictures."""
    pipeline.set_progress_bar_config(disable=True)
    hits: dict[str, list[tuple[float, float]]] = {}
    shown = []
    asked = held_out(captions)
    pictures: list[Image.Image] = []
    for first in tqdm(range(0, len(asked), TOGETHER), desc="judging", mininterval=10):
        some = [caption for _, caption, _ in asked[first : first + TOGETHER]]
        output = pipeline(
            [caption for caption in some for _ in range(samples)],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(k) for _ in some for k in range(samples)],
        )
        pictures += output.images  # type: ignore[union-attr]
    for place, (view, caption, named) in enumerate(asked):
        drawn = pictures[place * samples : (place + 1) * samples]
        render = view.render(64)
        shown.append((caption, render, drawn))
        right = agreement(encoder, [render, *drawn], named)
        for factor, found in right.items():
            hits.setdefault(factor, []).append((found[0], sum(found[1:]) / samples))
    every = [pair for pairs in hits.values() for pair in pairs]
    by_factor = {
        factor: (_mean([true for true, _ in pairs]), _mean([made for _, made in pairs]), len(pairs))
        for factor, pairs in sorted(hits.items())
    }
    verdict = Verdict(
        captions,
        samples,
        steps,
        guidance,
        _mean([true for true, _ in every]),
        _mean([made for _, made in every]),
        by_factor,
    )
    return verdict, shown


def agreement(
    encoder: EmbeddedEncoder, pictures: Sequence[Image.Image], named: dict[str, str]
) -> dict[str, list[float]]:
    """For each named factor, whether the encoder finds its grade in each picture (1 or 0)."""
    images = to_tensor(pictures).to(encoder.attribute_head.weight.device)
    logits = encoder.attribute_logits(encoder(images))
    return {
        factor: [float(i == encoder.factor_grades[factor].index(grade)) for i in logits[factor].argmax(-1).tolist()]
        for factor, grade in named.items()
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
