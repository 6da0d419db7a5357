"""A classifier that learns one task of new classes after another: its head grows by a row for each class.

The loss is the local softmax of CODA-Prompt's code (arXiv 2211.13218), which C-LoRA and STAMINA use too: the logits of
past classes are −∞ while a task is learned, so that nothing moves their rows. No picture of a past task is kept.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .. import seeds
from ..concepts import Concept, Task
from ..errors import NameTakenError, SettingsError
from ..heads import Statistics, statistics
from ..method import Method, Scope
from ..plan import Plan
from ..sites import Site, changes_in, fold, start_key
from .base import Backbone
from .seeing import Sight

Matrix = Literal["query", "key", "value"]
MATRICES: tuple[Matrix, ...] = ("query", "key", "value")
Softmax = Literal["local", "seen"]


@dataclass(frozen=True)
class Shown:
    """A task's pictures and the head's row of each; `seen` holds them ready where training sees them always alike."""

    pictures: Sequence[Image.Image]
    rows: Tensor
    """(N,)"""
    own: tuple[int, int]
    """First row of the task and the row after its last."""
    seen: Tensor | None
    answers: Tensor | None = None
    """(N, past classes): the logits before the task was learned, for a method that asks for the old answers."""
    weight: float = 1.0
    """Of the old answers in the loss."""


class Batch(NamedTuple):
    pixels: Tensor
    rows: Tensor
    own: tuple[int, int]
    plain: Tensor | None = None
    """The same pictures as they are judged, where training sees them otherwise: `answers` are to these."""
    answers: Tensor | None = None
    weight: float = 1.0


class Classifier(Backbone):
    """Pictures → features → one logit for each class learned so far.

    `network(pixels)` gives the logits first; `head` is a linear layer of as many rows as there are classes.
    """

    def __init__(
        self,
        network: nn.Module,
        sight: Sight,
        classes: Sequence[str] = (),
        *,
        matrices: Sequence[Matrix] = MATRICES,
        softmax: Softmax = "local",
    ) -> None:
        """`matrices` are the attention's weights that methods may change; `softmax` is over the task's own classes
        or over all that were seen, which lets a new task push the old ones down (CODA-Prompt's "FT")."""
        unknown = sorted({*matrices} - {*MATRICES})
        if unknown or not matrices or softmax not in ("local", "seen"):
            found = f"matrices {', '.join(matrices) or 'none'}; softmax {softmax!r}"
            raise SettingsError(f"a classifier cannot take {found}", do="Choose of query, key, value; local or seen.")
        self.network, self.sight, self.matrices, self.softmax = network, sight, tuple(matrices), softmax
        self.learned = list(classes)
        self._own: dict[str, tuple[int, int]] = {}
        if self.head.out_features != len(self.learned):
            found = f"the head has {self.head.out_features} rows for {len(self.learned)} classes"
            raise SettingsError(found, do="Load the network with the names of its classes.")
        network.eval().requires_grad_(False)

    @property
    @abc.abstractmethod
    def head(self) -> nn.Linear:
        """The last layer."""

    @abc.abstractmethod
    def replace_head(self, head: nn.Linear) -> None:
        """Put a larger head in its place; the network's own description of itself follows."""

    @abc.abstractmethod
    def attention(self) -> Mapping[nn.Module, Matrix]:
        """Every linear layer of attention that may change, and what it makes."""

    @abc.abstractmethod
    def encoded(self, pixels: Tensor) -> Tensor:
        """What the head sees of pictures (N, 3, side, side): (N, width)."""

    @abc.abstractmethod
    def logits(self, pixels: Tensor) -> Tensor:
        """One logit for each class, (N, classes)."""

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"classifier": self.network}

    def rows_of(self, task: Concept) -> tuple[int, int]:
        """The first row of a task that was grown here, and the row after its last. Raises KeyError for another."""
        return self._own[task.name]

    def grow(self, concept: Concept, method: Method, seed: int) -> None:
        """Rows for the classes of a `Task`, as PyTorch starts a linear layer; a classifier has no class word."""
        task = as_task(concept)
        width = self.head.in_features
        draw = seeds.generator(seed, task.name, "head")
        # nn.Linear's own start: uniform in ±1/√width, weights and biases alike.
        noise = (2 * torch.rand(len(task.classes), width + 1, generator=draw) - 1) / width**0.5
        self.add_rows(task, noise[:, :-1], noise[:, -1])

    def add_rows(self, task: Task, weight: Tensor, bias: Tensor) -> None:
        """Add the rows (K, width) and (K,) of a task's classes; the other rows stay as they are.

        Raises NameTakenError when it has one of the classes, or another task of that name, already.
        """
        taken = [name for name in task.classes if name in self.learned]
        if taken or task.name in self._own:
            what = f"the class {taken[0]!r}" if taken else f"a task {task.name!r}"
            raise NameTakenError(f"the classifier already has {what}", do="Take another name.")
        old, count = self.head, self.head.out_features
        rows = torch.cat([old.weight.data, weight.to(old.weight)])
        head = linear(rows, torch.cat([old.bias.data, bias.to(old.weight)]))
        self.replace_head(head)
        self._own[task.name] = (count, head.out_features)
        self.learned.extend(task.classes)
        self.describe_classes()

    @torch.no_grad()
    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Put other rows (classes, width) and (classes,) in the place of all that were learned: a head made of class
        statistics is a linear layer too. Raises SettingsError for a head of other classes."""
        if weight.shape != self.head.weight.shape or bias.shape != self.head.bias.shape:
            found = f"a head of {list(weight.shape)} for one of {list(self.head.weight.shape)}"
            raise SettingsError(f"the head does not match: {found}", do="Give a row for each of the classes.")
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)

    def sites_of_word(self, word: str) -> dict[str, Site]:
        """Every site that a task, by its name or as '<name>', may have changed, whatever its method."""
        return dict(self._sites_of(word.strip("<>"), "network"))

    def restore(self, task: Task, recorded: Mapping[str, Tensor]) -> dict[str, Site]:
        """Put what a task's file holds, its rows as they started and its changes, back into the network.

        The answer is the sites that changed. Of `task` only its name and classes count, not its pictures.
        """
        names = [f"{table}/{task.name}" for table in ("head", "head_bias")]
        self.add_rows(task, *(recorded[start_key(name)] for name in names))
        changes, sites = changes_in(recorded), self.sites_of_word(task.name)
        fold(sites, changes)
        return {name: sites[name] for name in changes}

    def to(self, device: torch.device) -> Self:
        """Move the network; the answer is the same classifier."""
        self.network.to(device)
        return self

    def describe_classes(self) -> None:
        """Write the names of the classes into the network's own description, where it has one."""

    def sites(self, concept: Concept, scope: Scope) -> Mapping[str, Site]:
        return self._sites_of(concept.name, scope)

    def _sites_of(self, task: str, scope: Scope) -> Mapping[str, Site]:
        own, head = self._own[task], self.head
        made = (
            Site(f"head/{task}", "head", head, "weight", own),
            Site(f"head_bias/{task}", "head", head, "bias", own),
        )
        wanted = {module for module, matrix in self.attention().items() if matrix in self.matrices}
        weights = {
            f"{path}.{name}": Site(f"{path}.{name}", "weight", module, name)
            for path, module in self.network.named_modules()
            for name, _ in module.named_parameters(recurse=False)
            if module is not head
            and (scope == "network" or (scope == "cross-attention" and module in wanted and name == "weight"))
        }
        return {**{site.name: site for site in made}, **weights}

    def material(self, concept: Concept, method: Method, plan: Plan) -> Shown:
        """The task's pictures, and what is answered to them now, if the method asks for the old answers.

        A need of class words or prior images is met by nothing: there are no prompts.

        Raises SettingsError for a method that needs what a classifier cannot give: replay, word scores, text features.
        """
        task, own = as_task(concept), self.rows_of(concept)
        if "replay" in method.needs:
            raise SettingsError("a classifier cannot draw its earlier classes again", do="Take another method.")
        if "word scores" in method.needs:
            raise SettingsError("a classifier denoises nothing to score words by", do="Take another method.")
        if "text features" in method.needs:
            self.text_features([])  # refuses now what it would refuse after the last step
        rows = torch.tensor(task.labels, device=self.device) + own[0]
        seen = self.sight.tested(task.images).to(self.device) if self.sight.still else None
        asked = "old answers" in method.needs and own[0] > 0
        answers = self.predict(task.images)[:, : own[0]].to(self.device) if asked else None
        return Shown(task.images, rows, own, seen, answers, plan.replay_weight)

    def batch(self, material: Shown, plan: Plan, *purpose: int | str) -> Batch:
        """The pictures of one step: each once before any twice. `purpose` is (seed, task, step, what for ...)."""
        place = next((part for part in purpose[2:] if isinstance(part, int)), 0)
        count, first = len(material.rows), place * plan.batch
        epochs = range(first // count, (first + plan.batch - 1) // count + 1)
        orders = [_order(count, *purpose[:2], epoch, *purpose[3:]) for epoch in epochs]
        begin = first - epochs[0] * count
        chosen = [row for order in orders for row in order][begin : begin + plan.batch]
        return self._show(material, chosen, seeds.generator(*purpose, "view"))

    def _show(self, material: Shown, chosen: list[int], draw: torch.Generator) -> Batch:
        if material.seen is not None:
            pixels = material.seen[chosen]
        else:
            pixels = self.sight.trained([material.pictures[place] for place in chosen], draw).to(self.device)
        made = Batch(pixels, material.rows[chosen], material.own)
        if material.answers is None:
            return made
        pictures = [material.pictures[place] for place in chosen]
        plain = None if material.seen is not None else self.sight.tested(pictures).to(self.device)
        return made._replace(plain=plain, answers=material.answers[chosen], weight=material.weight)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over the task's own rows (local), or over all rows so far (seen); the old answers beside it.

        Cutting the past logits off is what −∞ does to a softmax, and their rows get no gradient at all.
        """
        past, end = batch.own
        first = past if self.softmax == "local" else 0
        logits = self.logits(batch.pixels).float()
        loss = F.cross_entropy(logits[:, first:end], batch.rows - first)
        if batch.answers is None:
            return loss
        again = logits if batch.plain is None else self.logits(batch.plain).float()
        return loss + batch.weight * distilled(batch.answers, again[:, :past])

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image], batch: int = 128) -> Tensor:
        """What the head sees of pictures, (N, width), float32, on the CPU."""
        return self._through(self.encoded, pictures, batch)

    @torch.no_grad()
    def predict(self, pictures: Sequence[Image.Image], batch: int = 128) -> Tensor:
        """The logits of every class learned so far, (N, classes), float32, on the CPU; each picture for itself."""
        return self._through(self.logits, pictures, batch)

    def _through(self, part, pictures: Sequence[Image.Image], batch: int) -> Tensor:
        cuts = range(0, len(pictures), batch)
        groups = ([pictures[place] for place in range(cut, min(cut + batch, len(pictures)))] for cut in cuts)
        answers = [part(self.sight.tested(group).to(self.device)).float().cpu() for group in groups]
        return torch.cat(answers) if answers else torch.empty(0, 0)

    def statistics(self, task: Task) -> Statistics:
        """The mean and covariance of the features of each class of a task, as the network computes them now."""
        return statistics(self.features(task.images), torch.tensor(task.labels))


def distilled(old: Tensor, new: Tensor, temperature: float = 2.0) -> Tensor:
    """T² KL( softmax(old/T) ‖ softmax(new/T) ) of logits (N, classes), the mean over N (arXiv 1503.02531, T = 2)."""
    before, now = (F.log_softmax(logits / temperature, 1) for logits in (old, new))
    return temperature**2 * F.kl_div(now, before, reduction="batchmean", log_target=True)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A frozen linear layer of these rows, (K, width) and (K,); K may be 0."""
    # Made with one row: of none, torch warns that there is nothing to initialise.
    layer = nn.Linear(weight.shape[1], 1, device="meta")
    layer.out_features = len(weight)
    layer.weight, layer.bias = (nn.Parameter(rows, requires_grad=False) for rows in (weight, bias))
    return layer.eval()


def empty_head(width: int) -> nn.Linear:
    """A head without any class yet."""
    return linear(torch.empty(0, width), torch.empty(0))


def as_task(concept: Concept) -> Task:
    """The concept itself, if it is a task of classes. Raises SettingsError."""
    if not isinstance(concept, Task) or not concept.classes:
        raise SettingsError(f"a classifier learns classes, and {concept.name!r} has none", do="Give it a Task.")
    return concept


def _order(count: int, *purpose: int | str) -> list[int]:
    """The order in which an epoch shows `count` pictures."""
    return torch.randperm(count, generator=seeds.generator(*purpose, "order")).tolist()
