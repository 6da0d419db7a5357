"""Stable Diffusion 1.x and 2.x: keys and values of the U-Net's cross-attention, words of its CLIP text encoder.

The embedded base is one of them; there is no special case for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image
from tokenizers import AddedToken
from torch import Tensor, nn

from ... import seeds
from ...concepts import Concept, check_words
from ...errors import BaseModelError, NameTakenError, SettingsError
from ...method import Method, Scope
from ...plan import Plan
from ...sites import Site
from ..base import Backbone


@dataclass(frozen=True)
class Shown:
    """Pictures as latents, and the tokenized prompts that each may be shown with."""

    latents: Tensor
    """(N, channels, height, width), scaled, on the backbone's device."""
    prompts: Tensor
    """All prompts' token ids, (P, tokens)."""
    choices: tuple[tuple[int, ...], ...]
    """For each picture the rows of `prompts` it may take."""


@dataclass(frozen=True)
class Drawn(Shown):
    """Pictures that the network drew itself before it learns on."""

    states: Tensor
    """Text features of the prompts, (P, tokens, width): they never change, as the word to learn is not in them."""
    weight: float


@dataclass(frozen=True)
class Material:
    own: Shown
    prior: Drawn | None
    replay: Drawn | None


@dataclass(frozen=True)
class Part:
    """One half of a batch: noisy latents with what the U-Net should say of them."""

    noisy: Tensor
    timesteps: Tensor
    target: Tensor
    tokens: Tensor | None
    """The prompts' token ids, where their features must be computed anew at every step; else `states`."""
    states: Tensor | None
    weight: float


