"""DreamBooth: the whole U-Net, free, one concept after another (Ruiz et al., arXiv 2208.12242)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .fine_tune import FineTune


@dataclass(frozen=True)
class DreamBooth(FineTune):
    """W_t = W_{t−1} + Δ_t for every weight of the U-Net; L = L_diff + w L_prior (arXiv 2208.12242, equation 2).

    Fine-tuning with the settings of the paper: "a photo of <word> class", and prior pictures of the class, whose weight
    w is the plan's `prior_weight`; `prior = false` leaves them out. The word is a new one, not a rare old one.
    """

    name: ClassVar[str] = "dreambooth"
    paper: ClassVar[str] = "arXiv 2208.12242"
    weights: Literal["cross-attention", "network"] = "network"
    class_word: bool = True
