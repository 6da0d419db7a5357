"""All concepts at once: a backbone of many words whose batches show pictures of all of them. A bound, no method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import seeds
from ..backbones.base import Backbone
from ..backbones.diffusion.text_to_image import Part, TextToImage
from ..concepts import Concept
from ..method import Method, Scope
from ..plan import Plan
from ..sites import Site


class Joint(Backbone):
    """A text-to-image backbone to which many concepts are one."""

    def __init__(self, inner: TextToImage, concepts: Sequence[Concept]) -> None:
        self.inner, self.concepts = inner, concepts

    @property
    def learned(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.learned

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return self.inner.modules

    def grow(self, concept: Concept, method: Method, seed: int) -> None:
        for one in self.concepts:
            self.inner.grow(one, method, seed)

    def sites(self, concept: Concept, scope: Scope) -> Mapping[str, Site]:
        words = {name: site for one in self.concepts for name, site in self.inner.word_sites(one.word).items()}
        return {**words, **self.inner.weight_sites(scope)}

    def material(self, concept: Concept, method: Method, plan: Plan) -> list[Any]:
        return [self.inner.material(one, method, plan) for one in self.concepts]

    def batch(self, material: list[Any], plan: Plan, *purpose: int | str) -> list[Part]:
        """One picture each of `plan.batch` concepts: every concept before any twice."""
        draw = seeds.generator(*purpose, "concepts")
        rounds = -(-plan.batch // len(material))
        order = torch.cat([torch.randperm(len(material), generator=draw) for _ in range(rounds)])[: plan.batch]
        single = dataclasses.replace(plan, batch=1)
        parts = [
            part
            for place, which in enumerate(order.tolist())
            for part in self.inner.batch(material[which], single, *purpose, place)
        ]
        return [dataclasses.replace(part, weight=part.weight / plan.batch) for part in parts]

    def loss(self, batch: list[Part]) -> Tensor:
        return self.inner.loss(batch)
