"""FLUX.1 (Black Forest Labs): T5's states as text, CLIP's summary as a hint, blocks for both streams and then for one.

A word has a row in CLIP. T5 reads the word as it is spelled. The single-stream blocks, whose keys and values serve
picture and text alike, stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .flow import PATCH, FlowMatching
from .original_names import Place, of_flux
from .words import Text

GUIDANCE = 1.0
"""What a guidance-distilled model is told while it learns: the plain, unguided direction is what the loss asks for."""


class Flux(FlowMatching):
    """A `FluxPipeline` that learns."""

    name = "FLUX.1"
    latents_a_place = PATCH**2

    @property
    def resolution(self) -> int:
        """As its autoencoder says; the transformer does not."""
        return self.pipeline.vae.config.sample_size

    def place(self, site: str) -> Place:
        return of_flux(site.removeprefix("transformer."), self.denoiser.inner_dim)

    def text_states(self, tokens: Text) -> Text:
        return {"states": tokens["t5"], "pooled": self.pipeline.text_encoder(tokens["text_encoder"]).pooler_output}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        pipeline, scale = self.pipeline, self.pipeline.vae_scale_factor
        count, channels, height, width = noisy.shape
        places = pipeline._prepare_latent_image_ids(count, height // PATCH, width // PATCH, noisy.device, noisy.dtype)
        guided = self.denoiser.config.guidance_embeds
        said = self.denoiser(
            hidden_states=pipeline._pack_latents(noisy, count, channels, height, width),
            timestep=timesteps / self._schedule.config.num_train_timesteps,
            guidance=torch.full_like(timesteps, GUIDANCE) if guided else None,
            pooled_projections=text["pooled"],
            encoder_hidden_states=text["states"],
            txt_ids=noisy.new_zeros(text["states"].shape[1], 3),
            img_ids=places,
            return_dict=False,
        )[0]
        return pipeline._unpack_latents(said, height * scale, width * scale, scale)
