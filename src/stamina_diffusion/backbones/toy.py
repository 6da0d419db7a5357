"""A random network of the same kind as Stable Diffusion, and so small that a step takes a millisecond: for tests.

Words in a table, pictures of 8 × 8 pixels in 16 patches, two layers of cross-attention between them, and a prediction
of the noise. It knows nothing; what holds for any network (see `testing`) can be shown on it at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import seeds
from ..concepts import Concept
from ..errors import NameTakenError, SettingsError
from ..method import Answers, Method, Scope
from ..plan import Plan
from ..sites import Site
from .base import Backbone

VOCABULARY = ("<unknown>", "<end>", "a", "photo", "of", "and", "by", "the", "water", "person", "dog", "cat", "castle")
SIDE = 8
"""Pixels of a side of a picture."""
PATCH = 2
"""Pixels of a side of a patch."""
LENGTH = 8
"""Words of a prompt."""


class CrossAttention(nn.Module):
    """Each patch looks at the words: x + O softmax(Q x (K w)ᵀ / √width) V w."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Linear(width, width)

    def forward(self, patches: Tensor, words: Tensor) -> Tensor:
        scores = self.to_q(patches) @ self.to_k(words).mT / math.sqrt(patches.shape[-1])
        return patches + self.to_out(scores.softmax(-1) @ self.to_v(words))


