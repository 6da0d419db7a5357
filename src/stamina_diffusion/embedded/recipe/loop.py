"""The training loop that the recipe's three stages share: rate, checkpoints, progress, log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ... import checkpoints, files

CHECKPOINT_SECONDS = 60.0
DECAY = 0.3
"""The last share of the steps over which the rate falls linearly to zero, unless a stage says another."""


def mixed_precision(device: torch.device) -> torch.autocast:
    """Where the networks compute in bfloat16 if the device does so in hardware, and in float32 if not.

    A processor with AVX2 alone emulates bfloat16: a step of the U-Net was seen to take nine times as long.
    """
    fast = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def rate_at(step: int, steps: int, warm_up: int, decay: float = DECAY) -> float:
    """The share of the peak rate at `step`: up, level, down. The level part does not know the end: a run can grow."""
    return min(1.0, (step + 1) / warm_up, (steps - step) / (decay * steps))


class Captured:
    """A step as a CUDA graph: its kernels are launched at once, where a slow host launches one by one.

    The first steps run as they are, then one is recorded, and again where a batch has another shape.
    """

    WARM = 3
    """Steps before the recording, in which libraries choose their kernels."""

    def __init__(self, learn: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
        self.learn = learn
        self.stream = torch.cuda.Stream()
        self.warm = 0
        self.batch: dict[str, Tensor] = {}
        self.losses: dict[str, Tensor] = {}
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if {key: value.shape for key, value in batch.items()} != {key: held.shape for key, held in self.batch.items()}:
            self.batch = {key: value.clone() for key, value in batch.items()}
            self.graph, self.warm = None, 0
        if self.graph is None and self.warm < self.WARM:
            self.warm += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                losses = self.learn(batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            return losses
        for key, value in batch.items():
            self.batch[key].copy_(value)
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.losses = self.learn(self.batch)
        self.graph.replay()
        return self.losses


def train(
    name: str,
    folder: Path,
    *,
    steps: int,
    rate: float,
    warm_up: int,
    trained: list[Tensor],
    state: Mapping[str, Tensor],
    loss_at: Callable[[Any], dict[str, Tensor]],
    batch_at: Callable[[int], Any] = int,
    after_step: Callable[[int], None] = lambda step: None,
    weight_decay: float = 0.01,
    decay: float = DECAY,
    capture: bool = False,
) -> None:
    """Minimise `loss_at(batch_at(step))["loss"]` over `trained`; `state` is all that a checkpoint must hold.

    The batch is the step itself, unless `batch_at` makes tensors of it; then, with `capture`, all else of a step
    is one CUDA graph: `loss_at` must be the same work whatever the batch's values. The same call goes on from the last
    checkpoint in `folder`. Losses are logged to `<name>.jsonl`.
    """
    optimizer = torch.optim.AdamW(
        trained,
        lr=torch.tensor(rate, device=trained[0].device) if capture else rate,
        betas=(0.9, 0.98),
        weight_decay=weight_decay,
        fused=True,
        capturable=capture,
    )

    def learn(batch: Any) -> dict[str, Tensor]:
        losses = loss_at(batch)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {key: value.detach() for key, value in losses.items()}

    work = Captured(learn) if capture else learn
    checkpoint, log = folder / f"{name}.checkpoint.safetensors", folder / f"{name}.jsonl"
    start, seconds = 0, 0.0
    if checkpoint.exists():
        progress = checkpoints.load(checkpoint, parameters=state, optimizer=optimizer)
        start, seconds = progress["step"], progress["seconds"]
        lines = log.read_text().splitlines() if log.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= start]
        files.write_bytes(log, "".join(f"{line}\n" for line in kept).encode())
    else:
        log.unlink(missing_ok=True)

    began = saved = time.monotonic()
    running: dict[str, Tensor] = {}
    interactive = sys.stderr.isatty()
    bar = tqdm(range(start, steps), initial=start, total=steps, desc=name, mininterval=0.5 if interactive else 30)
    for step in bar:
        current = rate * rate_at(step, steps, warm_up, decay)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"].fill_(current) if capture else current
        losses = work(batch_at(step))
        after_step(step)
        for key, value in losses.items():
            seen = value.float()
            running[key] = running.get(key, seen).lerp(seen, 0.05)  # not read yet: a GPU would have to be waited for
        now = time.monotonic()
        if (step + 1) % 25 == 0 or step + 1 == steps:
            read = {key: float(value) for key, value in running.items()}
            bar.set_postfix({key: f"{value:.4f}" for key, value in read.items()}, refresh=False)
            with open(log, "a") as file:
                row = {"step": step + 1, "seconds": round(seconds + now - began, 1)}
                file.write(json.dumps(row | {key: round(value, 5) for key, value in read.items()}) + "\n")
        if now - saved > CHECKPOINT_SECONDS or step + 1 == steps:
            saved = now
            progress = {"step": step + 1, "seconds": seconds + now - began}
            checkpoints.save(checkpoint, parameters=state, optimizer=optimizer, progress=progress)