class StableDiffusion(Backbone):
    """A `StableDiffusionPipeline` that learns."""

    def __init__(self, pipeline: StableDiffusionPipeline, where: str = "the base") -> None:
        check_family(pipeline, where)
        self.pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)
        for network in self.modules.values():
            network.eval().requires_grad_(False)
        pipeline.vae.eval().requires_grad_(False)
        self.learned: list[str] = []
        self._schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)

    def to(self, device: torch.device) -> StableDiffusion:
        """Move every network to `device`; the answer is the backbone itself."""
        self.pipeline.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.pipeline.unet.device

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"unet": self.pipeline.unet, "text_encoder": self.pipeline.text_encoder}

    @property
    def resolution(self) -> int:
        """Pixels of a side of the pictures that the base was made for."""
        return self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor

    @property
    def schedule_length(self) -> int:
        """How many timesteps the base was trained with."""
        return self._schedule.config.num_train_timesteps

    @property
    def words(self) -> list[str]:
        """Every `<word>` that the tokenizer knows."""
        return [token for token in self.pipeline.tokenizer.get_added_vocab() if not token.startswith("<|")]

    @property
    def _table(self) -> nn.Embedding:
        return self.pipeline.text_encoder.get_input_embeddings()

    # -- words -----------------------------------------------------------------------------------------------------

    def add_word(self, word: str, row: Tensor) -> int:
        """Give the tokenizer a new word with `row` (width,) as its embedding; the answer is its place.

        Raises NameTakenError when the tokenizer has the word.
        """
        tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        if word in tokenizer.get_vocab():
            raise NameTakenError(f"the base's tokenizer already has the word {word}", do="Take another name.")
        if row.shape != self._table.weight.shape[1:]:
            raise ValueError(f"a word of this base has {self._table.embedding_dim} numbers, not {list(row.shape)}")
        tokenizer.add_tokens(AddedToken(word, normalized=False))
        if len(tokenizer) > self._table.num_embeddings:
            encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            encoder.requires_grad_(False)
        place = tokenizer.convert_tokens_to_ids(word)
        self._table.weight.data[place] = row.to(self._table.weight)
        self.learned.append(word)
        return place

    def grow(self, concept: Concept, method: Method, seed: int) -> None:
        table = self._table.weight.data
        if method.word_start == "class":
            if not concept.class_word:
                raise SettingsError("word_start is 'class' but no class word was given", do="Add --class WORD.")
            ids = self.pipeline.tokenizer(concept.class_word, add_special_tokens=False).input_ids
            row = table[ids].float().mean(0)
        else:
            noise = torch.randn(table.shape[1], generator=seeds.generator(seed, concept.name, "word"))
            row = table.float().mean(0).cpu() + table.float().std(0).cpu() * noise
        self.add_word(concept.word, row)

    def sites(self, concept: Concept, scope: Scope) -> Mapping[str, Site]:
        word = self.word_site(concept.word, self.pipeline.tokenizer.convert_tokens_to_ids(concept.word))
        return {word.name: word, **self.weight_sites(scope)}

    def sites_of_word(self, word: str) -> dict[str, Site]:
        """Every site that a concept of this word may have changed, whatever its method."""
        place = self.pipeline.tokenizer.convert_tokens_to_ids(word)
        site = self.word_site(word, place)
        return {site.name: site, **self.weight_sites("network")}

    def word_site(self, word: str, place: int) -> Site:
        """The row of a word in the embedding table."""
        return Site(f"token/{word}", "token", self._table, "weight", (place, place + 1))

    def weight_sites(self, scope: Scope) -> dict[str, Site]:
        """The sites of a scope without any word."""
        unet = self.pipeline.unet
        if scope == "tokens":
            return {}
        if scope == "network":
            parameters = (
                (".".join(filter(None, ("unet", path, name))), module, name)
                for path, module in unet.named_modules()
                for name, _ in module.named_parameters(recurse=False)
            )
            return {full: Site(full, "weight", module, name) for full, module, name in parameters}
        return {
            f"unet.{path}.weight": Site(f"unet.{path}.weight", "weight", module, "weight")
            for path, module in unet.named_modules()
            if path.endswith((".attn2.to_k", ".attn2.to_v"))
        }

    # -- learning --------------------------------------------------------------------------------------------------

    def material(self, concept: Concept, method: Method, plan: Plan) -> Material:
        prompts = concept.prompts(plan.prompts, "class word" in method.needs)
        own = self._shown(concept.images, prompts)
        prior = replay = None
        if "prior images" in method.needs and plan.prior_images and concept.class_word:
            prior = self._drawn([f"a photo of a {concept.class_word}"], plan.prior_images, plan.prior_weight)
        earlier = [word for word in self.learned if word != concept.word]
        if "replay" in method.needs and plan.replay_images and earlier:
            replay = self._drawn([f"a photo of {word}" for word in earlier], plan.replay_images, plan.replay_weight)
        return Material(own, prior, replay)

    def _drawn(self, prompts: Sequence[str], count: int, weight: float) -> Drawn:
        """`count` pictures of each prompt that the network, as it is now, draws."""
        each = [prompt for prompt in prompts for _ in range(count)]
        shown = self._shown(self.draw(each, list(range(len(each))), steps=25), [[prompt] for prompt in each])
        with torch.no_grad():
            return Drawn(shown.latents, shown.prompts, shown.choices, self.text_states(shown.prompts), weight)

    def _shown(self, images: Sequence[Image.Image], prompts: Sequence[Sequence[str]]) -> Shown:
        rows = {prompt: place for place, prompt in enumerate(dict.fromkeys(p for some in prompts for p in some))}
        return Shown(
            latents=self.encode(images),
            prompts=self.tokenize(list(rows)),
            choices=tuple(tuple(rows[prompt] for prompt in some) for some in prompts),
        )

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids as the pipeline makes them, (N, tokens), on the device."""
        tokenizer = self.pipeline.tokenizer
        options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        return tokenizer(list(prompts), return_tensors="pt", **options).input_ids.to(self.device)

    def text_states(self, tokens: Tensor) -> Tensor:
        """Token ids (N, tokens) → what cross-attention sees, (N, tokens, width)."""
        return self.pipeline.text_encoder(tokens)[0]

    def text_features(self, prompts: Sequence[str], word: str | None = None) -> Tensor:
        # The text encoder looks back only: nothing before the word depends on it, and all after it does, padding too.
        kept = []
        for tokens in self.tokenize(prompts).split(64):
            states = self.text_states(tokens)
            if word is None:
                kept.append(states.flatten(0, 1))
            else:
                place = self.pipeline.tokenizer.convert_tokens_to_ids(word)
                kept.append(states[(tokens == place).cumsum(1) > 0])
        return torch.cat(kept)

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image], batch: int = 16) -> Tensor:
        """RGB pictures → scaled latents (N, channels, height, width) on the device."""
        vae, parts = self.pipeline.vae, []
        for start in range(0, len(images), batch):
            pixels = self.pipeline.image_processor.preprocess(list(images[start : start + batch]))
            encoded = vae.encode(pixels.to(self.device, vae.dtype))
            latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
            parts.append((latents - (getattr(vae.config, "shift_factor", None) or 0.0)) * vae.config.scaling_factor)
        return torch.cat(parts).float()

    def batch(self, material: Material, plan: Plan, *purpose: int | str) -> list[Part]:
        parts = [self._part(material.own, None, plan.batch, 1.0, *purpose, "own")]
        for drawn, name in ((material.prior, "prior"), (material.replay, "replay")):
            if drawn is not None:
                parts.append(self._part(drawn, drawn.states, plan.batch, drawn.weight, *purpose, name))
        return parts

    def _part(self, shown: Shown, states: Tensor | None, size: int, weight: float, *purpose: int | str) -> Part:
        draw = seeds.generator(*purpose)
        count = len(shown.latents)
        # Every picture before any twice; one timestep from each of `size` equal slices: less variance, same mean.
        order = torch.cat([torch.randperm(count, generator=draw) for _ in range(-(-size // count))])[:size]
        slices = (torch.arange(size) + torch.rand(size, generator=draw)) / size
        # A slice's upper end, rounded to float32, can be 1 itself.
        last = self._schedule.config.num_train_timesteps - 1
        timesteps = (slices * (last + 1)).long().clamp_(max=last)
        latents = shown.latents[order.to(self.device)]
        noise = torch.randn(latents.shape, generator=draw).to(self.device)
        picks = torch.rand(size, generator=draw).tolist()
        rows = [
            shown.choices[place][int(pick * len(shown.choices[place]))]
            for place, pick in zip(order.tolist(), picks, strict=True)
        ]
        noisy, target, timesteps = self.noised(latents, noise, timesteps)
        if states is not None:
            return Part(noisy, timesteps, target, None, states[rows], weight)
        return Part(noisy, timesteps, target, shown.prompts[rows], None, weight)

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, what the U-Net should predict, and the timesteps on the device."""
        timesteps = timesteps.to(self.device)
        noisy = self._schedule.add_noise(latents, noise, timesteps)
        if self._schedule.config.prediction_type == "v_prediction":
            target = self._schedule.get_velocity(latents, noise, timesteps)
        else:
            target = noise
        return noisy, target, timesteps

    def loss(self, batch: list[Part]) -> Tensor:
        """‖target − U-Net(noisy, timestep, text)‖², its mean over each part, the parts added by their weights."""
        states = [self._states(part) for part in batch]
        predicted = self.pipeline.unet(
            torch.cat([part.noisy for part in batch]),
            torch.cat([part.timesteps for part in batch]),
            torch.cat([some.to(states[0].dtype) for some in states]),
            return_dict=False,
        )[0]
        parts = predicted.float().split([len(part.noisy) for part in batch])
        errors = [part.weight * F.mse_loss(said, part.target.float()) for said, part in zip(parts, batch, strict=True)]
        return torch.stack(errors).sum()

    def _states(self, part: Part) -> Tensor:
        if part.tokens is not None:
            return self.text_states(part.tokens)
        assert part.states is not None
        return part.states

    def _check_numbers(self, image_seeds: Sequence[int], steps: int, guidance: float) -> None:
        trained: Any = self.pipeline.scheduler.config.get("num_train_timesteps", 1000)
        if not 1 <= steps <= trained:
            raise SettingsError(
                f"steps is {steps}", do=f"The base was trained with {trained} steps: take 1 to {trained}."
            )
        if not math.isfinite(guidance):
            raise SettingsError(f"guidance is {guidance}", do="Take a number such as 6.")
        if any(not 0 <= seed < 2**63 for seed in image_seeds):
            raise SettingsError("a seed is negative or has more than 63 bits", do="Take one below 2^63.")

    # -- drawing ---------------------------------------------------------------------------------------------------

    def draw(
        self,
        prompts: Sequence[str],
        image_seeds: Sequence[int],
        *,
        steps: int = 25,
        guidance: float = 3.0,
        batch: int = 16,
        watch: Callable[[int], None] = lambda done: None,
    ) -> list[Image.Image]:
        """Picture k shows prompt k, from `torch.Generator("cpu").manual_seed(image_seeds[k])`.

        Raises UnknownWordError for a `<word>` that was never learned, SettingsError for numbers that mean nothing.
        """
        for prompt in dict.fromkeys(prompts):
            check_words(prompt, self.words)
        self._check_numbers(image_seeds, steps, guidance)
        images: list[Image.Image] = []
        for start in range(0, len(prompts), batch):
            some = slice(start, start + batch)
            output: Any = self.pipeline(
                list(prompts[some]),
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in image_seeds[some]],
            )
            images += output.images
            watch(len(images))
        return images


