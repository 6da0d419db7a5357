"""What a method may ask to see beside its changes: what its layers see, Fisher information, text features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import seeds
from .backbones.base import Backbone
from .concepts import Concept
from .method import Changes, Features, Method, Past, weights
from .plan import Plan
from .sites import Site, changed

Key = TypeVar("Key")

TEMPLATES = (
    "{}",
    "a photo of {}",
    "a painting of {}",
    "a close-up of {}",
    "a photo of {} at night",
    "a photo of {} in the snow",
    "a photo of {} and a person",
    "{} on a beach at sunset",
    "",
)
"""The prompts, beside those of the plan and of the photos' captions, whose text features stand for a word.

The empty one has no word; every drawing with guidance computes it beside the word's own.
"""

GENERIC = (
    "a photo",
    "a photo of a person",
    "a photo of a man with glasses",
    "a portrait of a woman, smiling",
    "a photo of a dog in the grass",
    "a photo of a tower at sunset",
    "a landmark under a blue sky",
    "a street of a city at night",
    "a painting of a mountain and a lake",
    "a bowl of fruit on a wooden table",
    "a red car parked beside a house",
)
"""Prompts without any learned word."""


def observe(
    backbone: Backbone,
    method: Method,
    concept: Concept,
    plan: Plan,
    material: Any,
    changes: Changes,
    past: Past | None,
) -> Changes:
    """The finished changes with what the method asks to see of them; as they are when it asks for nothing."""
    found = dict(changes)
    if method.input_batches:
        sites = {name: change.site for name, change in changes.items()}
        with changed(sites, {name: change.value for name, change in changes.items()}):
            seen = layer_inputs(backbone, method, concept, plan, material, sites)
        found |= {name: found[name]._replace(inputs=moment) for name, moment in seen.items()}
    if method.fisher_batches:
        for name, fisher in squared_gradients(backbone, method, concept, plan, material, changes).items():
            found[name] = found[name]._replace(fisher=fisher)
    if method.parameter_batches:
        of_each = squared_parameter_gradients(backbone, method, concept, plan, material, changes)
        found |= {name: found[name]._replace(parameter_fisher=fishers) for name, fishers in of_each.items()}
    if past is not None:
        seen = text_features(backbone, method, concept, plan, changes, past)
        found |= {name: change._replace(features=seen) for name, change in found.items() if change.site.role == "token"}
    return found


def seeing(
    backbone: Backbone, method: Method, concept: Concept, plan: Plan, material: Any, sites: Mapping[str, Site]
) -> dict[str, Site]:
    """The sites before they are learned, each weight with what its layer sees, if the method asks for it."""
    seen = layer_inputs(backbone, method, concept, plan, material, sites) if method.input_batches else {}
    return {name: dataclasses.replace(site, inputs=seen.get(name)) for name, site in sites.items()}


@torch.no_grad()
def layer_inputs(
    backbone: Backbone, method: Method, concept: Concept, plan: Plan, material: Any, sites: Mapping[str, Site]
) -> dict[str, Tensor]:
    """For every weight of a linear layer the mean of x xᵀ, (in, in), over all x it sees in `method.input_batches`."""
    layers = {name: site.module for name, site in sites.items() if site.role == "weight" and site.rows is None}
    layers = {name: module for name, module in layers.items() if isinstance(module, nn.Linear)}
    moments, counts = dict.fromkeys(layers, torch.zeros(())), dict.fromkeys(layers, 0)
    # Query, key and value see the same tensor, one after another: its moment is made once.
    last: tuple[Tensor, Tensor] | None = None

    def see(name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal last
        x = args[0]
        if last is None or last[0] is not x:
            rows = x.detach().flatten(0, -2).float()
            last = (x, rows.T @ rows)
        moments[name] = moments[name].to(x.device) + last[1]
        counts[name] += x.shape[:-1].numel()

    with ExitStack() as stack:
        for name, module in layers.items():
            if sites[name].parameter == "weight":
                stack.callback(module.register_forward_pre_hook(partial(see, name)).remove)
        for place in range(method.input_batches):
            backbone.loss(backbone.batch(material, plan, plan.seed, concept.name, place, "inputs"))
    return {name: moment / counts[name] for name, moment in moments.items() if counts[name]}


def squared_gradients(
    backbone: Backbone, method: Method, concept: Concept, plan: Plan, material: Any, changes: Changes
) -> dict[str, Tensor]:
    """For every changed weight the mean of (∂ loss of one picture / ∂ weight)² over `method.fisher_batches` draws.

    It is the diagonal of the empirical Fisher information at the finished weights, of the loss that was trained with.
    """
    values = {name: change.value.detach().clone().requires_grad_() for name, change in changes.items()}
    leaves = {name: values[name] for name in weights(changes)}
    sites = {name: change.site for name, change in changes.items()}
    count = method.fisher_batches
    return _mean_squares(backbone, method, concept, plan, material, sites, lambda: values, leaves, count)


def squared_parameter_gradients(
    backbone: Backbone, method: Method, concept: Concept, plan: Plan, material: Any, changes: Changes
) -> dict[str, dict[str, Tensor]]:
    """As `squared_gradients`, of each parameter of every weight's delta, over `method.parameter_batches` draws."""
    fixed = {name: change.value.detach() for name, change in changes.items()}
    moved = weights(changes)
    leaves = {(name, key): one for name in moved for key, one in moved[name].delta.named_parameters()}
    sites = {name: change.site for name, change in changes.items()}

    def values() -> dict[str, Tensor]:
        return {**fixed, **{name: change.delta() for name, change in moved.items()}}

    count = method.parameter_batches
    squares = _mean_squares(backbone, method, concept, plan, material, sites, values, leaves, count)
    found: dict[str, dict[str, Tensor]] = {name: {} for name in moved}
    for (name, key), square in squares.items():
        found[name][key] = square
    return found


