"""How the embedded base is made, from nothing: five stages, each resumable, each on a CPU or a GPU.

1. *data*: render the base pool and caption it. 2. *pair*: a contrastive image–text pair; its text tower becomes the
frozen text encoder, as in Stable Diffusion, its image tower the embedded encoder. 3. *autoencoder*: pictures to
latents. 4. *denoiser*: the U-Net on latents and frozen text features. 5. *pack*: float16 safetensors, the judge's
verdict, the model card.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Every number of the recipe; the defaults, for two CPU cores, made the first shipped weights.

    The card beside the weights says which numbers made those of today.
    """

    seed: int = 0
    identities: int = 2600
    """Identities of the base pool, of each family."""
    views: int = 8
    captions: int = 6
    """Captions of each view; each names another random part of its factors."""
    text_length: int = 48
    text_width: int = 192
    text_layers: int = 3
    pair_steps: int = 1500
    pair_batch: int = 128
    pair_rate: float = 1.5e-3
    encoder_steps: int = 3000
    """Steps that the image tower goes on for alone, once the text tower is frozen."""
    encoder_rate: float = 1.5e-3
    encoder_decay: float = 0.3
    """The last share of these steps, over which the rate falls: 1 for an encoder that goes on from its peak."""
    latent_channels: int = 12
    autoencoder_width: int = 48
    decoder_blocks: tuple[int, ...] = (4, 2, 1)
    decoder_steps: int = 12000
    decoder_batch: int = 6
    decoder_rate: float = 2e-3
    decoder_noise: float = 0.1
    denoiser_channels: tuple[int, ...] = (64, 128, 128)
    denoiser_steps: int = 13500
    denoiser_batches: tuple[tuple[int, int], ...] = ((0, 32), (1056, 16))
    """(first step, batch): more, smaller steps were better for the same time once the rough shapes stood."""
    denoiser_rate: float = 1e-3
    denoiser_decay: float = 0.3
    """The last share of the steps, over which the rate falls: 1 for a U-Net that goes on from its peak."""
    denoiser_skew: float = 1.0
    """Timesteps are drawn as u to this power, u uniform: below 1, more of the noisy ones, where words decide most."""
    unconditional: float = 0.1
    """Share of the captions that are dropped, so that classifier-free guidance works."""
    compile: bool = False
    """Compile the U-Net: 16 % less time a step on one core, for two to three minutes at the start."""
    capture: bool = False
    """Record the U-Net's step as a CUDA graph: a GPU no longer waits for the host that launches its kernels."""

    def denoiser_batch(self, step: int) -> int:
        """The U-Net's batch at a step."""
        return [batch for first, batch in self.denoiser_batches if first <= step][-1]
