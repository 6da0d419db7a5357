"""The contract of a backbone: which tensors may change, and what the loss on a concept is."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, device, nn

from ..concepts import Concept
from ..errors import SettingsError
from ..method import BASE_WORD, Answers, Method, Scope
from ..plan import Plan
from ..sites import Site


class Backbone(abc.ABC):
    """A pre-trained network that learns one concept after another.

    A concept's *material* is what its pictures become before the first step (latents, tokens); a *batch* is a pure
    function of the material and a purpose, so that a resumed run draws what the uninterrupted one would have.
    """

    learned: list[str]
    """Every word that it has grown a row for, the oldest first."""

    @property
    @abc.abstractmethod
    def device(self) -> device: ...

    @property
    @abc.abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """The networks that hold the sites, by name."""

    @abc.abstractmethod
    def grow(self, concept: Concept, method: Method, seed: int) -> None:
        """Make room for the concept: a row for its new word. The other rows stay as they are."""

    @abc.abstractmethod
    def sites(self, concept: Concept, scope: Scope) -> Mapping[str, Site]:
        """The sites of a scope, the concept's own word among them."""

    @abc.abstractmethod
    def material(self, concept: Concept, method: Method, plan: Plan) -> Any:
        """Everything about the concept that stays the same at every step, computed once.

        It may hold pictures that the network draws as it is now: of the class word, and of earlier words for replay.
        """

    @abc.abstractmethod
    def batch(self, material: Any, plan: Plan, *purpose: int | str) -> Any:
        """A batch of the material for one purpose."""

    @abc.abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The mean loss of a batch, a scalar with its graph."""

    def text_features(self, prompts: Sequence[str], word: str | None = None) -> Tensor:
        """What the keys and values of cross-attention see of prompts, (positions, width), one prompt after another.

        With `word`, only the positions that depend on it. Raises SettingsError where the network reads no text.
        """
        raise SettingsError("this network reads no text, and the method needs text features", do="Take another method.")

    def word_prompts(self, concept: Concept) -> dict[str, str]:
        """A prompt for each word that a picture of the concept is scored under: `BASE_WORD` first, its own last."""
        base = f"a photo of a {concept.class_word}" if concept.class_word else "a photo"
        words = [*(word for word in self.learned if word != concept.word), concept.word]
        return {BASE_WORD: base, **{word: f"a photo of {word}" for word in words}}

    def answers(self, batch: Any, words: Sequence[str]) -> Answers:
        """What the network says of the concept's own pictures in a batch under each of some words, with its graph.

        The batch's material was made for a method that needs word scores. Raises SettingsError where the network
        denoises nothing.
        """
        raise SettingsError("this network denoises nothing, and the method scores words", do="Take another method.")
