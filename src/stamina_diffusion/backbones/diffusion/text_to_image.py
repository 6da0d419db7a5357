"""A diffusers text-to-image pipeline that learns: what all families share.

A family says which networks it has, how its prompts become features, and what its denoiser should predict.
"""

from __future__ import annotations

import abc
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ... import seeds
from ...concepts import Concept, check_words
from ...errors import BaseModelError, Notice, SettingsError
from ...method import Answers, Method, Scope
from ...plan import Plan
from ...sites import Site, changes_in, fold, start_key
from ..base import Backbone
from .graphs import Replayed
from .original_names import Place
from .storage import Stored
from .words import Text, Words

DRAWING_GUIDANCE = 3.0
REPLAY_GUIDANCE = 1.0
"""Replayed pictures are the model's own distribution: guidance sharpens them, and more in every round of learning."""


@dataclass(frozen=True)
class Shown:
    """Pictures as latents, and the prompts that each may be shown with."""

    latents: Tensor
    """(N, channels, height, width), scaled, on the backbone's device."""
    prompts: Text
    """All prompts as `tokenize` gives them."""
    choices: tuple[tuple[int, ...], ...]
    """For each picture the rows of `prompts` it may take."""
    scored: Mapping[str, Text] = field(default_factory=dict, kw_only=True)
    """The prompt of each word that the pictures are scored under, as `tokenize` gives it, if the method asks."""


@dataclass(frozen=True)
class Drawn(Shown):
    """Pictures that the network drew itself before it learns on."""

    states: Text
    """Features of the prompts: they never change, as the word to learn is not in them."""
    weight: float


@dataclass(frozen=True)
class Material:
    own: Shown
    prior: Drawn | None
    replay: Drawn | None


@dataclass(frozen=True)
class Part:
    """One half of a batch: noisy latents with what the denoiser should say of them."""

    noisy: Tensor
    timesteps: Tensor
    target: Tensor
    tokens: Text | None
    """The distinct prompts, where their features must be computed anew at every step; else `states`."""
    states: Text | None
    rows: Tensor
    """For each picture the row of `tokens` or `states` that it is shown with, (N,)."""
    weight: float
    scored: Mapping[str, Text] = field(default_factory=dict)
    """As in `Shown`."""


