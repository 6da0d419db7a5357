"""The smallest benchmark: pictures of noise learned one after another by the toy; it shows what a benchmark must say.

>>> from stamina_diffusion.benchmarks.grid import Cell
>>> Toys(steps=2).tasks(Cell("lora", "noise", 3, 0))
3
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import files, testing
from .backbones.toy import Toy
from .benchmarks.grid import Benchmark, Cell, Run, task_folder
from .errors import SettingsError, TrainingError
from .heldout import heldout_loss
from .learn import learn
from .method import Memory
from .methods import METHODS, build
from .plan import Plan


@dataclass(frozen=True)
class Toys(Benchmark):
    """How well the toy knows each of some pictures of noise."""

    name: ClassVar[str] = "toys"
    steps: int = 3
    rate: float = 0.1
    threads: int = 1

    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self, cell: Cell) -> dict[str, Any]:
        return {"method": build(cell.variant, {"rate": self.rate}).settings()}

    def check(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if cell.variant not in METHODS:
                raise SettingsError(f"there is no method {cell.variant!r}", do=f"Methods: {', '.join(METHODS)}.")

    def tasks(self, cell: Cell) -> int:
        return cell.length

    def seconds(self, cell: Cell) -> float:
        return 0.01 * cell.length * self.steps

    def open(self, cell: Cell, where: Path) -> ToyRun:
        return ToyRun(self, cell)


class ToyRun(Run):
    """The toy, and what its method remembers."""

    def __init__(self, benchmark: Toys, cell: Cell) -> None:
        self.cell = cell
        self.method = build(cell.variant, {"rate": benchmark.rate})
        self.plan = Plan(steps=benchmark.steps, batch=2, seed=cell.seed, prior_images=0)
        self.backbone = Toy(cell.seed)
        self.concepts = [testing.noise_concept(f"noise-{task}") for task in range(cell.length)]
        self.memory: Memory = {}

    @property
    def tasks(self) -> int:
        return self.cell.length

    def learn(self, task: int, folder: Path) -> dict[str, Any]:
        if self.plan.steps > 1000:
            raise TrainingError("the loss is no longer a number at step 1000")
        learned = learn(self.backbone, self.method, self.concepts[task], self.memory, self.plan)
        self.memory = learned.memory
        losses = [heldout_loss(self.backbone, self.method, c, self.plan) for c in self.concepts[: task + 1]]
        files.write_tensors(folder / "losses.safetensors", {"losses": torch.tensor(losses)})
        return {"concept": self.concepts[task].name, "losses": losses, "seconds": learned.seconds}

    def state(self) -> Mapping[str, Tensor]:
        network = {f"network/{name}": value for name, value in self.backbone.network.state_dict().items()}
        return network | {f"memory/{name}": value for name, value in self.memory.items()}

    def restore(self, state: Mapping[str, Tensor], rows: Sequence[Mapping[str, Any]]) -> None:
        for concept in self.concepts[: len(rows)]:
            self.backbone.grow(concept, self.method, self.plan.seed)
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "memory": {}}
        for name, value in state.items():
            kind, _, name = name.partition("/")
            parts[kind][name] = value
        self.backbone.network.load_state_dict(parts["network"])
        self.memory = parts["memory"]

    def finish(self, folder: Path, where: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        kept = [files.read_tensors(task_folder(where, task) / "losses.safetensors") for task in range(self.tasks)]
        return {"matrix": [row["losses"].tolist() for row in kept]}
