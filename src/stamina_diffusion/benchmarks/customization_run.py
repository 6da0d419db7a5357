"""A cell of the customization benchmark in memory: a base that learns concept after concept, and what it draws."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import heldout, seeds
from ..backbones.diffusion.text_to_image import Part, TextToImage
from ..concepts import Concept
from ..learn import Learned, learn
from ..method import Memory
from . import judging, peaks, strips
from .concept_streams import Subject
from .eyes import Array, Eyes, eyes_of
from .grid import Cell, Run, task_folder
from .joint import Joint
from .rows import FROZEN, JOINT, SEPARATE

if TYPE_CHECKING:
    from .customization import Customization

CONTEXTS: Mapping[str, tuple[str, ...]] = {
    "person": ("a photo of a {} smiling on a blue background", "a photo of a {} with glasses"),
    "landmark": ("a photo of a {} at night", "a photo of a {} in the snow"),
}
"""Prompts with a context for each class of the world; the learned word takes the place of `a {}`."""
OTHER_CONTEXTS = ("a photo of a {} on a beach", "a painting of a {}")
GENERIC = ("a photo of a person", "a photo of a landmark", "a photo of a man with glasses", "a castle at sunset")
OWN, IN_CONTEXT, ALL, PAIRS, GENERIC_FILE = "own.png", "contexts.png", "final.png", "pairs.png", "generic.png"
TOGETHER, TOGETHER_ON_GPU = 16, 128
"""Pictures that are drawn at once; more were not faster on a CPU, and slower past its cache. A GPU has room."""


class CustomizationRun(Run):
    """A base, what its method remembers, and the questions of the held-out loss."""

    def __init__(self, benchmark: Customization, cell: Cell, where: Path) -> None:
        self.protocol, self.cell, self.where = benchmark.protocol, cell, where
        self.draws = benchmark.draws
        self.kind = benchmark.row(cell.variant).of
        self.resolved = benchmark.resolve(cell)
        self.method, self.plan = self.resolved.method, self.resolved.plan
        self.subjects = benchmark.subjects(cell)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.load_base = benchmark.load_base
        self.backbone = self.load_base().to(self.device)
        self.start = self._weights() if self.kind == SEPARATE else {}
        self.memory: Memory = {}
        self.asked: dict[str, list[Any]] = {}
        self.base_losses: list[float] = []
        self.trained = 0

    @property
    def tasks(self) -> int:
        return 1 if self.kind == JOINT else len(self.subjects)

    # -- concepts and prompts ------------------------------------------------------------------------------------------

    def concept(self, subject: Subject, images: Sequence[Image.Image]) -> Concept:
        return Concept(subject.name, tuple(images), class_word=subject.class_word)

    def called(self, subject: Subject) -> str:
        """What stands in a prompt for a subject: `<face-3>`, or `<face-3> person` where the method learns it so."""
        if self.kind == FROZEN:
            return f"a {subject.class_word}"
        return f"{subject.word} {subject.class_word}" if "class word" in self.method.needs else subject.word

    def contexts(self, subject: Subject) -> tuple[str, ...]:
        return CONTEXTS.get(subject.class_word, OTHER_CONTEXTS)

    # -- learning --------------------------------------------------------------------------------------------------

    def learn(self, task: int, folder: Path) -> dict[str, Any]:
        protocol, resolution = self.protocol, self.backbone.resolution
        if not task:
            self.base_losses = [self._base_loss(subject) for subject in self.subjects]
        now = self.subjects if self.kind == JOINT else [self.subjects[task]]
        concepts = [self.concept(one, one.training(protocol.views, resolution)) for one in now]
        peaks.restart()
        began = time.process_time()
        learned = self._taught(concepts)
        row: dict[str, Any] = {"concepts": [one.name for one in now], "peak_memory_mb": peaks.peak()}
        if learned is not None:
            row |= {
                "seconds": learned.seconds / len(now),
                "cpu_seconds": (time.process_time() - began) / len(now),
                "loss": float(np.mean(learned.losses[-10:])),
                "density": learned.density,
            }
        certificates = [float(value.max()) for name, value in self.memory.items() if name.startswith("certificate/")]
        if certificates:
            row["certificate"] = max(certificates)
        known = self.subjects if self.kind == JOINT else self.subjects[: task + 1]
        last = task + 1 == self.tasks
        asked = known if (task + 1) % protocol.heldout_every == 0 or last else now
        # Of one LoRA each only the concept's own is in the network; of the frozen base nothing ever changes.
        asked = now if self.kind == SEPARATE else asked
        losses = self.base_losses[task : task + 1] if self.kind == FROZEN else [self._loss(one) for one in asked]
        asked = now if self.kind == FROZEN else asked
        row["heldout"] = {one.name: loss for one, loss in zip(asked, losses, strict=True)}
        if self.draws and self.kind != JOINT:
            strips.write(folder / OWN, [self._draw(self._own_prompts(now))])
        if self.draws and self.kind == SEPARATE:
            strips.write(folder / IN_CONTEXT, [self._draw(self._context_prompts(now))])
        if not task:
            row |= {"base_heldout": self.base_losses, "trained": self._trained(concepts[0])}
            self.trained = row["trained"]
        return row

    def _taught(self, concepts: Sequence[Concept]) -> Learned | None:
        if self.kind == FROZEN:
            return None
        if self.kind == JOINT:
            plan = dataclasses.replace(self.plan, steps=self.plan.steps * len(concepts))
            images = tuple(image for concept in concepts for image in concept.images)
            whole = Concept("joint", images)
            checkpoint = self.where / "unfinished.safetensors"
            learned = learn(Joint(self.backbone, concepts), self.method, whole, {}, plan, checkpoint=checkpoint)
            checkpoint.unlink(missing_ok=True)
            return learned
        if self.kind == SEPARATE:
            self._put_back(self.start)
            return learn(self.backbone, self.method, concepts[0], {}, self.plan)
        learned = learn(self.backbone, self.method, concepts[0], self.memory, self.plan)
        self.memory = learned.memory
        return learned

    def _trained(self, concept: Concept) -> int:
        """How many parameters are trained for a concept."""
        if self.kind == FROZEN:
            return 0
        with seeds.drawing_for(self.plan.seed, "count"):
            sites = self.backbone.sites(concept, self.method.scope)
            deltas = [self.method.delta(site, {}) for site in sites.values()]
        return sum(parameter.numel() for delta in deltas if delta is not None for parameter in delta.parameters())

    # -- held-out loss -------------------------------------------------------------------------------------------------

    def _base_loss(self, subject: Subject) -> float:
        """What the model as it is says to the questions with the class word; they are kept for later."""
        protocol = self.protocol
        pictures = subject.test(protocol.heldout_views, self.backbone.resolution, protocol.views)
        concept = self.concept(subject, pictures)
        asked = heldout.questions(self.backbone, self.method, concept, self.plan, draws=protocol.heldout_draws)
        self.asked[subject.name] = asked
        return self._answered(asked, f"a photo of a {subject.class_word}")

    def _loss(self, subject: Subject) -> float:
        return self._answered(self.asked[subject.name], f"a photo of {self.called(subject)}")

    def _answered(self, asked: Sequence[list[Part]], prompt: str) -> float:
        tokens = self.backbone.tokenize([prompt])
        said = [
            [dataclasses.replace(part, tokens=tokens, rows=torch.zeros_like(part.rows)) for part in batch]
            for batch in asked
        ]
        return heldout.loss_of(self.backbone, said)

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _own_prompts(self, some: Sequence[Subject]) -> list[tuple[str, int]]:
        """Prompts of each with their seeds, which are the same for every method and at every time."""
        return [
            (f"a photo of {self.called(one)}", seeds.derive(self.cell.seed, one.name, "sample", place))
            for one in some
            for place in range(self.protocol.samples)
        ]

    def _context_prompts(self, some: Sequence[Subject]) -> list[tuple[str, int]]:
        return [
            (context.replace("a {}", self.called(one)), seeds.derive(self.cell.seed, one.name, context, place))
            for one in some
            for context in self.contexts(one)
            for place in range(self.protocol.context_samples)
        ]

    def _draw(self, asked: Sequence[tuple[str, int]], backbone: TextToImage | None = None) -> list[Image.Image]:
        return (backbone or self.backbone).draw(
            [prompt for prompt, _ in asked],
            [seed for _, seed in asked],
            steps=self.protocol.sampler_steps,
            guidance=self.protocol.guidance,
            batch=TOGETHER if self.device.type == "cpu" else TOGETHER_ON_GPU,
        )

    # -- state -------------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        return {name: site.value.clone() for name, site in self.backbone.weight_sites(self.method.scope).items()}

    def _put_back(self, weights: Mapping[str, Tensor]) -> None:
        for name, site in self.backbone.weight_sites(self.method.scope).items():
            site.value.copy_(weights[name])

    def state(self) -> Mapping[str, Tensor]:
        words = {
            f"word/{name}": site.value
            for word in self.backbone.learned
            for name, site in self.backbone.word_sites(word).items()
        }
        weights = {} if self.kind in (SEPARATE, FROZEN) else self._weights()
        return {
            **{f"weight/{name}": value for name, value in weights.items()},
            **words,
            **{f"memory/{name}": value for name, value in self.memory.items()},
        }

    def restore(self, state: Mapping[str, Tensor], rows: Sequence[Mapping[str, Any]]) -> None:
        for subject in self.subjects:
            self._base_loss(subject)  # for its questions, which do not depend on the model
        self.base_losses, self.trained = list(rows[0]["base_heldout"]), rows[0]["trained"]
        parts: dict[str, dict[str, Tensor]] = {"weight": {}, "word": {}, "memory": {}}
        for name, value in state.items():
            kind, _, name = name.partition("/")
            parts[kind][name] = value
        for row in rows if self.kind != FROZEN else ():
            for name in row["concepts"]:
                word = f"<{name}>"
                self.backbone.add_word(word, *(parts["word"][site][0] for site in self.backbone.row_names(word)))
        if parts["weight"]:
            self._put_back(parts["weight"])
        self.memory = parts["memory"]

    # -- the end -----------------------------------------------------------------------------------------------------

    def finish(self, folder: Path, where: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        names = [subject.name for subject in self.subjects]
        losses = np.array([[row["heldout"].get(name, np.nan) for name in names] for row in rows])
        gains = 1 - losses / np.array(self.base_losses)
        if self.kind in (SEPARATE, FROZEN):
            losses, gains = np.diagonal(losses)[None], np.diagonal(gains)[None]
        sequential = self.kind not in (JOINT, SEPARATE, FROZEN)
        measured = judging.of_losses(gains, sequential)
        if self.draws:
            eyes = eyes_of(self.protocol.encoder, self.backbone.pipeline)
            drawn = judging.of_pictures(self._seen(folder, where, eyes), sequential)
            measured = {**measured, **drawn, "each": {**measured["each"], **drawn["each"]}, "encoder": eyes.name}
        network = sum(parameter.numel() for parameter in self.backbone.denoiser.parameters())
        words = sum(
            site.value.numel() for word in self.backbone.learned for site in self.backbone.word_sites(word).values()
        )
        kept = words + sum(value.numel() for value in self.memory.values())
        if self.kind == SEPARATE:
            kept = self.trained * len(names)
        return {
            **measured,
            "concepts": names,
            "classes": [subject.class_word for subject in self.subjects],
            "heldout_loss": judging.plain(float(losses[-1].mean())),
            "heldout_each": judging.plain(losses[-1]),
            "seconds_per_concept": float(np.mean([row.get("seconds", 0.0) for row in rows])),
            "cpu_seconds_per_concept": float(np.mean([row.get("cpu_seconds", 0.0) for row in rows])),
            "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
            "trained_percent": judging.plain(100 * self.trained / network),
            "stored_percent": judging.plain(100 * (network + kept) / network),
            "steps": 0 if self.kind == FROZEN else self.plan.steps,
        }

    def _seen(self, folder: Path, where: Path, eyes: Eyes) -> judging.Seen:
        """Draw what only the end can tell, keep it, and look at everything that was drawn."""
        count, one_by_one = len(self.subjects), self.kind != JOINT
        own = [strips.read(task_folder(where, task) / OWN)[0] for task in range(count)] if one_by_one else None
        changes_later = self.kind not in (SEPARATE, FROZEN)
        final = own if own and not changes_later else _cut(self._draw(self._own_prompts(self.subjects)), count)
        strips.write(folder / ALL, final)
        if self.kind == SEPARATE and self.protocol.context_samples:
            contexts = [strips.read(task_folder(where, task) / IN_CONTEXT)[0] for task in range(count)]
        else:
            contexts = _cut(self._draw(self._context_prompts(self.subjects)), count)
        strips.write(folder / IN_CONTEXT, contexts)
        looked = [eyes.look(some) for some in final]
        in_context = [np.concatenate([x, eyes.look(y)]) if y else x for x, y in zip(looked, contexts, strict=True)]
        return judging.Seen(
            photos=[eyes.look(self._photos(subject)) for subject in self.subjects],
            then=[eyes.look(some) for some in own] if own else None,
            final=looked,
            shared=[eyes.shared(features) for features in in_context],
            texts=[self._texts(eyes, subject) for subject in self.subjects],
            generic=self._generic(folder, eyes),
            pairs=[(pair, eyes.look(some)) for pair, some in (self._pairs(folder) if changes_later else [])],
        )

    def _photos(self, subject: Subject) -> tuple[Image.Image, ...]:
        protocol, resolution = self.protocol, self.backbone.resolution
        if protocol.reference == "training":
            return subject.training(protocol.views, resolution)
        return subject.test(protocol.test_views, resolution, protocol.views)

    def _texts(self, eyes: Eyes, subject: Subject) -> Array:
        """For each final picture of a subject, then for each in a context, what its prompt says without its word."""
        plain = [f"a photo of a {subject.class_word}"] * self.protocol.samples
        contexts = [
            context.replace("{}", subject.class_word)
            for context in self.contexts(subject)
            for _ in range(self.protocol.context_samples)
        ]
        return eyes.read([*plain, *contexts])

    def _pairs(self, folder: Path) -> list[tuple[tuple[int, int], list[Image.Image]]]:
        """Pictures of prompts with two concepts, drawn at random."""
        count, samples = len(self.subjects), self.protocol.samples
        draw = np.random.default_rng(seeds.derive(self.cell.seed, "pairs"))
        chosen = [tuple(draw.choice(count, 2, replace=False).tolist()) for _ in range(self.protocol.pairs)]
        if not chosen:
            return []
        asked = [
            (f"a photo of {self.called(self.subjects[a])} and {self.called(self.subjects[b])}",
             seeds.derive(self.cell.seed, "pair", a, b, place))
            for a, b in chosen
            for place in range(samples)
        ]  # fmt: skip
        drawn = _cut(self._draw(asked), len(chosen))
        strips.write(folder / PAIRS, drawn)
        return list(zip(chosen, drawn, strict=True))

    def _generic(self, folder: Path, eyes: Eyes) -> tuple[Array, Array]:
        """Features of what the base, and the model as it is, draw for prompts without a learned word."""
        count = self.protocol.generic_samples
        if not count:
            return np.zeros((0, 1)), np.zeros((0, 1))
        asked = [(prompt, place) for prompt in GENERIC for place in range(count)]
        now = self._draw(asked)
        strips.write(folder / GENERIC_FILE, _cut(now, len(GENERIC)))
        return eyes.look(self._base_pictures(asked)), eyes.look(now)

    def _base_pictures(self, asked: Sequence[tuple[str, int]]) -> list[Image.Image]:
        """What the base draws, once for all cells of a folder of results."""
        # The cell's folder is <results>/cells/<row>/<stream>.
        path = self.where.parents[2] / "base" / GENERIC_FILE
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            base = self.load_base().to(self.device)
            strips.write(path, _cut(self._draw(asked, base), len(GENERIC)))
        return [picture for strip in strips.read(path) for picture in strip]


def _cut(pictures: Sequence[Image.Image], rows: int) -> list[list[Image.Image]]:
    """As many in each of `rows` rows."""
    across = len(pictures) // rows
    return [list(pictures[row * across : (row + 1) * across]) for row in range(rows)]
