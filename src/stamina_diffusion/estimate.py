"""How much memory a step of learning takes on a device, found without computing it: tensors that have only shapes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from . import frugal
from .backbones.diffusion.text_to_image import TextToImage
from .concepts import Concept
from .forming import at_once, noise_of
from .learn import COMPUTE
from .method import Method
from .plan import Plan
from .sites import changed


class Memory(NamedTuple):
    """Bytes on the device while a concept is learned."""

    weights: int
    """Of the networks that a step needs."""
    learned: int
    """Of what is trained, and the optimizer's moments of it."""
    step: int
    """The most that a forward and a backward pass hold beside them: activations and gradients."""

    @property
    def whole(self) -> int:
        return sum(self)


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still there, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                # A view of something that was there before is nothing new.
                if storage not in self._known and id(storage) not in given:
                    self._known[storage] = size = storage.nbytes()
                    self.now += size
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, size)
        return made

    def _gone(self, size: int) -> None:
        self.now -= size


def estimate(backbone: TextToImage, method: Method, plan: Plan, name: str, class_word: str | None) -> Memory:
    """The memory that `learn` of such a concept takes on a device; `backbone` gets its word, unlearned.

    Left out: what a device's own software takes (half a GiB and more on a GPU), and the autoencoder and the pictures
    that the network draws for a method, which come before the first step.
    """
    concept = Concept(name, (Image.new("RGB", (8, 8)),), (None,), class_word)
    backbone.grow(concept, method, plan.seed)
    sites = backbone.sites(concept, method.scope)
    weights = sum(_bytes(network) for network in backbone.modules.values())
    spared = list(backbone.modules.values()) if plan.checkpointing else []
    moments = 2 if plan.optimizer == "adamw8bit" else 8
    kind = backbone.device.type
    made = {name: method.delta(site, {}) for name, site in sites.items()}
    deltas = nn.ModuleDict({str(place): delta for place, delta in enumerate(made.values()) if delta is not None})
    trained = sum(parameter.numel() for parameter in deltas.parameters())
    # The table of a mask's noise is kept for later: it must be made of real numbers, before there are only shapes.
    with at_once():
        noise_of(0, 1, 1, torch.zeros((), device=backbone.device))
        # What is trained is real and small; all that is computed from it and from the networks has shapes only.
        values = {name: delta() for name, delta in made.items() if delta is not None}
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = backbone.blank(method, plan)
        with (
            Held() as held,
            at_once(),
            changed({name: sites[name] for name in values}, values),
            frugal.recomputed_activations(spared),
        ):
            with torch.autocast(kind, COMPUTE[plan.precision], plan.precision != "no"):
                loss = backbone.loss(batch)
                if words := tuple(batch[0].scored):
                    loss = loss + backbone.answers(batch, words).said.square().mean()
            loss.float().backward()
    return Memory(weights, trained * (4 + moments), held.most)


def _bytes(network: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