class TextToImage(Words, Stored, Backbone):
    """A diffusers pipeline that learns."""

    name: ClassVar[str]
    """As a person calls the family."""
    denoiser_name: ClassVar[Literal["unet", "transformer"]]
    keys_and_values: ClassVar[tuple[str, str]]
    """How the paths end of the layers that make keys and values of the text."""
    latents_a_place: ClassVar[int] = 1
    """Latent pixels in one place of the denoiser's input: 4 where a family packs them two by two."""

    def __init__(self, pipeline: Any, where: str = "the base") -> None:
        self.check(pipeline, where)
        self.pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)
        for network in pipeline.components.values():
            if isinstance(network, nn.Module):
                network.eval().requires_grad_(False)
        self.pool_where_prompts_end()
        self.learned: list[str] = []
        self.replayed = Replayed(self.denoiser)

    @classmethod
    def check(cls, pipeline: Any, where: str = "the base") -> None:
        """Raise BaseModelError unless the pipeline is one that the family can teach."""
        denoiser, vae = getattr(pipeline, cls.denoiser_name, None), getattr(pipeline, "vae", None)
        if denoiser is None or vae is None:
            raise BaseModelError(f"is a {type(pipeline).__name__}, not {cls.name}", where=where, do="Take another.")
        for name in cls.encoder_names:
            if getattr(pipeline, name, None) is None:
                raise BaseModelError(f"has no {name}", where=where, do="Take a pipeline with all its text encoders.")
        if denoiser.config.in_channels != vae.config.latent_channels * cls.latents_a_place:
            raise BaseModelError(
                f"is made for inpainting or editing: its {cls.denoiser_name} takes more than latents",
                where=where,
                do="Take the text-to-image version of the model.",
            )

        size = denoiser.config.get("sample_size", vae.config.get("sample_size"))
        for what, found, most in (("pictures", size, 1024), ("a schedule", _trained(pipeline), 100_000)):
            if not isinstance(found, int) or not 1 <= found <= most:
                raise BaseModelError(
                    f"announces {what} of size {found!r}", where=where, do="Restore the pipeline's configuration."
                )

    @property
    def denoiser(self) -> Any:
        return getattr(self.pipeline, self.denoiser_name)

    @property
    def device(self) -> torch.device:
        # Diffusers' own `device` looks through every module for hooks, which is some percent of a small network's step.
        return next(self.denoiser.parameters()).device

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {self.denoiser_name: self.denoiser, **dict(zip(self.encoder_names, self.encoders, strict=True))}

    @property
    def resolution(self) -> int:
        """Pixels of a side of the pictures that the base was made for."""
        return self.denoiser.config.sample_size * self.pipeline.vae_scale_factor

    @property
    def schedule_length(self) -> int:
        """How many timesteps the base was trained with."""
        return _trained(self.pipeline)

    @property
    def at_once(self) -> int:
        """Pictures that are drawn or encoded together: 16 of up to 512 × 512 pixels, fewer of larger ones."""
        return max(1, min(16, 16 * 512**2 // self.resolution**2))

    # -- words and sites -----------------------------------------------------------------------------------------------

    def grow(self, concept: Concept, method: Method, seed: int) -> None:
        rows = []
        for number, (tokenizer, table) in enumerate(zip(self.tokenizers, self.tables, strict=True), start=1):
            known = table.weight.data.float()
            if method.word_start == "class":
                if not concept.class_word:
                    raise SettingsError("word_start is 'class' but no class word was given", do="Add --class WORD.")
                rows.append(known[tokenizer(concept.class_word, add_special_tokens=False).input_ids].mean(0))
            else:
                draw = seeds.generator(seed, concept.name, "word", *([number] if number > 1 else []))
                rows.append(known.mean(0).cpu() + known.std(0).cpu() * torch.randn(known.shape[1], generator=draw))
        self.add_word(concept.word, *rows)

    def sites(self, concept: Concept, scope: Scope) -> Mapping[str, Site]:
        return {**self.word_sites(concept.word), **self.weight_sites(scope)}

    def sites_of_word(self, word: str) -> dict[str, Site]:
        """Every site that a concept of this word may have changed, whatever its method."""
        return {**self.word_sites(word), **self.weight_sites("network")}

    def restore(self, word: str, recorded: Mapping[str, Tensor]) -> dict[str, Site]:
        """Put what a concept's file holds, its word's rows as they started and its changes, back into the network.

        The answer is the sites that changed.
        """
        self.add_word(word, *(recorded[start_key(name)][0] for name in self.row_names(word)))
        changes, sites = changes_in(recorded), self.sites_of_word(word)
        fold(sites, changes)
        return {name: sites[name] for name in changes}

    def weight_sites(self, scope: Scope) -> dict[str, Site]:
        """The sites of a scope without any word."""
        if scope == "tokens":
            return {}
        parameters = (
            (path, ".".join(filter(None, (self.denoiser_name, path, name))), module, name)
            for path, module in self.denoiser.named_modules()
            for name, _ in module.named_parameters(recurse=False)
        )
        return {
            full: Site(full, "weight", module, name)
            for path, full, module, name in parameters
            if scope == "network" or (name == "weight" and f".{path}".endswith(self.keys_and_values))
        }

    def place(self, site: str) -> Place:
        """Where a weight's site stands under the names that kohya's tools and hosts call the family's layers by."""
        return Place(site.removeprefix(f"{self.denoiser_name}."))

    # -- learning --------------------------------------------------------------------------------------------------

    def material(self, concept: Concept, method: Method, plan: Plan) -> Material:
        prompts = concept.prompts(plan.prompts, "class word" in method.needs)
        if "old answers" in method.needs:
            what = "a text-to-image model has no classes whose answers could be kept"
            raise SettingsError(what, do="Take method replay, or another.")
        scored = self.word_prompts(concept) if "word scores" in method.needs else {}
        own = replace(self._shown(concept.images, prompts), scored=self.tokenize_each(scored))
        prior = replay = None
        if "prior images" in method.needs and plan.prior_images and concept.class_word:
            prior = self._drawn([f"a photo of a {concept.class_word}"], plan.prior_images, plan.prior_weight)
        earlier = [word for word in self.learned if word != concept.word]
        if "replay" in method.needs and plan.replay_images and earlier:
            asked = [f"a photo of {word}" for word in earlier]
            replay = self._drawn(asked, plan.replay_images, plan.replay_weight, guidance=REPLAY_GUIDANCE)
        return Material(own, prior, replay)

    def _drawn(self, prompts: Sequence[str], count: int, weight: float, guidance: float = DRAWING_GUIDANCE) -> Drawn:
        """`count` pictures of each prompt that the network, as it is now, draws."""
        each = [prompt for prompt in prompts for _ in range(count)]
        drawn = self.draw(each, list(range(len(each))), steps=25, guidance=guidance)
        shown = self._shown(drawn, [[prompt] for prompt in each])
        with torch.no_grad(), self.computing():
            return Drawn(shown.latents, shown.prompts, shown.choices, self.text_states(shown.prompts), weight)

    def _shown(self, images: Sequence[Image.Image], prompts: Sequence[Sequence[str]]) -> Shown:
        rows = {prompt: place for place, prompt in enumerate(dict.fromkeys(p for some in prompts for p in some))}
        return Shown(
            latents=self.encode(images),
            prompts=self.tokenize(list(rows)),
            choices=tuple(tuple(rows[prompt] for prompt in some) for some in prompts),
        )

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image], batch: int | None = None) -> Tensor:
        """RGB pictures → scaled latents (N, channels, height, width) on the device."""
        self.gather()
        vae, parts, batch = self.pipeline.vae, [], batch or self.at_once
        for start in range(0, len(images), batch):
            pixels = self.pipeline.image_processor.preprocess(list(images[start : start + batch]))
            encoded = vae.encode(pixels.to(self.device, vae.dtype))
            latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
            parts.append((latents - (getattr(vae.config, "shift_factor", None) or 0.0)) * vae.config.scaling_factor)
        return torch.cat(parts).float()

    def batch(self, material: Material, plan: Plan, *purpose: int | str) -> list[Part]:
        self.send_away()
        parts = [self._part(material.own, None, plan.batch, 1.0, *purpose, "own")]
        for drawn, name in ((material.prior, "prior"), (material.replay, "replay")):
            if drawn is not None:
                parts.append(self._part(drawn, drawn.states, plan.batch, drawn.weight, *purpose, name))
        return parts

    def blank(self, method: Method, plan: Plan) -> list[Part]:
        """A batch of zeros, of the shapes that a method and a plan make."""
        side = (plan.resolution or self.resolution) // self.pipeline.vae_scale_factor
        zeros = torch.zeros(plan.batch, self.pipeline.vae.config.latent_channels, side, side, device=self.device)
        times, rows = zeros[:, 0, 0, 0], torch.zeros(plan.batch, dtype=torch.long, device=self.device)
        tokens = self.tokenize(["a photo"])
        heard = method.scored_words if method.turn < 1 and len(self.learned) > 1 else 0
        scored = {str(place): tokens for place in range(heard)}
        parts = [Part(zeros, times, zeros, tokens, None, rows, 1.0, scored)]
        more = [("prior images", plan.prior_images), ("replay", plan.replay_images if self.learned else 0)]
        for need, count in more:
            if need in method.needs and count:
                with torch.no_grad(), self.computing():
                    parts.append(Part(zeros, times, zeros, None, self.text_states(tokens), rows, 1.0))
        return parts

    def _part(self, shown: Shown, states: Text | None, size: int, weight: float, *purpose: int | str) -> Part:
        draw = seeds.generator(*purpose)
        count = len(shown.latents)
        # Every picture before any twice; one time from each of `size` equal slices: less variance, same mean.
        order = torch.cat([torch.randperm(count, generator=draw) for _ in range(-(-size // count))])[:size]
        slices = (torch.arange(size) + torch.rand(size, generator=draw)) / size
        latents = shown.latents[self.sent(order)]
        noise = self.sent(torch.randn(latents.shape, generator=draw))
        picks = torch.rand(size, generator=draw).tolist()
        rows = [
            shown.choices[place][int(pick * len(shown.choices[place]))]
            for place, pick in zip(order.tolist(), picks, strict=True)
        ]
        noisy, target, timesteps = self.noised(latents, noise, self.times(slices, latents))
        # Each distinct prompt is encoded once, however many pictures of the batch are shown with it.
        distinct = sorted(set(rows))
        chosen = self.sent(torch.tensor(distinct))
        text = {name: value[chosen] for name, value in (states or shown.prompts).items()}
        places = self.sent(torch.tensor([distinct.index(row) for row in rows]))
        if states is not None:
            return Part(noisy, timesteps, target, None, text, places, weight)
        return Part(noisy, timesteps, target, text, None, places, weight, shown.scored)

    @abc.abstractmethod
    def text_states(self, tokens: Text) -> Text:
        """Prompts as `tokenize` gives them → what the denoiser sees of them; 'states' (P, tokens, width) among it."""

    @abc.abstractmethod
    def times(self, shares: Tensor, latents: Tensor) -> Tensor:
        """The timesteps (N,) below which lie the `shares` (N,), in [0, 1], of all that are trained with."""

    @abc.abstractmethod
    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, what the denoiser should predict, and the timesteps on the device."""

    @abc.abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """What the denoiser says of noisy latents, in their shape."""

    def loss(self, batch: list[Part]) -> Tensor:
        """‖target − denoiser(noisy, timestep, text)‖², its mean over each part, the parts added by their weights."""
        with self.computing():
            texts = [self._text(part) for part in batch]
            text = texts[0]
            if len(texts) > 1:
                text = {name: torch.cat([one[name].to(first.dtype) for one in texts]) for name, first in text.items()}
            predicted = self.predict(
                torch.cat([part.noisy for part in batch]), torch.cat([part.timesteps for part in batch]), text
            )
        parts = predicted.float().split([len(part.noisy) for part in batch])
        errors = [part.weight * F.mse_loss(said, part.target.float()) for said, part in zip(parts, batch, strict=True)]
        return torch.stack(errors).sum()

    def answers(self, batch: list[Part], words: Sequence[str]) -> Answers:
        own, count = batch[0], len(words)
        prompts = [own.scored[word] for word in words]
        with self.computing():
            text = self.text_states({name: torch.cat([one[name] for one in prompts]) for name in prompts[0]})
            said = self.predict(
                own.noisy.repeat(count, 1, 1, 1),
                own.timesteps.repeat(count),
                {name: value.repeat_interleave(len(own.noisy), 0) for name, value in text.items()},
            )
        return Answers(tuple(words), said.float().unflatten(0, (count, -1)), own.target.float())

    def _text(self, part: Part) -> Text:
        found = part.states if part.tokens is None else self.text_states(part.tokens)
        assert found is not None
        # Of a single prompt no copies are made: layers whose change is compact see that it is one.
        return {
            name: value.expand(len(part.rows), *value.shape[1:]) if len(value) == 1 else value[part.rows]
            for name, value in found.items()
        }

    # -- drawing ---------------------------------------------------------------------------------------------------

    def draw(
        self,
        prompts: Sequence[str],
        image_seeds: Sequence[int],
        *,
        steps: int = 25,
        guidance: float = DRAWING_GUIDANCE,
        batch: int | None = None,
        watch: Callable[[int], None] = lambda done: None,
    ) -> list[Image.Image]:
        """Picture k shows prompt k, from `torch.Generator("cpu").manual_seed(image_seeds[k])`.

        Raises UnknownWordError for a `<word>` that was never learned, SettingsError for numbers that mean nothing.
        """
        for prompt in dict.fromkeys(prompts):
            check_words(prompt, self.words)
        _check_numbers(image_seeds, steps, guidance, self.schedule_length)
        self.gather()
        images: list[Image.Image] = []
        batch = batch or self.at_once
        while len(images) < len(prompts):
            some = slice(len(images), len(images) + batch)
            try:
                with self.computing():
                    output: Any = self.pipeline(
                        list(prompts[some]),
                        height=self.resolution,
                        width=self.resolution,
                        num_inference_steps=steps,
                        guidance_scale=guidance,
                        generator=[torch.Generator("cpu").manual_seed(seed) for seed in image_seeds[some]],
                    )
            except torch.OutOfMemoryError:
                if len(prompts[some]) == 1:
                    raise
                # A picture has a seed of its own: it is the same one in whatever company it is drawn.
                batch = len(prompts[some]) // 2
                warnings.warn(f"the memory is full: going on with {batch} pictures at a time", Notice, stacklevel=2)
                continue
            images += output.images
            watch(len(images))
        return images


def _trained(pipeline: Any) -> Any:
    return pipeline.scheduler.config.get("num_train_timesteps", 1000)


def _check_numbers(image_seeds: Sequence[int], steps: int, guidance: float, trained: int) -> None:
    if not 1 <= steps <= trained:
        raise SettingsError(f"steps is {steps}", do=f"The base was trained with {trained} steps: take 1 to {trained}.")
    if not math.isfinite(guidance):
        raise SettingsError(f"guidance is {guidance}", do="Take a number such as 6.")
    if any(not 0 <= seed < 2**63 for seed in image_seeds):
        raise SettingsError("a seed is negative or has more than 63 bits", do="Take one below 2^63.")
