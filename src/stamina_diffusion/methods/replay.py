"""Generative replay: the model draws its earlier concepts and learns the new one among them (arXiv 1705.08690)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..method import Method, Need
from .custom_diffusion import CustomDiffusion
from .over import Over


@dataclass(frozen=True)
class Replay(Over):
    """L = L_over(new pictures) + w L_diff(pictures that the model before drew of each earlier word) (arXiv 1705.08690).

    How many pictures of a word, and w, are the plan's `replay_images` and `replay_weight`. They are drawn without
    guidance, which would sharpen them further in every round. No photo is kept.
    """

    name: ClassVar[str] = "replay"
    paper: ClassVar[str] = "arXiv 1705.08690"
    over: Method = field(default=CustomDiffusion())

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({*self.over.needs, "replay"})
