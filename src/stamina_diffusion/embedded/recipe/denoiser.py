"""Stage 4: the U-Net, with v-prediction on a schedule that ends in pure noise (arXiv 2305.08891).

With Stable Diffusion 1's schedule the noise of the last timestep still carried the mean colour of the picture, and
words about colours were ignored; with this one they are obeyed.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from ... import checkpoints, files, seeds
from . import Recipe
from .autoencoder import encode
from .data import BasePool, tokenize, tokens_of
from .loop import mixed_precision, train

EMA_DECAY = 0.999


def scheduler() -> EulerAncestralDiscreteScheduler:
    """The schedule of noise, with the sampler that is shipped: noise is added again at each of its steps.

    What this small U-Net gets wrong at one step an ancestral step may still mend; DDIM carries it to the end.
    """
    return EulerAncestralDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def build(recipe: Recipe) -> UNet2DConditionModel:
    levels = len(recipe.denoiser_channels)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        block_out_channels=recipe.denoiser_channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=1,
        cross_attention_dim=recipe.text_width,
        # Diffusers' old name for the number of heads. One head at 16×16: attention there is what costs on a CPU.
        attention_head_dim=(1,) + (4,) * (levels - 1),  # pyright: ignore[reportArgumentType]
        norm_num_groups=16,
    )


def latents_of_pool(
    folder: Path, recipe: Recipe, pool: BasePool, model: AutoencoderTiny, device: torch.device
) -> Tensor:
    """Every picture's scaled latent, (N, channels, 16, 16) float16, made once."""
    path = folder / "latents.safetensors"
    if not path.exists():
        parts = torch.arange(len(pool.pictures)).split(1024)
        made = [encode(model, pool, part, device).half() for part in tqdm(parts, desc="latents")]
        files.write_tensors(path, {"latents": torch.cat(made)})
    return load_file(path)["latents"].float() * model.config["scaling_factor"]


def make(
    folder: Path,
    recipe: Recipe,
    pool: BasePool,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    autoencoder: AutoencoderTiny,
    device: torch.device,
    start: UNet2DConditionModel | None = None,
) -> UNet2DConditionModel:
    """Train the U-Net, from `start` or from nothing, or read it when it is done; the answer is the moving average."""
    latents = latents_of_pool(folder, recipe, pool, autoencoder, device).to(device)
    tokens = tokens_of(folder, pool, tokenizer, recipe).to(device)
    blank = tokenize(tokenizer, [""], recipe.text_length).to(device, torch.int16)
    alphas = scheduler().alphas_cumprod.float().to(device)

    torch.manual_seed(seeds.derive(recipe.seed, "denoiser", "start"))
    model = (start or build(recipe)).train().requires_grad_(True).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportArgumentType]
    average = EMAModel(model.parameters(), decay=EMA_DECAY, use_ema_warmup=True, power=0.75, foreach=True)
    average.to(device)
    predict = torch.compile(model) if recipe.compile else model
    averaged = {f"average.{i}": value for i, value in enumerate(average.shadow_params)}

    def batch_at(step: int) -> dict[str, Tensor]:
        generator = seeds.generator(recipe.seed, "denoiser", step)
        batch = recipe.denoiser_batch(step)
        chosen = torch.randint(0, len(latents), (batch,), generator=generator).to(device)
        variant = torch.randint(0, recipe.captions, (batch,), generator=generator).to(device)
        dropped = (torch.rand(batch, generator=generator) < recipe.unconditional).to(device)
        # One timestep from each of `batch` equal slices: the same mean as drawing freely, with less variance.
        slices = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        timesteps = (slices**recipe.denoiser_skew * len(alphas)).long().to(device)
        clean = latents[chosen]
        drawing = seeds.generator(recipe.seed, "denoiser", step, "noise", device=device)
        noise = torch.randn(clean.shape, generator=drawing, device=device)
        signal = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        words = torch.where(dropped[:, None], blank, tokens[chosen, variant]).long()
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return {"noisy": noisy, "velocity": velocity, "timesteps": timesteps, "words": words}

    def loss_at(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with mixed_precision(device):
            with torch.no_grad():
                states = text(input_ids=batch["words"]).last_hidden_state
            predicted = predict(batch["noisy"], batch["timesteps"], states, return_dict=False)[0]
        return {"loss": F.mse_loss(predicted.float(), batch["velocity"])}

    def after_step(step: int) -> None:
        average.optimization_step = step
        average.step(model.parameters())

    train(
        "denoiser",
        folder,
        steps=recipe.denoiser_steps,
        rate=recipe.denoiser_rate,
        warm_up=200,
        trained=list(model.parameters()),
        state=checkpoints.named_tensors(unet=model) | averaged,
        loss_at=loss_at,
        batch_at=batch_at,
        capture=recipe.capture and device.type == "cuda",
        after_step=after_step,
        decay=recipe.denoiser_decay,
    )
    average.copy_to(model.parameters())
    return model.eval().requires_grad_(False)
