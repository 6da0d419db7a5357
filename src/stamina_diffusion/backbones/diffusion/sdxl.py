"""Stable Diffusion XL (arXiv 2307.01952): two CLIP encoders side by side, and a U-Net that is told sizes and a summary.

Sites are those of Stable Diffusion: the keys and values of cross-attention. A word has a row in both encoders.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .original_names import Place, of_unet
from .stable_diffusion import StableDiffusion
from .words import Text


class SDXL(StableDiffusion):
    """A `StableDiffusionXLPipeline` that learns."""

    name = "Stable Diffusion XL"
    encoder_names = ("text_encoder", "text_encoder_2")

    def place(self, site: str) -> Place:
        name, config = site.removeprefix("unet."), self.denoiser.config
        block = int(name.split(".")[1]) if name.startswith("up_blocks.") else None
        attended = block is not None and "CrossAttn" in config.up_block_types[block]
        return Place(of_unet(name, config.layers_per_block, attended))

    def text_states(self, tokens: Text) -> Text:
        """The last but one layer of both encoders, side by side, and the second one's summary of the prompt."""
        first, second = (
            encoder(tokens[name], output_hidden_states=True)
            for name, encoder in zip(self.encoder_names, self.encoders, strict=True)
        )
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        return {"states": states, "pooled": second.text_embeds}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        scale = self.pipeline.vae_scale_factor
        height, width = (side * scale for side in noisy.shape[-2:])
        # Original size, crop and target size, as the pipeline says them when it draws: photos come cropped and sized.
        sizes = noisy.new_tensor([height, width, 0, 0, height, width]).expand(len(noisy), -1)

        def say(noisy: Tensor, timesteps: Tensor, states: Tensor, pooled: Tensor, sizes: Tensor) -> Tensor:
            added = {"text_embeds": pooled, "time_ids": sizes}
            return self.denoiser(noisy, timesteps, states, added_cond_kwargs=added, return_dict=False)[0]

        return self.replayed(say, noisy, timesteps, text["states"], text["pooled"], sizes)
