"""The keys and values of cross-attention alone, at the shapes of Stable Diffusion 1.5 and SDXL, with random weights.

Each arm is a forward and a backward pass through every layer, as in one training step: the layers' input needs a
gradient, since a word is learned. Arms take turns; a ratio is that of two medians. What is held after the forward pass
are the storages that autograd keeps, without the frozen weights and the layers' input.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import lycoris_peer
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.stamina import HardMasked, Stamina, hard
from stamina_diffusion.sites import Site, changed

TOKENS = 77

SHAPES = {
    "Stable Diffusion 1.5": [(320, 768)] * 10 + [(640, 768)] * 10 + [(1280, 768)] * 12,
    "SDXL": [(640, 2048)] * 20 + [(1280, 2048)] * 120,
}
"""(out, in) of each matrix."""


class Layers(nn.Module):
    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(columns, rows, bias=False) for rows, columns in shapes)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in self.layers]


def moved(module: nn.Module) -> None:
    """Every trainable parameter away from zero, as in the middle of a training."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))


class Ours:
    """A method's changes of the layers, as `learn` applies them."""

    def __init__(self, layers: Layers, method: Stamina | LoRA) -> None:
        self.layers = layers
        self.sites = {str(n): Site(str(n), "weight", layer, "weight") for n, layer in enumerate(layers.layers)}
        made = {name: method.delta(site, {}) for name, site in self.sites.items()}
        self.deltas = nn.ModuleDict({name: delta for name, delta in made.items() if delta is not None})
        moved(self.deltas)

    def values(self) -> Mapping[str, Tensor]:
        return {name: delta() for name, delta in self.deltas.items()}

    def forward(self, x: Tensor) -> list[Tensor]:
        with changed(self.sites, self.values()):
            return self.layers(x)


class Lycoris:
    """The layers with an adapter of LyCORIS each."""

    def __init__(self, layers: Layers, rank: int, algorithm: str) -> None:
        self.layers = layers
        self.deltas = lycoris_peer.attach(layers, r"layers\.\d+$", rank, algorithm)
        moved(self.deltas)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.layers(x)


class PlainAutograd(Ours):
    """The same masked change, W + (B A) ⊙ M formed by torch's autograd."""

    def values(self) -> Mapping[str, Tensor]:
        values = {}
        for name, delta in self.deltas.items():
            assert isinstance(delta, HardMasked)
            up, down = delta.change.factors()
            values[name] = up @ down * hard(delta.mask(), delta.temperature, training=True)
        return values


def peft_lora(layers: Layers, rank: int) -> Callable[[Tensor], list[Tensor]]:
    names = [f"layers.{n}" for n in range(len(layers.layers))]
    model = get_peft_model(layers, LoraConfig(r=rank, lora_alpha=rank, target_modules=names))
    moved(model)
    return model


def held_bytes(forward: Callable[[Tensor], list[Tensor]], x: Tensor, own: set[int]) -> int:
    """Bytes of the storages that autograd keeps between forward and backward pass, without those in `own`."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward(x)
    del kept
    return sum(held.values())


def seconds(forward: Callable[[Tensor], list[Tensor]], x: Tensor, gradients: list[Tensor]) -> float:
    began = time.perf_counter()
    torch.autograd.backward(forward(x), gradients)
    return time.perf_counter() - began


PEER = "peft LoRA"

Arms = dict[str, Callable[[Tensor], list[Tensor]]]


def arms_of(shapes: list[tuple[int, int]], rank: int, *, plain: bool, lycoris: bool) -> Arms:
    torch.manual_seed(0)
    full, gates, low = (
        Stamina(rank=rank, mask_rank=rank),
        Stamina(rank=rank, mask_rank=rank, mask="gates"),
        LoRA(rank=rank),
    )
    arms: Arms = {
        "STAMINA, full mask": Ours(Layers(shapes), full).forward,
        "STAMINA, gates": Ours(Layers(shapes), gates).forward,
        "LoRA": Ours(Layers(shapes), low).forward,
        PEER: peft_lora(Layers(shapes), rank),
    }
    if lycoris:
        arms |= {n: Lycoris(Layers(shapes), rank, how).forward for n, how in lycoris_peer.ALGORITHMS.items()}
    if plain:
        arms["full mask by plain autograd"] = PlainAutograd(Layers(shapes), full).forward
    return arms


def frozen_of(arm: Callable[[Tensor], list[Tensor]]) -> set[int]:
    """The storages of an arm's frozen weights."""
    owner = arm if isinstance(arm, nn.Module) else arm.__self__  # type: ignore[attr-defined]
    modules = [owner] if isinstance(owner, nn.Module) else [owner.layers, owner.deltas]
    frozen = (p for module in modules for p in module.parameters() if not p.requires_grad)
    return {p.untyped_storage().data_ptr() for p in frozen}


