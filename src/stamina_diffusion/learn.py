"""Learn one concept: the only place where a method and a backbone meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from . import checkpoints, frugal, seeds, teaching
from .backbones.base import Backbone
from .concepts import Concept
from .errors import SettingsError, TrainingError
from .method import Answers, Change, Memory, Method
from .observe import observe, past_features, seeing
from .plan import Plan
from .sites import Site, changed, fold, is_word, start_key

CHECKPOINT_SECONDS = 10.0

COMPUTE = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Step(NamedTuple):
    """Where a run is, for whoever watches it."""

    step: int
    """Steps done."""
    steps: int
    loss: float
    penalty: float


@dataclass(frozen=True)
class Learned:
    """What learning a concept leaves behind."""

    changes: Mapping[str, Tensor]
    """What was added to each site, on the CPU, float32."""
    start: Mapping[str, Tensor]
    """The new rows before they were learned, by `start_key`: a word's, (1, width), 'start', and 'start_2' for a second
    encoder; a task's classes', 'start_head' and 'start_head_bias'."""
    memory: Memory
    losses: tuple[float, ...]
    """The denoising loss of every step of this process."""
    seconds: float
    trained: int = 0
    """How many numbers were trained."""

    @property
    def density(self) -> float | None:
        """The share of the weights' entries that moved, in [0, 1]; None when no weight was to change."""
        weights = [change for name, change in self.changes.items() if not is_word(name)]
        total = sum(change.numel() for change in weights)
        return sum(int(change.count_nonzero()) for change in weights) / total if total else None


