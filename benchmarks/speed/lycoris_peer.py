"""LyCORIS as a peer: its LoCon, which for linear layers is a LoRA, and its LoHa, on the same layers as ours.

It is no dependency of this project: install it where it disturbs nothing, and say where.

    pip install --no-deps --target DIR lycoris-lora einops toml
"""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

ALGORITHMS = {"LyCORIS LoCon": "locon", "LyCORIS LoHa": "loha"}


def find(folder: Path | None) -> bool:
    """Whether LyCORIS can be imported, from `folder` too."""
    if folder is not None:
        # Behind everything else: what else is in the folder must not take the place of what is installed.
        sys.path.append(str(folder.resolve()))
    return find_spec("lycoris") is not None


def attach(network: nn.Module, layers: str, rank: int, algorithm: str) -> nn.Module:
    """Give the layers of a network whose names match a pattern an adapter each; the answer holds what is trained."""
    from lycoris import LycorisNetwork  # type: ignore[import-not-found]
    from lycoris.logging import logger  # type: ignore[import-not-found]

    logger.setLevel(logging.ERROR)
    LycorisNetwork.apply_preset({"target_module": [], "target_name": [layers], "enable_conv": False})
    adapters: Any = LycorisNetwork(network, 1.0, lora_dim=rank, conv_lora_dim=0, alpha=rank, network_module=algorithm)
    if not adapters.loras:
        raise SystemExit("LyCORIS found none of the layers")
    adapters.apply_to()
    return adapters.requires_grad_(True).train()
