"""Stable Diffusion 1.x and 2.x: keys and values of the U-Net's cross-attention, words of its CLIP text encoder.

The embedded base is one of them; there is no special case for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from ...errors import BaseModelError
from .text_to_image import TextToImage
from .words import Text


class StableDiffusion(TextToImage):
    """A `StableDiffusionPipeline` that learns."""

    name = "Stable Diffusion 1.x or 2.x"
    denoiser_name: ClassVar[Literal["unet", "transformer"]] = "unet"
    keys_and_values = (".attn2.to_k", ".attn2.to_v")

    def __init__(self, pipeline: Any, where: str = "the base") -> None:
        super().__init__(pipeline, where)
        self._schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)

    @classmethod
    def check(cls, pipeline: Any, where: str = "the base") -> None:
        super().check(pipeline, where)
        predicts = pipeline.scheduler.config.get("prediction_type", "epsilon")
        if predicts not in ("epsilon", "v_prediction"):
            raise BaseModelError(
                f"predicts {predicts!r}", where=where, do="Models that predict epsilon or v_prediction are supported."
            )

    def text_states(self, tokens: Text) -> Text:
        return {"states": self.pipeline.text_encoder(tokens["text_encoder"])[0]}

    def text_features(self, prompts: Sequence[str], word: str | None = None) -> Tensor:
        # CLIP looks back only: nothing before the word depends on it, and all after it does, padding too.
        kept = []
        for start in range(0, len(prompts), 64):
            tokens = self.tokenize(prompts[start : start + 64])
            with self.computing():
                states = self.text_states(tokens)["states"].float()
            if word is None:
                kept.append(states.flatten(0, 1))
            else:
                place = self.pipeline.tokenizer.convert_tokens_to_ids(word)
                kept.append(states[(tokens["text_encoder"] == place).cumsum(1) > 0])
        return torch.cat(kept)

    def times(self, shares: Tensor, latents: Tensor) -> Tensor:
        """Every timestep equally often."""
        last = self._schedule.config.num_train_timesteps - 1
        # A slice's upper end, rounded to float32, can be 1 itself.
        return (shares * (last + 1)).long().clamp_(max=last)

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        timesteps = self.sent(timesteps)
        noisy = self._schedule.add_noise(latents, noise, timesteps)
        if self._schedule.config.prediction_type == "v_prediction":
            target = self._schedule.get_velocity(latents, noise, timesteps)
        else:
            target = noise
        return noisy, target, timesteps

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        def say(noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
            return self.denoiser(noisy, timesteps, states, return_dict=False)[0]

        return self.replayed(say, noisy, timesteps, text["states"])
