"""STAMINA (arXiv 2311.18763) with what the base says to prompts without a learned word held, the best of its forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..method import Method
from .guard import Guard
from .stamina import Stamina


@dataclass(frozen=True)
class StaminaHeld(Guard):
    """W_t = W_{t−1} + Δ_t P: Δ_t as STAMINA's (S2 to S5), P as `Guard`'s ridge makes it of generic prompts alone.

    P is the same for every concept and known from the base; earlier words are kept by STAMINA's self-regularisation.
    It is `Guard(over=Stamina(), words=False, price=0)` under a name of its own, an addition of this project
    (docs/decisions/0012): with P every entry of a change moves a little, where STAMINA's own is as sparse as its mask.
    """

    name: ClassVar[str] = "stamina-held"
    paper: ClassVar[str] = "arXiv 2311.18763"
    earlier: ClassVar[Mapping[str, Any]] = {}
    over: Method = field(default=Stamina())
    words: bool = False
    price: float = 0.0
