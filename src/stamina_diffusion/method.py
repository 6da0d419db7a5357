"""A method says, for each site: what change to train, what it costs given the past, what to remember, what to fold.

A method never sees a network: it knows sites by name, role and shape. What passes from one concept to the next passes
through `Memory` and nowhere else.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from .deltas import Delta
from .errors import SettingsError
from .sites import Site

Memory = Mapping[str, Tensor]
"""What a method keeps of the past: flat, one safetensors file; keys '<what>/<site name>'."""

Scope = Literal["tokens", "cross-attention", "network"]
"""Which sites a method wants beside the new rows: none, the attention's, or every parameter.

A diffusion model's attention sites are the keys and values of cross-attention; a classifier's are the queries, keys and
values of every block."""

Need = Literal["class word", "prior images", "replay", "old answers", "text features", "word scores"]
"""What the backbone must put into the prompts, batches and loss; with "text features", what `Change.features` holds;
with "word scores", that it answers under other words than a picture's own."""

WordStart = Literal["random", "class"]

BASE_WORD = ""
"""In the place of a word, the concept that the base knew before: the class word's, or no word's."""


class Past(NamedTuple):
    """What the keys and values see of prompts without the new word: known before it is learned, and never changing.

    A row, (width,), is one position of one prompt.
    """

    earlier: tuple[Tensor, ...]
    """For each word that was learned before, by whichever method, the rows of prompts with it, (rows, width)."""
    generic: Tensor
    """Of prompts without any learned word, (rows, width)."""


class Features(NamedTuple):
    """What the keys and values see of some prompts, (rows, width): one row for each position of each prompt."""

    word: Tensor
    """Of prompts with the word that was learned, at the positions that depend on it."""
    whole: Tensor
    """Of the same prompts, at every position."""
    past: Past


class Change(NamedTuple):
    """One site's change, in one step or when it is finished."""

    site: Site
    delta: Delta
    value: Tensor
    """The very tensor that the forward pass added in this step."""
    fisher: Tensor | None = None
    """Of a finished weight, if `fisher_batches` asks: the mean square of the loss's gradient at `value`."""
    features: Features | None = None
    """Of the finished word, if `needs` asks for text features."""
    inputs: Tensor | None = None
    """Of a finished weight, if `input_batches` asks: as `site.inputs`, with the changes in place."""
    share: float = 1.0
    """How much of what was trained `value` is: a merge folds less than all of it."""
    parameter_fisher: Mapping[str, Tensor] | None = None
    """Of a finished weight, if `parameter_batches` asks: as `fisher`, of each parameter of `delta`, by its name."""


Changes = Mapping[str, Change]


class Answers(NamedTuple):
    """What a network says of the noisy pictures of a batch under each of some words, at the same noise and times."""

    words: tuple[str, ...]
    """W words; `BASE_WORD` may be among them."""
    said: Tensor
    """(W, N, ...), one prediction for each word and picture."""
    target: Tensor
    """(N, ...), what is right of each picture."""

    def of(self, words: Sequence[str]) -> Answers:
        """The answers under some of the words, in this order."""
        return Answers(tuple(words), self.said[[self.words.index(word) for word in words]], self.target)


class Teacher(NamedTuple):
    """The network with other changes than those that are learned: what it says is to be agreed with."""

    words: tuple[str, ...]
    """Under which words it answers."""
    values: Mapping[str, Tensor]
    """Its change of each site."""


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """A continual method. Its fields are its hyper-parameters; it holds no state."""

    name: ClassVar[str]
    paper: ClassVar[str]
    """Where it is from, so that a result can cite it."""
    earlier: ClassVar[Mapping[str, Any]] = {}
    """What was done before a setting existed, where that is not the setting's default."""

    rate: float = 5e-4
    """Peak learning rate of the weights' changes."""
    word_rate: float = 5e-4
    """Learning rate of what is new: the word's row, or the head's rows of a task's classes."""
    word_start: WordStart = "random"
    """What a new word's row is before it is learned: noise of a word's size, or the class word's row."""

    @property
    @abc.abstractmethod
    def scope(self) -> Scope: ...

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset()

    @property
    def additive(self) -> bool:
        """Whether it only ever adds its trained changes, and takes back nothing that was folded earlier."""
        return True

    @property
    def fisher_batches(self) -> int:
        """How many single pictures the Fisher information of the finished changes is estimated from; 0 for none."""
        return 0

    @property
    def input_batches(self) -> int:
        """How many batches show what its weights' layers see, before they are learned and after; 0 for none."""
        return 0

    @property
    def parameter_batches(self) -> int:
        """As `fisher_batches`, for the Fisher information of the changes' own parameters."""
        return 0

    @property
    def scored_words(self) -> int:
        """Under how many words at once a picture is scored, if `needs` asks for word scores."""
        return 0

    @property
    def turn(self) -> float:
        """After which part of a concept's steps `Delta.turn` is called, and its `teachers` are heard; 1 for never."""
        return 1.0

    @property
    def divisible(self) -> bool:
        """Whether a merge may fold a share of its change; `Change.share` tells it which."""
        return self.additive

    def begin(self, memory: Memory, past: Past) -> Memory:
        """The memory that a concept is learned with, from that of the past; asked if `needs` has text features."""
        return memory

    @abc.abstractmethod
    def delta(self, site: Site, memory: Memory) -> Delta | None:
        """The trainable change of a site, or None to leave it as it is."""

    def rate_of(self, site: Site, parameter: str) -> float:
        """The learning rate of one parameter of a site's delta."""
        return self.rate if site.role == "weight" else self.word_rate

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        """What the changes cost given the past; never negative, 0 with empty memory."""
        return 0.0

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        """The memory that the next concept gets, from the finished changes."""
        return memory

    def fold(self, changes: Changes, memory: Memory) -> Mapping[str, Tensor]:
        """What is added to each site for good; as a rule, the changes themselves."""
        return {name: change.value for name, change in changes.items()}

    def teachers(
        self, changes: Changes, memory: Memory, words: tuple[str, ...], draw: torch.Generator
    ) -> Sequence[Teacher]:
        """Who is to be agreed with in a step, of a network that knows `words`: `BASE_WORD` first, the new one last."""
        return ()

    def distil(self, own: Answers, heard: Sequence[Answers]) -> Tensor:
        """What it costs to answer as `own` where the teachers answered as `heard`, each under some of the words."""
        return own.said.new_zeros(())

    def rivals(self, words: tuple[str, ...], draw: torch.Generator) -> tuple[str, ...]:
        """The words that a picture of the Fisher information is scored among, its own first; () for none."""
        return ()

    def confusion(self, answers: Answers) -> Tensor:
        """What is added to the loss of a picture of the Fisher information, from its answers under `rivals`."""
        return answers.said.new_zeros(())

    def settings(self) -> dict[str, Any]:
        """Its fields as plain values, for a ledger or a TOML file; a method that it holds is a table with its name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        return {
            name: {"name": value.name, **value.settings()} if isinstance(value, Method) else value
            for name, value in values.items()
        }


def weights(changes: Changes) -> dict[str, Change]:
    """Only the changes of weights: words are new and hurt nobody."""
    return {name: change for name, change in changes.items() if change.site.role == "weight"}


def features_of(changes: Changes) -> Features:
    """The text features of the finished word. Raises SettingsError where the changes were recorded without them."""
    for change in changes.values():
        if change.features is not None:
            return change.features
    raise SettingsError(
        "what the method remembers cannot be made from the recorded changes alone: it needs text features",
        do="Nothing was changed. Roll back to before the concept, and learn the later ones again.",
    )