def check_family(pipeline: Any, where: str) -> None:
    """Raise BaseModelError unless the pipeline is a text-to-image Stable Diffusion 1.x or 2.x."""
    unet = getattr(pipeline, "unet", None)
    found = type(pipeline).__name__
    if not isinstance(pipeline, StableDiffusionPipeline) or unet is None:
        raise BaseModelError(f"is a {found}", where=where, do="Stable Diffusion 1.x and 2.x pipelines are supported.")
    if unet.config.in_channels != pipeline.vae.config.latent_channels:
        raise BaseModelError(
            "is made for inpainting or editing: its U-Net takes more than latents",
            where=where,
            do="Take the text-to-image version of the model.",
        )
    size, trained = unet.config.sample_size, pipeline.scheduler.config.get("num_train_timesteps", 1000)
    for what, found, most in (("pictures", size, 1024), ("a schedule", trained, 100_000)):
        if not isinstance(found, int) or not 1 <= found <= most:
            raise BaseModelError(
                f"announces {what} of size {found!r}", where=where, do="Restore the pipeline's configuration."
            )
    predicts = pipeline.scheduler.config.get("prediction_type", "epsilon")
    if predicts not in ("epsilon", "v_prediction"):
        raise BaseModelError(
            f"predicts {predicts!r}", where=where, do="Models that predict epsilon or v_prediction are supported."
        )


def load(folder: Path, *, variant: str | None = None) -> StableDiffusionPipeline:
    """A pipeline from its folder, every weight in float32, from safetensors only."""
    try:
        return StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            local_files_only=True,
            variant=variant,
        )
    except Exception as error:  # of three libraries, and of whatever a configuration makes them do
        lines = str(error).strip().splitlines() or [type(error).__name__]
        do = "Restore the pipeline's files; if they are right, they need more memory than there is."
        raise BaseModelError(f"the base cannot be loaded: {lines[0][:300]}", where=folder, do=do) from error