class Deltas(nn.Module):
    """All trainable changes of a concept as one module, so that accelerate can wrap them."""

    def __init__(self, deltas: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.deltas = nn.ModuleList(deltas.values())

    def forward(self) -> list[Tensor]:
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return [delta() for delta in self.deltas]


def learn(
    backbone: Backbone,
    method: Method,
    concept: Concept,
    memory: Memory,
    plan: Plan,
    *,
    checkpoint: Path | None = None,
    watch: Callable[[Step], None] = lambda step: None,
    peek: Callable[[int], None] = lambda step: None,
    peek_at: Collection[int] = (),
) -> Learned:
    """Teach `backbone` the concept by `method` and fold it in.

    `memory` is what the method kept of the past; the answer holds its successor. With `checkpoint`, the unfinished
    state is written there every few seconds and a later call goes on from it to the same bytes; the file is left for
    the caller to delete. Every process of an accelerate run calls this alike. After each step of `peek_at`, `peek` is
    called while the network is what it would be if learning ended there; what it draws alters nothing that is learned.

    When the memory of the device is full, the rest is learned in smaller batches, as many pictures a step as before.

    Raises TrainingError when the loss is no longer a number, or one picture is too much for the memory; the backbone's
    weights are then as before, and the new word, unlearned, is the only trace: to try again under the same name, load
    the backbone anew.
    """
    make_optimizer = frugal.optimizer_class(plan)
    accelerator = _accelerator(plan, backbone.device)
    began = time.monotonic()
    backbone.grow(concept, method, plan.seed)
    sites = backbone.sites(concept, method.scope)
    words = {name: site for name, site in sites.items() if site.role != "weight"}
    start = {start_key(name): site.value.detach().cpu().clone() for name, site in words.items()}
    material = backbone.material(concept, method, plan)
    sites = seeing(backbone, method, concept, plan, material, sites)
    past = past_features(backbone, method, concept, plan)
    memory = memory if past is None else method.begin(memory, past)

    with seeds.drawing_for(plan.seed, concept.name, "start"):
        made = {name: method.delta(site, memory) for name, site in sites.items()}
    deltas = {name: delta for name, delta in made.items() if delta is not None}
    sites = {name: sites[name] for name in deltas}
    memory = {name: value.to(backbone.device) for name, value in memory.items()}

    module = Deltas(deltas).to(backbone.device)
    optimizer = make_optimizer(_groups(method, sites, deltas), weight_decay=plan.weight_decay)
    state = checkpoints.named_tensors(deltas=module)
    done, spent = 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        try:
            progress = checkpoints.load(checkpoint, parameters=state, optimizer=optimizer)
            done, spent = progress["step"], progress["seconds"]
        except checkpoints.DamagedError:
            # Only time is lost: begun again, it ends in the same bytes.
            checkpoint.unlink()
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    peaks = [group["lr"] for group in optimizer.param_groups]

    spared = list(backbone.modules.values()) if plan.checkpointing else []
    turn = round(method.turn * plan.steps)

    def autocast(plan: Plan) -> torch.autocast:
        return torch.autocast(backbone.device.type, COMPUTE[plan.precision], plan.precision != "no")

    def take(step: int, plan: Plan) -> tuple[float, float]:
        """One step; the answer is its denoising loss and its penalty."""
        loss = penalty = 0.0
        for part in range(plan.accumulation):
            place = (step * plan.accumulation + part) * accelerator.num_processes + accelerator.process_index
            purpose = (plan.seed, concept.name, place)
            with accelerator.accumulate(wrapped):
                with seeds.drawing_for(*purpose, "delta"):
                    values = dict(zip(deltas, wrapped(), strict=True))
                changes = {name: Change(sites[name], deltas[name], value) for name, value in values.items()}
                heard: tuple[Answers, ...] = ()
                with autocast(plan):
                    batch = backbone.batch(material, plan, *purpose)
                    if step >= turn:
                        heard = teaching.taught(backbone, method, concept, batch, changes, memory, *purpose)
                with changed(sites, values), frugal.recomputed_activations(spared):
                    with autocast(plan):
                        denoising = backbone.loss(batch)
                        apart = teaching.disagreement(backbone, method, batch, heard) if heard else None
                    cost = method.penalty(changes, memory)
                    cost = cost if apart is None else cost + apart
                    accelerator.backward(denoising.float() + cost)
                if accelerator.sync_gradients and plan.clip_norm:
                    accelerator.clip_grad_norm_(module.parameters(), plan.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
            loss += float(denoising.detach()) / plan.accumulation
            penalty += float(cost.detach() if isinstance(cost, Tensor) else cost) / plan.accumulation
        return loss, penalty

    losses: list[float] = []
    saved = time.monotonic()
    for step in range(done, plan.steps):
        if step == turn:
            for delta in deltas.values():
                delta.turn()
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * plan.share_of_rate(step)
        while True:
            try:
                loss, penalty = take(step, plan)
                break
            except RuntimeError as error:
                if accelerator.num_processes > 1:
                    raise  # The other processes would wait for this one.
                plan = frugal.smaller_batches(plan, error)
            module.zero_grad()
            accelerator.gradient_accumulation_steps, accelerator.step = plan.accumulation, 0
        _check_finite(loss + penalty, step)
        losses.append(loss)
        watch(Step(step + 1, plan.steps, loss, penalty))
        if step + 1 in peek_at and accelerator.is_main_process:
            _let_peek(peek, step + 1, module, sites, list(deltas))
        now = time.monotonic()
        if checkpoint is not None and now - saved > CHECKPOINT_SECONDS and accelerator.is_main_process:
            saved = now
            progress = {"step": step + 1, "seconds": spent + now - began}
            checkpoints.save(checkpoint, parameters=state, optimizer=optimizer, progress=progress)

    accelerator.wait_for_everyone()
    module.eval()
    with torch.no_grad():
        # Detached: a free change is its own parameter, and what is kept of it must be a plain tensor.
        final = {name: value.detach() for name, value in zip(deltas, module(), strict=True)}
        changes = {name: Change(sites[name], deltas[name], value) for name, value in final.items()}
        changes = observe(backbone, method, concept, plan, material, changes, past)
        remembered = method.remember(changes, memory)
        folded = {name: value.float().cpu() for name, value in method.fold(changes, memory).items()}
    for value in folded.values():
        _check_finite(float(value.sum()), plan.steps)
    fold(sites, folded)
    return Learned(
        changes=folded,
        start=start,
        memory={name: value.cpu() for name, value in remembered.items()},
        losses=tuple(losses),
        seconds=spent + time.monotonic() - began,
        trained=sum(parameter.numel() for parameter in module.parameters()),
    )


def check_rank(method: Method, sites: Mapping[str, Site]) -> None:
    """Raise SettingsError for a rank that is above the own rank of every one of some layers: it would not be had."""
    least = [min(site.shape[0], site.shape[1:].numel()) for site in sites.values() if len(site.shape) > 1]
    most = max(least, default=0)
    settings = method.settings()
    while settings:
        for key in ("rank", "mask_rank"):
            if most and isinstance(asked := settings.get(key), int) and asked > most:
                what = f"{key} is {asked}, above every layer's own: the largest has {most}"
                raise SettingsError(what, do=f"Take --set {key}={most} or less; 8 to 64 are usual.")
        settings = settings.get("over")


def _let_peek(
    peek: Callable[[int], None], step: int, module: Deltas, sites: Mapping[str, Site], names: list[str]
) -> None:
    """Call `peek` with the changes so far in place, in their evaluation form; random states are left as they were."""
    module.eval()
    try:
        with torch.no_grad(), seeds.drawing_for("peek", step):
            values = dict(zip(names, module(), strict=True))
            with changed(sites, values):
                peek(step)
    finally:
        module.train()


def _groups(method: Method, sites: Mapping[str, Site], deltas: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """The optimizer's parameter groups, one for each learning rate."""
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, delta in deltas.items():
        for parameter_name, parameter in delta.named_parameters():
            by_rate.setdefault(method.rate_of(sites[name], parameter_name), []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]


def _accelerator(plan: Plan, device: torch.device) -> Accelerator:
    if plan.precision == "fp16" and device.type == "cpu":
        raise SettingsError("fp16 needs a GPU, and the network is on the CPU", do="Choose precision bf16 or no.")
    # One process learns many concepts; accelerate keeps the precision of the first unless it is told to forget it.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != plan.precision:
        AcceleratorState._reset_state()
    # The backbone says where to compute: on a machine with a GPU it may still be on the CPU.
    return Accelerator(
        device_placement=False, mixed_precision=plan.precision, gradient_accumulation_steps=plan.accumulation
    )


def _check_finite(value: float, step: int) -> None:
    if value != value or value in (float("inf"), float("-inf")):
        raise TrainingError(
            f"the loss is no longer a number at step {step}",
            do="Nothing was changed. Take a lower rate (--set rate=...), or precision bf16 or no instead of fp16.",
        )
