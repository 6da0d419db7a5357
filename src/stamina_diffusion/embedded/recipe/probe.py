"""How well frozen features tell apart things that the network never saw: 200 identities of the *prior* pool.

24 views teach, 12 ask, each view in one of the four renditions, as in the atlas stream but with other identities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import seeds
from ...world import FAMILIES, WorldConcept
from ...world.renditions import RENDITIONS, redraw
from ..encoder import RESOLUTION

TEACH, ASK = 24, 12


@dataclass(frozen=True)
class Probe:
    """Pictures (classes, views, 64, 64, 3) uint8; the last 12 views ask."""

    pictures: np.ndarray

    def accuracies(self, features_of: Callable[[np.ndarray], Tensor]) -> dict[str, float]:
        """Shares in [0, 1]: the nearest class mean by cosine, and a linear probe, of features (N, width)."""
        classes, views = self.pictures.shape[:2]
        found = features_of(self.pictures.reshape(-1, *self.pictures.shape[2:])).view(classes, views, -1)
        taught, asked = found[:, :TEACH], found[:, TEACH:]
        means = F.normalize(F.normalize(taught, dim=-1).mean(1), dim=-1)
        truth = torch.arange(classes)[:, None]
        return {
            "nearest_mean": float(((asked @ means.T).argmax(-1) == truth).float().mean()),
            "linear": float((linear_probe(taught)(asked).argmax(-1) == truth).float().mean()),
        }


def linear_probe(taught: Tensor, steps: int = 150) -> Callable[[Tensor], Tensor]:
    """A softmax regression on standardised features (classes, views, width), trained on all at once."""
    classes, views, width = taught.shape
    rows = taught.reshape(-1, width)
    mean, spread = rows.mean(0), rows.std(0) + 1e-6
    target = torch.arange(classes).repeat_interleave(views)
    with seeds.drawing_for(0, "probe"), torch.enable_grad():
        layer = nn.Linear(width, classes)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-2, weight_decay=0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(layer((rows - mean) / spread), target).backward()
            optimizer.step()
    return lambda asked: layer.requires_grad_(False)((asked - mean) / spread)


def prepare(folder: Path, identities: int = 100) -> Probe:
    """The probe's pictures, `identities` of each family: rendered once and kept in `folder`."""
    path = folder / f"probe-{identities}.npz"
    if not path.exists():
        drawn = [
            [
                redraw(np.asarray(WorldConcept(family, "prior", i).view(v).render(RESOLUTION)), _rendition(v))
                for v in range(TEACH + ASK)
            ]
            for family in FAMILIES
            for i in range(identities)
        ]
        beside = path.with_suffix(".part")
        with open(beside, "wb") as file:
            np.savez(file, pictures=np.array(drawn))
        beside.rename(path)
    return Probe(np.load(path)["pictures"])


def _rendition(view: int) -> str:
    return RENDITIONS[view % len(RENDITIONS)]
