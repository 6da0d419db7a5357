"""Does adapting keys and values capture an identity that words cannot say? Retrieval among 50 concepts.

    python benchmarks/identity/identity.py --out benchmarks/identity/results.json

A few concepts of the tuning pool are learned, each alone on the embedded base. Samples of "a photo of <word>" are
compared by the embedded encoder with the mean photo features of 50 concepts: is the nearest one the right one? The same
for pictures that the base draws from the concept's fullest caption (every factor that has words), and for true renders
of other views, which bound what the encoder can tell. Chance is 2 %. Held-out denoising loss (same noise and
timesteps for all) is measured with the class word, with the learned word alone, and with word and weights.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.utils import logging
from PIL import Image
from torch import Tensor

from stamina_diffusion import files, seeds
from stamina_diffusion.backbones.diffusion.text_to_image import TextToImage
from stamina_diffusion.embedded import load_encoder
from stamina_diffusion.embedded.encoder import to_tensor
from stamina_diffusion.photos import collect
from stamina_diffusion.settings import resolve
from stamina_diffusion.studio import Studio
from stamina_diffusion.world import FAMILIES, WorldConcept

GALLERY = 25
"""Concepts of each family among which the right one must be found."""


def full_caption(concept: WorldConcept) -> str:
    """The concept's identity factors in words, all of them; nuisance left out."""
    module = FAMILIES[concept.family]
    view = concept.view(0)
    said = {name: grade for name, grade in view.attributes.items() if name in module.IDENTITY_FACTORS}
    return module.phrase(said, np.random.default_rng(0))


@torch.no_grad()
def held_out_loss(backbone: TextToImage, prompt: str, images: list[Image.Image]) -> float:
    """Mean denoising loss over pictures, 20 timesteps each, noise fixed by the purpose alone."""
    latents = backbone.encode(images)
    draw = seeds.generator("held-out")
    losses = []
    for timestep in range(25, 1000, 50):
        noise = torch.randn(latents.shape, generator=draw)
        noisy, target, times = backbone.noised(latents, noise, torch.full((len(latents),), timestep))
        text = backbone.text_states(backbone.tokenize([prompt] * len(latents)))
        losses.append(F.mse_loss(backbone.predict(noisy, times, text), target))
    return float(torch.stack(losses).mean())


def share_right(features: Tensor, gallery: Tensor, place: int) -> float:
    return float(((features @ gallery.T).argmax(1) == place).float().mean())


def main(learned: int, samples: int, method: str, overrides: Mapping[str, str]) -> dict[str, Any]:
    logging.set_verbosity_error()
    encoder = load_encoder()
    concepts = [WorldConcept(family, "tuning", i) for i in range(GALLERY) for family in FAMILIES]
    photos = [[concept.view(v).render(64) for v in range(6)] for concept in concepts]
    others = [[concept.view(v).render(64) for v in range(100, 108)] for concept in concepts[:learned]]
    gallery = F.normalize(torch.stack([encoder(to_tensor(some)).mean(0) for some in photos]), dim=-1)
    settings = resolve("embedded", method, overrides=overrides)
    draw = {"steps": settings.draw.steps, "guidance": settings.draw.guidance}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for place, concept in enumerate(concepts[:learned]):
            work = Path(folder) / str(place)
            concept.photograph(work / "photos")
            studio = Studio.create(work / "studio")
            base = studio.rebuilt(0)
            said = base.draw([full_caption(concept)] * samples, list(range(samples)), **draw)
            plain = held_out_loss(base, f"a photo of a {concept.class_word}", others[place])
            _, model = studio.learn(
                collect(work / "photos", resolution=64), "it", method=settings.method, plan=settings.plan
            )
            drawn = model.draw(["a photo of <it>"] * samples, list(range(samples)), **draw)
            full = held_out_loss(model, "a photo of <it>", others[place])
            rows.append(
                {
                    "concept": f"{concept.family} {concept.index}",
                    "learned": share_right(encoder(to_tensor(drawn)), gallery, place),
                    "caption": share_right(encoder(to_tensor(said)), gallery, place),
                    "true_renders": share_right(encoder(to_tensor(others[place])), gallery, place),
                    "loss_class_word": round(plain, 4),
                    "loss_learned": round(full, 4),
                }
            )
            print(rows[-1], flush=True)
    mean = {key: round(sum(row[key] for row in rows) / len(rows), 4) for key in rows[0] if key != "concept"}
    return {
        "mean": mean,
        "chance": 1 / len(concepts),
        "gallery": len(concepts),
        "samples": samples,
        "method": settings.method.name,
        "settings": settings.method.settings(),
        "plan": settings.plan.settings(),
        "rows": rows,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learned", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--method", default="stamina")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    changes = dict(pair.split("=", 1) for pair in given.set)
    found = main(given.learned, given.samples, given.method, changes)
    found["command"] = (
        f"python benchmarks/identity/identity.py --learned {given.learned} --samples {given.samples} "
        f"--method {given.method}" + "".join(f" --set {pair}" for pair in given.set)
    )
    print(json.dumps(found["mean"], indent=2))
    if given.out:
        files.write_json(given.out, found)