def _mean_squares(
    backbone: Backbone,
    method: Method,
    concept: Concept,
    plan: Plan,
    material: Any,
    sites: Mapping[str, Site],
    values: Callable[[], Mapping[str, Tensor]],
    leaves: Mapping[Key, Tensor],
    count: int,
) -> dict[Key, Tensor]:
    """For every leaf the mean of (∂ loss of one picture / ∂ leaf)² over `count` draws, its rivals among the loss."""
    sums = {key: torch.zeros_like(leaf) for key, leaf in leaves.items()}
    single = dataclasses.replace(plan, batch=1)
    words = tuple(backbone.word_prompts(concept))
    for place in range(count if leaves else 0):
        purpose = (plan.seed, concept.name, place, "fisher")
        with torch.enable_grad(), changed(sites, values()):
            batch = backbone.batch(material, single, *purpose)
            loss = backbone.loss(batch)
            if rivals := method.rivals(words, seeds.generator(*purpose, "rivals")):
                loss = loss + method.confusion(backbone.answers(batch, rivals))
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for key, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None:
                sums[key] += gradient.square() / count
    return sums


@torch.no_grad()
def past_features(backbone: Backbone, method: Method, concept: Concept, plan: Plan) -> Past | None:
    """What keys and values see of the words learned before `concept` and of prompts without any, if the method asks."""
    if "text features" not in method.needs:
        return None
    words = [word for word in backbone.learned if word != concept.word]
    earlier = (backbone.text_features([template.format(word) for template in _templates(plan)]) for word in words)
    return Past(tuple(one.float() for one in earlier), backbone.text_features(GENERIC).float())


@torch.no_grad()
def text_features(
    backbone: Backbone, method: Method, concept: Concept, plan: Plan, changes: Changes, past: Past
) -> Features:
    """What keys and values see of the finished word, beside what they see of the past."""
    with_class = "class word" in method.needs
    shown = [prompt for some in concept.prompts(plan.prompts, with_class) for prompt in some]
    own = list(dict.fromkeys([*shown, *(t.format(concept.subject(with_class)) for t in _templates(plan))]))
    words = {name: change for name, change in changes.items() if change.site.role == "token"}
    sites = {name: change.site for name, change in words.items()}
    with changed(sites, {name: change.value for name, change in words.items()}):
        return Features(
            word=backbone.text_features(own, concept.word).float(),
            whole=backbone.text_features(own).float(),
            past=past,
        )


def _templates(plan: Plan) -> list[str]:
    return list(dict.fromkeys((*plan.prompts, *TEMPLATES)))