def rows(
    model: str, share: int, prompts: int, rank: int, repeats: int, *, pictures: int = 1, lycoris: bool = False
) -> list[dict[str, object]]:
    """Time and bytes held of every arm over those of the peers, on every `share`-th matrix.

    A batch is of so many pictures of each prompt, as a word that is learned with one prompt has it.
    """
    shapes = SHAPES[model][::share]
    arms = arms_of(shapes, rank, plain=prompts * pictures == 1, lycoris=lycoris)
    x = torch.randn(prompts, TOKENS, shapes[0][1])
    gradients = [torch.randn(prompts * pictures, TOKENS, rows) for rows, _ in shapes]

    def batch(given: Tensor) -> Tensor:
        return given if pictures == 1 else given.expand(pictures, *given.shape[1:])

    held = {}
    for name, arm in arms.items():
        given = x.clone().requires_grad_()
        held[name] = held_bytes(arm, batch(given), {given.untyped_storage().data_ptr(), *frozen_of(arm)})
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats + 1):
        for name, arm in arms.items():
            spent = seconds(arm, batch(x.clone().requires_grad_()), gradients)
            if turn:
                times[name].append(spent)
    medians = {name: statistics.median(each) for name, each in times.items()}
    shown = f"{pictures} pictures of " * (pictures > 1) + f"{prompts} prompt(s)"
    what = f"{model}, {len(shapes)} of {len(SHAPES[model])} K/V matrices, rank {rank}, {shown}, fp32"
    peers = [name for name in (PEER, *lycoris_peer.ALGORITHMS) if name in arms]
    return [
        {
            "measure": f"K/V layers, {measure} ({unit}): {name}",
            "model": what,
            "ours": round(values[name], 5),
            "peer": round(values[peer], 5),
            "peer_name": peer,
            "ratio": round(values[name] / values[peer], 3) if values[peer] else None,
        }
        for peer in peers
        for name in arms
        # Beside LyCORIS only what it could be taken instead of.
        if name not in peers and (peer == PEER or name.startswith("STAMINA"))
        for measure, values, unit in (("forward and backward", medians, "s"), ("held after forward", held, "bytes"))
    ]


def held_by_all(model: str, rank: int) -> dict[str, object]:
    """What the full mask holds over every matrix of a model, at one prompt, and what stays below 1 GiB of it."""
    shapes = SHAPES[model]
    ours = Ours(Layers(shapes), Stamina(rank=rank, mask_rank=rank))
    x = torch.randn(1, TOKENS, shapes[0][1], requires_grad=True)
    held = held_bytes(ours.forward, x, {x.untyped_storage().data_ptr(), *frozen_of(ours.forward)})
    return {
        "measure": "K/V layers, held after forward over all matrices (bytes): STAMINA, full mask",
        "model": f"{model}, all {len(shapes)} K/V matrices, rank {rank}, 1 prompt, fp32",
        "ours": held,
        "peer": 1 << 30,
        "peer_name": "1 GiB, the limit set",
        "ratio": round(held / (1 << 30), 4),
    }
