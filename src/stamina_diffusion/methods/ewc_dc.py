"""EWC on a LoRA's own parameters, by what makes a picture its word's and no other's (Jha, arXiv 2410.00700).

The paper's parameter-space consolidation. It has no public code: what is certain of it, and what is our
reconstruction, stands in docs/reconstruction.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import SettingsError
from ..method import Answers, Changes, Memory, Method, Need, weights
from ..scores import cross_entropy, sampled
from .lora_continued import LoRAContinued, lora_of
from .over import Over

FACTORS = ("down", "up")


@dataclass(frozen=True)
class EWCDC(Over):
    """L = L_over + λ/2 Σ_i F_i (θ_i − θ*_i)², θ the factors of one LoRA that every concept trains on.

    From arXiv 2410.00700. θ* is where the last concept ended, and F the sum of what each concept's end needed (online
    EWC, arXiv 1805.06370): the mean over single pictures of (∂/∂θ (L_diff + γ CE))², CE = −log p(c_t | x), with the
    diffusion classifier's scores p(c_i | x) = softmax_i(−‖ε − ε_θ(x_t, c_i, t)‖²) among `concepts` words: the concept's
    own up; others, drawn for each picture from the earlier words and c_0, which the base knew before, down. Memory is
    one LoRA and its Fisher, however many concepts there are.

    Our reconstruction: γ, k for the Fisher too, the scores' temperature, one draw of noise and time for each picture.
    """

    name: ClassVar[str] = "ewc-dc"
    paper: ClassVar[str] = "arXiv 2410.00700, arXiv 1805.06370"
    over: Method = field(default=LoRAContinued())
    strength: float = 1e3
    """λ, on the sum over all entries of all factors."""
    pictures: int = 64
    """How many single pictures' gradients make the Fisher of a concept."""
    decay: float = 1.0
    """What is left of the earlier Fisher when another is added; 1 forgets nothing."""
    concepts: int = 5
    """k, the words that a picture is scored among, its own with them."""
    score_weight: float = 1.0
    """γ, of the scores in the Fisher; 0 leaves them out, which is EWC on the LoRA."""
    temperature: float = 0.01
    """τ of the scores, of errors as the mean over entries; the paper's sum over entries is one over their number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.over, LoRAContinued):
            do = "It takes lora-continued: the LoRA of which all concepts are."
            raise SettingsError(f"ewc-dc cannot hold {self.over.name}", do=do)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({*self.over.needs, "word scores"})

    @property
    def parameter_batches(self) -> int:
        return max(self.pictures, self.over.parameter_batches)

    @property
    def scored_words(self) -> int:
        return self.concepts

    def rivals(self, words: tuple[str, ...], draw: torch.Generator) -> tuple[str, ...]:
        return sampled(words[-1:], words, self.concepts, draw) if self.score_weight else ()

    def confusion(self, answers: Answers) -> Tensor:
        return self.score_weight * cross_entropy(answers, self.temperature)

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        return self.over.penalty(changes, memory) + self.strength / 2 * importance(changes, memory)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept = dict(self.over.remember(changes, memory))
        for name, change in weights(changes).items():
            for parameter, fisher in (change.parameter_fisher or {}).items():
                key = f"fisher-{parameter.rpartition('.')[2]}/{name}"
                # F ← γ F + F_t (arXiv 1805.06370, section 3.2).
                kept[key] = self.decay * memory.get(key, torch.zeros_like(fisher)) + fisher
        return kept


def importance(changes: Changes, memory: Memory) -> Tensor | float:
    """Σ_i F_i (θ_i − θ*_i)², over all entries of all factors that have a Fisher."""
    terms = []
    for name, change in weights(changes).items():
        lora = lora_of(change.delta)
        for factor in FACTORS if lora is not None else ():
            if f"fisher-{factor}/{name}" in memory:
                moved = getattr(lora, factor) - memory[f"factor-{factor}/{name}"]
                terms.append((memory[f"fisher-{factor}/{name}"] * moved.square()).sum())
    return torch.stack(terms).sum() if terms else 0.0