class Denoiser(nn.Module):
    """The noise in a picture that shows what the words say."""

    def __init__(self, vocabulary: int, width: int = 16) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.time = nn.Linear(2, width)
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.attention = nn.ModuleList(CrossAttention(width) for _ in range(2))
        self.out = nn.ConvTranspose2d(width, 3, PATCH, PATCH)

    def forward(self, words: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """Places of words (N, LENGTH), pictures (N, 3, SIDE, SIDE) and times in [0, 1] (N,) → the pictures' noise."""
        said = self.words(words)
        patches = self.patches(noisy)
        hidden = patches.flatten(2).mT + self.time(_clock(time)).unsqueeze(1)
        for attention in self.attention:
            hidden = torch.tanh(attention(hidden, said))
        return self.out(hidden.mT.reshape(patches.shape))


@dataclass(frozen=True)
class Shown:
    """Pictures (N, 3, SIDE, SIDE) in [−1, 1], and for each the prompts (P, LENGTH) it may be shown with."""

    pictures: Tensor
    prompts: tuple[Tensor, ...]
    scored: Mapping[str, Tensor] = field(default_factory=dict)
    """The prompt (LENGTH,) of each word that the pictures are scored under, if the method asks."""


class Batch(NamedTuple):
    noisy: Tensor
    time: Tensor
    noise: Tensor
    words: Tensor
    weight: float
    scored: Mapping[str, Tensor]


class Toy(Backbone):
    """A `Denoiser` that learns. The same `seed` makes the same network."""

    def __init__(self, seed: int = 0) -> None:
        self.vocabulary = {word: place for place, word in enumerate(VOCABULARY)}
        with seeds.drawing_for(seed, "toy"):
            self.network = Denoiser(len(VOCABULARY))
        self.network.eval().requires_grad_(False)
        self.learned: list[str] = []

    @property
    def device(self) -> torch.device:
        return self.network.words.weight.device

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"denoiser": self.network}

    def grow(self, concept: Concept, method: Method, seed: int) -> None:
        if concept.word in self.vocabulary:
            raise NameTakenError(f"the toy already has the word {concept.word}", do="Take another name.")
        table = self.network.words.weight.data
        if method.word_start == "class":
            if not concept.class_word:
                raise SettingsError("word_start is 'class' but no class word was given", do="Add --class WORD.")
            row = table[self._place(concept.class_word)]
        else:
            noise = torch.randn(table.shape[1], generator=seeds.generator(seed, concept.name, "word"))
            row = table.mean(0) + table.std(0) * noise.to(table)
        self.vocabulary[concept.word] = len(table)
        self.learned.append(concept.word)
        self.network.words.weight = nn.Parameter(torch.cat([table, row[None]]), requires_grad=False)
        self.network.words.num_embeddings += 1

    def sites(self, concept: Concept, scope: Scope) -> Mapping[str, Site]:
        place = self.vocabulary[concept.word]
        word = Site(f"token/{concept.word}", "token", self.network.words, "weight", (place, place + 1))
        weights = {
            f"{path}.{name}": Site(f"{path}.{name}", "weight", module, name)
            for path, module in self.network.named_modules()
            for name, _ in module.named_parameters(recurse=False)
            if module is not self.network.words
            and (scope == "network" or (scope == "cross-attention" and path.endswith((".to_k", ".to_v"))))
        }
        return {word.name: word, **weights}

    def material(self, concept: Concept, method: Method, plan: Plan) -> list[tuple[Shown, float]]:
        if "old answers" in method.needs:
            raise SettingsError("the toy has no classes whose answers could be kept", do="Take another method.")
        prompts = concept.prompts(plan.prompts, "class word" in method.needs)
        scored = self.word_prompts(concept) if "word scores" in method.needs else {}
        own = Shown(
            _pixels(concept.images).to(self.device),
            tuple(self.tokenize(some) for some in prompts),
            dict(zip(scored, self.tokenize([*scored.values()]), strict=True)),
        )
        parts = [(own, 1.0)]
        if "prior images" in method.needs and plan.prior_images and concept.class_word:
            prior = self._drawn([f"a photo of a {concept.class_word}"], plan.prior_images, plan)
            parts.append((prior, plan.prior_weight))
        earlier = [word for word in self.learned if word != concept.word]
        if "replay" in method.needs and plan.replay_images and earlier:
            replayed = [f"a photo of {word}" for word in earlier]
            parts.append((self._drawn(replayed, plan.replay_images, plan), plan.replay_weight))
        return parts

    def _drawn(self, prompts: Sequence[str], count: int, plan: Plan) -> Shown:
        """`count` pictures of each prompt, as the network draws them now."""
        words = self.tokenize([prompt for prompt in prompts for _ in range(count)])
        return Shown(self.draw(words, plan.seed), tuple(words[:, None]))

    def text_features(self, prompts: Sequence[str], word: str | None = None) -> Tensor:
        words = self.tokenize(prompts)
        said = self.network.words(words)
        return said.flatten(0, 1) if word is None else said[words == self.vocabulary[word]]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """The places of each prompt's words, (P, LENGTH)."""
        rows = [[self._place(word) for word in prompt.replace(",", " ").split()][:LENGTH] for prompt in prompts]
        end = self.vocabulary["<end>"]
        return torch.tensor([row + [end] * (LENGTH - len(row)) for row in rows], device=self.device)

    def _place(self, word: str) -> int:
        return self.vocabulary.get(word, self.vocabulary["<unknown>"])

    @torch.no_grad()
    def draw(self, words: Tensor, seed: int) -> Tensor:
        """Pictures (N, 3, SIDE, SIDE) of prompts (N, LENGTH), in one step from almost pure noise."""
        noise = torch.randn(len(words), 3, SIDE, SIDE, generator=seeds.generator(seed, "draw")).to(self.device)
        time = torch.full((len(words),), 0.9, device=self.device)
        signal, scale = _clock(time)[0]
        return torch.tanh((noise - scale * self.network(words, noise, time)) / signal)

    def batch(self, material: list[tuple[Shown, float]], plan: Plan, *purpose: int | str) -> list[Batch]:
        draw = seeds.generator(*purpose)
        return [self._batch(shown, weight, plan.batch, draw) for shown, weight in material]

    def _batch(self, shown: Shown, weight: float, size: int, draw: torch.Generator) -> Batch:
        order = torch.randint(len(shown.pictures), (size,), generator=draw).tolist()
        picks = torch.rand(size, generator=draw).tolist()
        time = torch.rand(size, generator=draw).to(self.device)
        noise = torch.randn(size, 3, SIDE, SIDE, generator=draw).to(self.device)
        words = [
            shown.prompts[place][int(pick * len(shown.prompts[place]))]
            for place, pick in zip(order, picks, strict=True)
        ]
        signal, scale = _clock(time)[:, :, None, None, None].unbind(1)
        return Batch(
            signal * shown.pictures[order] + scale * noise, time, noise, torch.stack(words), weight, shown.scored
        )

    def loss(self, batch: list[Batch]) -> Tensor:
        """‖noise − Denoiser(words, noisy, time)‖², its mean over each part, the parts added by their weights."""
        errors = [
            part.weight * (self.network(part.words, part.noisy, part.time).float() - part.noise).square().mean()
            for part in batch
        ]
        return torch.stack(errors).sum()

    def answers(self, batch: list[Batch], words: Sequence[str]) -> Answers:
        own = batch[0]
        asked = torch.stack([own.scored[word] for word in words]).repeat_interleave(len(own.noisy), 0)
        said = self.network(asked, own.noisy.repeat(len(words), 1, 1, 1), own.time.repeat(len(words)))
        return Answers(tuple(words), said.float().unflatten(0, (len(words), -1)), own.noise)


def _clock(time: Tensor) -> Tensor:
    """How much of a picture and how much of the noise there is at a time (N,), (N, 2): a quarter of a circle."""
    angle = time * math.pi / 2
    return torch.stack([angle.cos(), angle.sin()], -1)


def _pixels(images: Sequence[Image.Image]) -> Tensor:
    """Pictures as (N, 3, SIDE, SIDE) in [−1, 1]."""
    arrays = [np.asarray(image.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32) for image in images]
    return torch.from_numpy(np.stack(arrays)).movedim(-1, 1) / 127.5 - 1
