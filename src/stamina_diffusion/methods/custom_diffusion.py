"""Custom Diffusion: free keys and values, one concept after another (Kumari et al., arXiv 2212.04488)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .fine_tune import FineTune


@dataclass(frozen=True)
class CustomDiffusion(FineTune):
    """W_t^{K,V} = W_{t−1}^{K,V} + Δ_t, Δ_t free: "a photo of <word> class" beside prior pictures of the class.

    Fine-tuning with the settings of arXiv 2212.04488; the prior pictures are drawn, not retrieved.
    """

    name: ClassVar[str] = "custom-diffusion"
    paper: ClassVar[str] = "arXiv 2212.04488"
    class_word: bool = True
