"""DSC: agree with an earlier LoRA and the new one, on the noise and on whose a picture is (Jha, arXiv 2410.00700).

The paper's function-space consolidation, a double distillation. It has no public code: what is certain of it, and what
is our reconstruction, stands in docs/reconstruction.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..deltas import Delta, Since
from ..errors import SettingsError
from ..method import Answers, Change, Changes, Memory, Method, Need, Teacher, weights
from ..scores import divergence, sampled
from ..sites import Site
from .ewc_dc import EWCDC
from .lora_continued import LoRAContinued, lora_of
from .over import Over


class Taught(Delta):
    """A change that keeps beside it what it was when `turn` was called, and learns on from there."""

    def __init__(self, change: Delta) -> None:
        super().__init__()
        self.change = change
        for name, parameter in change.named_parameters():
            # A buffer goes into the checkpoint: a run that is resumed has the same teacher.
            self.register_buffer(_kept(name), parameter.detach().clone())

    def forward(self) -> Tensor:
        return self.change()

    @torch.no_grad()
    def turn(self) -> None:
        for name, parameter in self.change.named_parameters():
            self.get_buffer(_kept(name)).copy_(parameter)

    @torch.no_grad()
    def then(self) -> Tensor:
        """The change as it was."""
        kept = {name: self.get_buffer(_kept(name)) for name, _ in self.change.named_parameters()}
        return torch.func.functional_call(self.change, kept)


def _kept(parameter: str) -> str:
    return "then_" + parameter.replace(".", "_")


@dataclass(frozen=True)
class DSC(Over):
    """L = L_over + λ Σ_T ( ‖ε_T(x_t, c_T, t) − ε_θ(x_t, c_T, t)‖² + γ KL( p_T(· | x) ‖ p_θ(· | x) ) ).

    From arXiv 2410.00700. p are the diffusion classifier's scores softmax_i(−‖ε − ε(x_t, c_i, t)‖²) among `concepts`
    words, one draw of t and ε a minibatch. T are two teachers: the LoRA as it was after an earlier concept, drawn anew
    at each step, with c_T its own word; and the new concept's, c_T the new word. All see the new concept's pictures
    only. θ goes on from the last concept's LoRA. The words are the two teachers' own and others drawn from the earlier
    ones and c_0, which the base knew before; the earlier teacher answers for the words that had been learned by then.

    Our reconstruction: the first `teacher_share` of the steps learn the concept plainly; what the LoRA is then is the
    new concept's teacher, and θ goes on from it. Memory is one LoRA for each concept, both factors of every site.
    """

    name: ClassVar[str] = "dsc"
    paper: ClassVar[str] = "arXiv 2410.00700"
    over: Method = field(default=LoRAContinued())
    """The LoRA that every concept trains on, or `ewc-dc` over it: both consolidations together."""
    strength: float = 1.0
    """λ."""
    score_weight: float = 1.0
    """γ, of the scores beside the noise; 0 leaves them out."""
    concepts: int = 5
    """k, the words that a picture is scored among."""
    temperature: float = 0.01
    """τ of the scores, of errors as the mean over entries; the paper's sum over entries is one over their number."""
    teacher_share: float = 0.5
    """Which part of a concept's steps makes the new concept's teacher, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        held = self.over.over if isinstance(self.over, EWCDC) else self.over
        if not isinstance(held, LoRAContinued):
            do = "It takes lora-continued, the LoRA of which all concepts are, or ewc-dc over it."
            raise SettingsError(f"dsc cannot hold {self.over.name}", do=do)
        if not 0 <= self.teacher_share < 1:
            found = f"teacher_share is {self.teacher_share}"
            raise SettingsError(found, do="Give teacher_share a value of 0 or more and below 1.")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({*self.over.needs, "word scores"})

    @property
    def scored_words(self) -> int:
        return self.concepts

    @property
    def turn(self) -> float:
        return self.teacher_share

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change = self.over.delta(site, memory)
        past = any(key.startswith("past-up ") for key in memory)
        return change if change is None or not past else Taught(change)

    def rate_of(self, site: Site, parameter: str) -> float:
        return self.over.rate_of(site, parameter.removeprefix("change."))

    def teachers(
        self, changes: Changes, memory: Memory, words: tuple[str, ...], draw: torch.Generator
    ) -> Sequence[Teacher]:
        *earlier, own = words
        kept = {key.split("/")[0].removeprefix("past-up ") for key in memory if key.startswith("past-up ")}
        past = [word for word in earlier if word in kept]
        if not past:
            return ()
        drawn = past[int(torch.randint(len(past), (), generator=draw))]
        asked = sampled([own, drawn], words, self.concepts, draw)
        by_then = earlier[: earlier.index(drawn)]
        return (
            Teacher(asked, {n: one.delta.then() for n, one in changes.items() if isinstance(one.delta, Taught)}),
            Teacher((drawn, *(word for word in asked if word in by_then)), _instead(_held(changes), memory, drawn)),
        )

    def distil(self, own: Answers, heard: Sequence[Answers]) -> Tensor:
        costs = [
            F.mse_loss(own.of(one.words[:1]).said, one.said[:1])
            + self.score_weight * divergence(one, own, self.temperature)
            for one in heard
        ]
        return self.strength * torch.stack(costs).sum()

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        return self.over.penalty(_held(changes), memory)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        own = _held(changes)
        kept = dict(self.over.remember(own, memory))
        words = [name.partition("/")[2] for name, change in own.items() if change.site.role == "token"]
        for name, change in weights(own).items():
            lora = lora_of(change.delta)
            if words and lora is not None:
                up, down = (factor.detach() for factor in lora.factors())
                kept |= {f"past-up {words[0]}/{name}": up, f"past-down {words[0]}/{name}": down}
        return kept

    def fold(self, changes: Changes, memory: Memory) -> Mapping[str, Tensor]:
        return self.over.fold(_held(changes), memory)


def _instead(changes: Changes, memory: Memory, word: str) -> dict[str, Tensor]:
    """L_word − L_last: what makes of the network, which holds the last LoRA, the one that holds that after `word`."""
    found = {}
    for name, change in weights(changes).items():
        if isinstance(change.delta, Since) and f"past-up {word}/{name}" in memory:
            then = memory[f"past-up {word}/{name}"] @ memory[f"past-down {word}/{name}"]
            found[name] = then - change.delta.before.to(then)
    return found


def _held(changes: Changes) -> dict[str, Change]:
    """The changes as the held method knows them: with its own deltas, and their parameters by its names."""
    return {
        name: change._replace(
            delta=change.delta.change,
            parameter_fisher=change.parameter_fisher
            and {key.removeprefix("change."): value for key, value in change.parameter_fisher.items()},
        )
        if isinstance(change.delta, Taught)
        else change
        for name, change in changes.items()
    }
