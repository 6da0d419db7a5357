"""A method that holds another: `EWC(over=CLoRA())`. What it does not say itself, the held one says.

In settings the held method is a name, `over = "c-lora"`, or a table with a name, `over = {name = "c-lora", rank = 8}`;
on the command line `--set over=c-lora --set rank=8` (`over.strength` where both have a strength).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..deltas import Delta
from ..errors import SettingsError
from ..method import Answers, Changes, Memory, Method, Need, Past, Scope, Teacher, WordStart
from ..sites import Site
from . import build
from .lora import LoRA


@dataclass(frozen=True)
class Over(Method):
    """Whatever `over` does. Its rates and the word's start are the held method's, not settings of its own."""

    over: Method = dataclasses.field(default=LoRA())
    rate: float = dataclasses.field(init=False, repr=False)
    word_rate: float = dataclasses.field(init=False, repr=False)
    word_start: WordStart = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", held(self.over))
        for name in ("rate", "word_rate", "word_start"):
            object.__setattr__(self, name, getattr(self.over, name))

    @property
    def scope(self) -> Scope:
        return self.over.scope

    @property
    def needs(self) -> frozenset[Need]:
        return self.over.needs

    @property
    def additive(self) -> bool:
        return self.over.additive

    @property
    def fisher_batches(self) -> int:
        return self.over.fisher_batches

    @property
    def input_batches(self) -> int:
        return self.over.input_batches

    @property
    def parameter_batches(self) -> int:
        return self.over.parameter_batches

    @property
    def scored_words(self) -> int:
        return self.over.scored_words

    @property
    def turn(self) -> float:
        return self.over.turn

    @property
    def divisible(self) -> bool:
        return self.over.divisible

    def begin(self, memory: Memory, past: Past) -> Memory:
        return self.over.begin(memory, past)

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        return self.over.delta(site, memory)

    def rate_of(self, site: Site, parameter: str) -> float:
        return self.over.rate_of(site, parameter)

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        return self.over.penalty(changes, memory)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        return self.over.remember(changes, memory)

    def fold(self, changes: Changes, memory: Memory) -> Mapping[str, Tensor]:
        return self.over.fold(changes, memory)

    def teachers(
        self, changes: Changes, memory: Memory, words: tuple[str, ...], draw: torch.Generator
    ) -> Sequence[Teacher]:
        return self.over.teachers(changes, memory, words, draw)

    def distil(self, own: Answers, heard: Sequence[Answers]) -> Tensor:
        return self.over.distil(own, heard)

    def rivals(self, words: tuple[str, ...], draw: torch.Generator) -> tuple[str, ...]:
        return self.over.rivals(words, draw)

    def confusion(self, answers: Answers) -> Tensor:
        return self.over.confusion(answers)


def held(over: Any) -> Method:
    """The held method from itself, its name, or a table with its name and settings."""
    if isinstance(over, Method):
        return over
    table = {"name": over} if isinstance(over, str) else over
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        do = 'Write over = "lora", or over = {name = "lora", rank = 8}.'
        raise SettingsError(f"over is {over!r}, which names no method", do=do)
    return build(table["name"], {key: value for key, value in table.items() if key != "name"})
