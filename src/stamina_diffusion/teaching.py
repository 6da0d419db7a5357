"""What a method's teachers say of a step's pictures, and what the step says of them beside: `learn` asks, nobody else.

A teacher is the network with other changes in it: it answers before the step's own are in place, and gets no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import seeds
from .backbones.base import Backbone
from .concepts import Concept
from .method import Answers, Changes, Memory, Method
from .sites import changed


@torch.no_grad()
def taught(
    backbone: Backbone,
    method: Method,
    concept: Concept,
    batch: Any,
    changes: Changes,
    memory: Memory,
    *purpose: int | str,
) -> tuple[Answers, ...]:
    """What each teacher of a step says of its batch; nothing where the method names none."""
    words = tuple(backbone.word_prompts(concept))
    sites = {name: change.site for name, change in changes.items()}
    heard = []
    for teacher in method.teachers(changes, memory, words, seeds.generator(*purpose, "teachers")):
        with changed(sites, teacher.values):
            heard.append(backbone.answers(batch, teacher.words))
    return tuple(heard)


def disagreement(backbone: Backbone, method: Method, batch: Any, heard: tuple[Answers, ...]) -> Tensor:
    """What it costs that the network, as it is now, answers otherwise than its teachers."""
    words = tuple(dict.fromkeys(word for one in heard for word in one.words))
    return method.distil(backbone.answers(batch, words), heard)
