"""Flow matching (arXiv 2210.02747, 2403.03206): the denoiser says which way leads from picture to noise.

Its network is a transformer in which text and picture attend to each other. The text's own keys and values
(`add_k_proj`, `add_v_proj`) are to it what cross-attention's are to a U-Net; see docs/decisions/0007.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ...errors import SettingsError
from .text_to_image import TextToImage
from .words import Text

PATCH = 2
"""Latent pixels of a side of what the transformers take for one place."""


class FlowMatching(TextToImage):
    """A pipeline whose transformer matches a flow."""

    denoiser_name: ClassVar[Literal["unet", "transformer"]] = "transformer"
    keys_and_values = (".attn.add_k_proj", ".attn.add_v_proj")

    def __init__(self, pipeline: Any, where: str = "the base") -> None:
        super().__init__(pipeline, where)
        self._schedule: Any = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)

    def tokenize(self, prompts: Sequence[str]) -> Text:
        """Token ids of the CLIP encoders, and T5's features: T5 learns no words, so what it says never changes."""
        self.gather()
        with torch.no_grad(), self.computing():
            t5 = self.pipeline._get_t5_prompt_embeds(list(prompts), device=self.device)
        return {**super().tokenize(prompts), "t5": t5}

    def text_features(self, prompts: Sequence[str], word: str | None = None) -> Tensor:
        raise SettingsError(
            "keys and values of joint attention see the text mixed with the picture, and the method needs them apart",
            do="Take a method without text features, such as stamina.",
        )

    def times(self, shares: Tensor, latents: Tensor) -> Tensor:
        """t = 1000 · shift(σ(z)), z ~ N(0, 1): logit-normal (arXiv 2403.03206, section 3.1), moved as when drawing."""
        config = self._schedule.config
        time = torch.sigmoid(torch.special.ndtri(shares.double().clamp(1e-6, 1 - 1e-6)))
        if config.use_dynamic_shifting:
            places = latents.shape[-2] * latents.shape[-1] // PATCH**2
            bounds = (config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
            time = self._schedule.time_shift(calculate_shift(places, *bounds), 1.0, time)
        else:
            time = config.shift * time / (1 + (config.shift - 1) * time)
        return (config.num_train_timesteps * time).float()

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t = (1 − t) x + t ε and its direction ε − x (rectified flow; arXiv 2403.03206, section 3)."""
        timesteps = self.sent(timesteps.float())
        time = (timesteps / self._schedule.config.num_train_timesteps)[:, None, None, None]
        return (1 - time) * latents + time * noise, noise - latents, timesteps
