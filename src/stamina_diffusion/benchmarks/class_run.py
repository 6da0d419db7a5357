"""One cell of the classification benchmark: learn a task, name the test pictures of all classes so far, and go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import capacity, files
from ..backbones.classifier import Classifier
from ..class_streams import Chosen, Lesson
from ..concepts import Task
from ..heads import HEADS, Head, Statistics, statistics
from ..learn import learn
from ..method import Method
from ..metrics.classification import UNSEEN, Measure, Predictions, Undefined, measures
from ..plan import Plan
from .grid import Run, task_folder

MEASURES = (
    *("a_macro", "a_micro", "average_incremental", "average_incremental_micro", "task_incremental", "task_inferred"),
    *("f_coda", "f_chaudhry", "f_pilot", "f_first_last", "bwt", "bwt_all_pairs", "fwt"),
)
AT_ONCE = Undefined("all classes are learned at once, and nothing comes before or after")
PREDICTIONS = "predictions.safetensors"
"""In each task's folder, for each head: what was said of each test picture so far, among all classes and among its
task's own."""
FOOTPRINT = ("density", "norm", "overlap")
"""What is said of each task's change of the weights, the head left out: the share of their entries that moved, and what
`capacity.Reach` has."""


class ClassRun(Run):
    """A cell in memory."""

    def __init__(
        self,
        backbone: Classifier,
        lessons: Sequence[Lesson],
        method: Method,
        plan: Plan,
        *,
        epochs: int,
        joint: bool,
        heads: Sequence[str],
        named: Mapping[str, Any],
        where: Path,
        batch: int = 128,
    ) -> None:
        self.backbone, self.method, self.plan, self.epochs, self.where = backbone, method, plan, epochs, where
        self.joint, self.heads, self.named, self.batch = joint, tuple(heads), dict(named), batch
        self.parts = list(lessons)
        """The stream's tasks, which the measures are of; joint training learns them as one."""
        self.lessons = [merged(lessons)] if joint else list(lessons)
        self.memory: dict[str, Tensor] = {}
        self.known: Statistics | None = None
        self.plain = sum(parameter.numel() for parameter in backbone.network.parameters())
        self.start = self._weights()
        """The pre-trained weights, on the CPU."""

    @property
    def tasks(self) -> int:
        return len(self.lessons)

    def learn(self, task: int, folder: Path) -> dict[str, Any]:
        taught = self.lessons[task].taught
        checkpoint = self.where / "unfinished.safetensors"
        before = self._weights()
        learned = learn(self.backbone, self.method, taught, self.memory, self._plan(taught), checkpoint=checkpoint)
        self.memory = dict(learned.memory)
        own = statistics(self.backbone.features(taught.images, self.batch), torch.tensor(taught.labels))
        self.known = own if self.known is None else self.known.joined(own)
        said = self._named(task)
        files.write_tensors(folder / PREDICTIONS, said)
        checkpoint.unlink(missing_ok=True)
        head = self.backbone.head
        grown = head.weight.numel() + head.bias.numel()
        total = sum(parameter.numel() for parameter in self.backbone.network.parameters())
        truth = self._truth(task)
        return {
            "classes": list(taught.classes),
            "steps": self._plan(taught).steps,
            "loss": learned.losses[-1] if learned.losses else None,
            "accuracy": {head: float((said[f"said/{head}"] == truth).float().mean()) for head in self.heads},
            "density": learned.density,
            **dataclasses.asdict(capacity.reach(learned.changes, before, self.start)),
            "trained": learned.trained,
            "trained_percent": 100 * learned.trained / self.plain,
            # After the fold the network is the plain one and a row more for each class.
            "added": total - self.plain - grown,
            "seconds": learned.seconds,
        }

    def _weights(self) -> dict[str, Tensor]:
        """All but the head's, a copy on the CPU."""
        head = set(self.backbone.head.parameters())
        named = self.backbone.network.named_parameters()
        return {name: value.detach().cpu().clone() for name, value in named if value not in head}

    def _plan(self, taught: Task) -> Plan:
        """So many steps that each picture is seen once an epoch; what is left of a last batch begins the next one."""
        steps = max(1, self.epochs * len(taught.labels) // self.plan.batch)
        return dataclasses.replace(self.plan, steps=steps, epochs=min(self.epochs, steps))

    def _truth(self, task: int) -> Tensor:
        """The head's row of each test picture up to a task."""
        rows, first = [], 0
        for lesson in self.lessons[: task + 1]:
            rows += [first + label for label in lesson.asked.labels]
            first += len(lesson.asked.classes)
        return torch.tensor(rows)

    def _named(self, task: int) -> dict[str, Tensor]:
        """What every head says of each test picture up to a task, as head rows."""
        assert self.known is not None
        seen = self.lessons[: task + 1]
        features = torch.cat([self.backbone.features(lesson.asked.images, self.batch) for lesson in seen])
        trained = Head(self.backbone.head.weight.detach().float().cpu(), self.backbone.head.bias.detach().float().cpu())
        said = {}
        for name in self.heads:
            logits = HEADS[name](trained, self.known, self.plan.seed).logits(features)
            said[f"said/{name}"] = logits.argmax(1).int()
            inside = torch.empty(len(logits), dtype=torch.int32)
            for (first, end), pictures in self._places(len(logits)):
                inside[pictures] = logits[pictures, first:end].argmax(1).int() + first
            said[f"within/{name}"] = inside
        return said

    def _bounds(self) -> list[tuple[int, int]]:
        """The head's rows of each of the stream's tasks."""
        ends = np.cumsum([len(lesson.asked.classes) for lesson in self.parts]).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _places(self, pictures: int):
        """Of each of the stream's tasks that are among so many test pictures: its rows, and its pictures' places."""
        ends = np.cumsum([len(lesson.asked.labels) for lesson in self.parts]).tolist()
        cuts = zip([0, *ends[:-1]], ends, strict=True)
        return [(rows, slice(*cut)) for rows, cut in zip(self._bounds(), cuts, strict=True) if cut[1] <= pictures]

    def state(self) -> Mapping[str, Tensor]:
        known = {} if self.known is None else self.known.tensors()
        return {
            **{f"network/{name}": value for name, value in self.backbone.network.state_dict().items()},
            **{f"memory/{name}": value for name, value in self.memory.items()},
            **{f"known/{name}": value for name, value in known.items()},
        }

    def restore(self, state: Mapping[str, Tensor], rows: Sequence[Mapping[str, Any]]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "memory": {}, "known": {}}
        for name, value in state.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        width = self.backbone.head.in_features
        for lesson in self.lessons[: len(rows)]:
            count = len(lesson.taught.classes)
            self.backbone.add_rows(lesson.taught, torch.zeros(count, width), torch.zeros(count))
        self.backbone.network.load_state_dict(parts["network"])
        self.memory, self.known = parts["memory"], Statistics(**parts["known"])

    def finish(self, folder: Path, where: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        said = [files.read_tensors(task_folder(where, task) / PREDICTIONS) for task in range(self.tasks)]
        results = [self._result(head, said, rows) for head in self.heads]
        return {"results": results, "seconds": sum(row["seconds"] for row in rows)}

    def _result(
        self, head: str, said: Sequence[Mapping[str, Tensor]], rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        found, matrix = self._joint(head, said[-1]) if self.joint else self._measured(head, said)
        known = {name: found[name] for name in MEASURES}
        return {
            **self.named,
            "head": head,
            **{name: None if isinstance(value, Undefined) else value for name, value in known.items()},
            "undefined": {name: value.reason for name, value in known.items() if isinstance(value, Undefined)},
            "matrix": matrix,
            "by_class": self._by_class(said[-1][f"said/{head}"]),
            "footprint": {key: [row.get(key) for row in rows] for key in FOOTPRINT},
            "trained_percent": float(np.mean([row["trained_percent"] for row in rows])),
            "added_parameters": rows[-1]["added"],
            "seconds": sum(row["seconds"] for row in rows),
        }

    def _by_class(self, said: Tensor) -> dict[str, float]:
        """The share of each class's test pictures that is right at the end."""
        truth = self._truth(self.tasks - 1)
        names = [name for lesson in self.lessons for name in lesson.asked.classes]
        return {name: float((said[truth == row] == row).float().mean()) for row, name in enumerate(names)}

    def _joint(self, head: str, said: Mapping[str, Tensor]) -> tuple[dict[str, Measure], None]:
        """One training has no before and after: its accuracy, over tasks and over pictures, is all that there is."""
        truth = self._truth(0).numpy()
        right, within = (said[f"{kind}/{head}"].numpy() == truth for kind in ("said", "within"))
        places = self._places(len(truth))
        rows = said[f"said/{head}"].numpy()
        owned = [(first <= rows[pictures]) & (rows[pictures] < end) for (first, end), pictures in places]
        return {
            **dict.fromkeys(MEASURES, AT_ONCE),
            "a_macro": float(np.mean([right[pictures].mean() for _, pictures in places])),
            "a_micro": float(right.mean()),
            "task_incremental": float(np.mean([within[pictures].mean() for _, pictures in places])),
            "task_inferred": float(np.concatenate(owned).mean()),
        }, None

    def _measured(
        self, head: str, said: Sequence[Mapping[str, Tensor]]
    ) -> tuple[dict[str, Measure], list[list[float]]]:
        """The measures, and what each task's accuracy was after each: the matrix's lower half, line by line."""
        truth = self._truth(self.tasks - 1).numpy()
        grid = {kind: np.full((self.tasks, len(truth)), UNSEEN, dtype=np.int64) for kind in ("said", "within")}
        for task, answers in enumerate(said):
            for kind, whole in grid.items():
                found = answers[f"{kind}/{head}"].numpy()
                whole[task, : len(found)] = found
        owner = np.concatenate([np.full(end - first, task) for task, (first, end) in enumerate(self._bounds())])
        predictions = Predictions(owner, truth, grid["said"], grid["within"])
        lines = [row[: task + 1] for task, row in enumerate(predictions.matrix().tolist())]
        return measures(predictions), lines


def merged(lessons: Sequence[Lesson]) -> Lesson:
    """All tasks as one, its classes in their order."""

    def together(tasks: Sequence[Task]) -> Task:
        images = [task.images[place] for task in tasks for place in range(len(task.images))]
        labels, first = [], 0
        for task in tasks:
            labels += [first + label for label in task.labels]
            first += len(task.classes)
        classes = tuple(name for task in tasks for name in task.classes)
        return Task("all", Chosen(images, range(len(images))), classes=classes, labels=tuple(labels))

    return Lesson((together([lesson.taught for lesson in lessons]), together([lesson.asked for lesson in lessons])))
