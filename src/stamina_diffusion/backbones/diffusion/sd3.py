"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): two CLIP encoders and T5, one transformer for text and picture.

A word has a row in both CLIP encoders. T5, which a pipeline may also lack, reads the word as it is spelled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import FlowMatching
from .original_names import Place, of_sd3
from .words import Text


class SD3(FlowMatching):
    """A `StableDiffusion3Pipeline` that learns."""

    name = "Stable Diffusion 3"
    encoder_names = ("text_encoder", "text_encoder_2")

    def place(self, site: str) -> Place:
        blocks = self.denoiser.config.num_layers
        return of_sd3(site.removeprefix("transformer."), self.denoiser.inner_dim, blocks)

    def text_states(self, tokens: Text) -> Text:
        """The last but one layers of both CLIPs side by side, then T5's states; and both CLIPs' summaries."""
        first, second = (
            encoder(tokens[name], output_hidden_states=True)
            for name, encoder in zip(self.encoder_names, self.encoders, strict=True)
        )
        clip = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        t5 = tokens["t5"].to(clip.dtype)
        clip = F.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return {"states": torch.cat([clip, t5], 1), "pooled": torch.cat([first.text_embeds, second.text_embeds], -1)}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self.denoiser(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=text["states"],
            pooled_projections=text["pooled"],
            return_dict=False,
        )[0]
