"""Less memory for weights that do not learn: bfloat16, or 8 bits and a scale for each row. What learns stays float32.

The networks then compute under autocast, which brings what meets into one precision.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...method import Scope
from ...plan import Storage
from ...sites import Site

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


class Stored:
    """What of a pipeline is where, and in how many bits."""

    pipeline: Any
    denoiser: Any
    device: Any
    modules: Mapping[str, nn.Module]
    encoders: Any
    storage: Storage = "float32"

    @abc.abstractmethod
    def weight_sites(self, scope: Scope) -> Mapping[str, Site]: ...

    def store(self, storage: Storage) -> Self:
        """Store the weights that no concept changes in `storage`, for good; the answer is the backbone itself.

        Keys, values and the tables of words stay in float32, and so does the autoencoder, which then takes one picture
        at a time. What is learned, folded or drawn afterwards is computed in bfloat16 where the weights are no longer
        float32; the encoders of words are stored as what autocast would make of them at each step.
        """
        if storage != "float32":
            keep = [site.module._parameters[site.parameter] for site in self.weight_sites("cross-attention").values()]
            large = [self.denoiser, *(network for network in self._idle() if network is not self.pipeline.vae)]
            store(large, storage, [parameter for parameter in keep if parameter is not None])
            embeddings = (m for encoder in self.encoders for m in encoder.modules() if isinstance(m, nn.Embedding))
            store(self.encoders, "bf16", [module.weight for module in embeddings])
            if hasattr(self.pipeline.vae, "enable_slicing"):
                self.pipeline.vae.enable_slicing()
            self.storage = storage
        return self

    def to(self, device: torch.device) -> Self:
        """Move the networks that learn to `device`; the others follow when they are needed. The answer is itself."""
        for network in self.modules.values():
            network.to(device)
        return self

    def sent(self, drawn: Tensor) -> Tensor:
        """A tensor that was made on the CPU, on the device, without waiting for what a GPU is still doing."""
        device = self.device
        return drawn.to(device, non_blocking=device.type == "cuda")

    def _idle(self) -> list[nn.Module]:
        """The networks that no step of learning needs: the autoencoder, and text encoders that learn no words."""
        learning = {id(network) for network in self.modules.values()}
        networks = [part for part in self.pipeline.components.values() if isinstance(part, nn.Module)]
        return [network for network in networks if id(network) not in learning]

    def gather(self) -> None:
        """Bring every network to where the denoiser is."""
        for network in self._idle():
            network.to(self.device)

    def send_away(self) -> None:
        """Keep the networks that learning does not need in the computer's memory."""
        if self.device.type == "cpu":
            return
        for network in self._idle():
            # Asked before every batch: a network that is away already is not walked through.
            if next(network.parameters()).device.type != "cpu":
                network.to("cpu")

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, weights of fewer bits than float32 compute; whoever asked for a precision already keeps it."""
        device = self.device.type
        own = self.storage != "float32" and not torch.is_autocast_enabled(device)
        with torch.autocast(device, torch.bfloat16) if own else nullcontext():
            yield
