"""How well a model denoises pictures of a concept that it was not taught with: exact, cheap, without drawing any.

The noise and the timesteps depend on the seed and the concept's name alone, so two models, or one model at two times,
are asked the very same questions, and a difference of their losses is a difference of the models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from .backbones.base import Backbone
from .concepts import Concept
from .method import Method
from .plan import Plan

Questions = Any
"""A batch of the backbone: noisy pictures, their timesteps and prompts, and what should be said of them."""


@torch.no_grad()
def questions(backbone: Backbone, method: Method, concept: Concept, plan: Plan, *, draws: int = 4) -> list[Questions]:
    """What `heldout_loss` asks, to be kept and asked again later: `draws` batches of as many pictures as there are."""
    plan = dataclasses.replace(plan, batch=len(concept.images), prior_images=0, replay_images=0)
    material = backbone.material(concept, method, plan)
    return [backbone.batch(material, plan, plan.seed, concept.name, place, "held out") for place in range(draws)]


@torch.no_grad()
def loss_of(backbone: Backbone, asked: Sequence[Questions]) -> float:
    """The mean loss of `questions`."""
    return float(torch.stack([backbone.loss(batch) for batch in asked]).double().mean())


def heldout_loss(backbone: Backbone, method: Method, concept: Concept, plan: Plan, *, draws: int = 4) -> float:
    """The mean denoising loss of a learned concept's `images`, which should not be those it was learned from.

    `concept` has the learned one's name, its class word where the method learns with one, and the held-out pictures.
    Each of `draws` passes shows as many pictures as there are, at timesteps spread over the whole range. The prompts
    are the plan's; its prior pictures and replays are left out. Computed in float32.
    """
    return loss_of(backbone, questions(backbone, method, concept, plan, draws=draws))
