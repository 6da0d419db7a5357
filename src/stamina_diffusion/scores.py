"""A diffusion model as a classifier: a picture is the word's under which it is denoised best (arXiv 2303.16203).

p(c_i | x) = softmax_i( −E ‖ε − ε_θ(x_t, c_i, t)‖² ), estimated from one draw of t and ε, which all words share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .method import Answers


def log_scores(answers: Answers, temperature: float) -> Tensor:
    """log p(c_i | x) of N pictures among W words, (W, N): log softmax_i( −‖target − said_i‖² / (D τ) ).

    D is how many entries a prediction has, so that τ means the same for pictures of any size; τ = 1/D gives the sum
    over all entries.
    """
    errors = (answers.said - answers.target).square().flatten(2).mean(2)
    return F.log_softmax(-errors / temperature, 0)


def cross_entropy(answers: Answers, temperature: float) -> Tensor:
    """−log p(c | x), c the first of the words: that word up, the others down; the mean over the pictures."""
    return -log_scores(answers, temperature)[0].mean()


def divergence(teacher: Answers, own: Answers, temperature: float) -> Tensor:
    """KL( p_teacher(· | x) ‖ p_own(· | x) ) over the teacher's words; the mean over the pictures."""
    taught, said = log_scores(teacher, temperature), log_scores(own.of(teacher.words), temperature)
    return (taught.exp() * (taught - said)).sum(0).mean()


def sampled(first: Sequence[str], words: Sequence[str], count: int, draw: torch.Generator) -> tuple[str, ...]:
    """`count` words: those of `first`, then others of `words`, each at most once; all, where there are not so many.

    >>> sampled(["<a>"], ["", "<a>"], 5, torch.Generator())
    ('<a>', '')
    """
    others = [word for word in words if word not in first]
    order = torch.randperm(len(others), generator=draw).tolist()
    return (*first, *(others[place] for place in order))[: max(count, len(first))]
