"""Textual inversion: learn the word, leave the network alone (Gal et al., arXiv 2208.01618)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..deltas import Delta, Free
from ..method import Memory, Method, Scope
from ..sites import Site


@dataclass(frozen=True)
class TextualInversion(Method):
    """v* = argmin_v L_diff (arXiv 2208.01618, equation 2)."""

    name: ClassVar[str] = "textual-inversion"
    paper: ClassVar[str] = "arXiv 2208.01618"
    word_rate: float = 5e-3

    @property
    def scope(self) -> Scope:
        return "tokens"

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        return Free(site.shape)
