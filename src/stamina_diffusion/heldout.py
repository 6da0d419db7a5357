"""How well a model denoises pictures of a concept that it was not taught with: exact, cheap, and without drawing any.

The pictures' noise and timesteps depend on the seed and the concept's name alone, so two models, or one model at two
times, are asked the very same questions, and a difference of their losses is a difference of the models.
"""

from __future__ import annotations

import dataclasses

import torch

from .backbones.base import Backbone
from .concepts import Concept
from .method import Method
from .plan import Plan


class _Asks(Method):
    """A method that learns nothing: all that a backbone wants to know of it is how the word stands in a prompt."""

    scope = "tokens"  # type: ignore[assignment]

    def __init__(self, class_word: bool) -> None:
        object.__setattr__(self, "needs", frozenset(["class word"] if class_word else []))
