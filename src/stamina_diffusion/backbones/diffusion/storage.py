"""Less memory for weights that do not learn: bfloat16, or 8 bits and a scale for each row. What learns stays float32.

The networks then compute under autocast, which brings what meets into one precision.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...plan import Storage

LARGEST_OF_FLOAT8 = float(torch.finfo(torch.float8_e4m3fn).max)


class Scaled(nn.Module):
    """A matrix as (W₈, s), 8 bits (float8 e4m3) and one scale a row, that shows itself in bfloat16: W ≈ s ⊙ W₈."""

    def forward(self, held: Tensor, scale: Tensor) -> Tensor:
        return held.to(torch.bfloat16) * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        most = weight.float().abs().amax(1, keepdim=True)
        scale = (most / LARGEST_OF_FLOAT8).clamp(min=1e-12)
        return (weight.float() / scale).to(torch.float8_e4m3fn), scale.to(torch.bfloat16)


def store(networks: Iterable[nn.Module], storage: Storage, keep: Iterable[Tensor]) -> None:
    """Store in `storage` all matrices and kernels of the networks except those in `keep`, for good.

    Norms, biases and anything else of one dimension stay: they are small. In 8 bits go only the layers inside blocks,
    since the first and the last layer pass on all that there is.
    """
    kept = {id(parameter) for parameter in keep}
    for network in networks:
        for name, module in list(network.named_modules()):
            inside = any(part.isdigit() for part in name.split("."))
            for parameter_name, parameter in list(module.named_parameters(recurse=False)):
                if id(parameter) in kept or parameter.ndim < 2 or not parameter.is_floating_point():
                    continue
                if storage == "float8" and inside and isinstance(module, nn.Linear):
                    parameter.requires_grad_(False)
                    # Its tensors have another type than it shows, which is what unsafe allows.
                    parametrize.register_parametrization(module, parameter_name, Scaled(), unsafe=True)
                else:
                    parameter.data = parameter.data.to(torch.bfloat16)
