"""Real diffusers pipelines with random weights, one a family, always the same: small, offline, no file is read.

Each draws pictures of 8 × 8 pixels. Their text encoders have the published ones' quirks: CLIP's configuration names 2
as the end of a prompt, and SDXL's second tokenizer pads with "!".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from . import seeds

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
    from transformers import CLIPTokenizer, T5EncoderModel, T5Tokenizer

LENGTH = 40
"""Tokens of a prompt."""

# Denoisers of real size, as their published configurations have it, for what shapes alone can tell.
SDXL_SIZE: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
SD3_MEDIUM_SIZE: dict[str, Any] = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
SD35_LARGE_SIZE: dict[str, Any] = {
    "sample_size": 128,
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}


def tiny_pipeline(prediction_type: Literal["epsilon", "v_prediction"] = "epsilon") -> StableDiffusionPipeline:
    """A real `StableDiffusionPipeline`.

    "epsilon" has the schedule of Stable Diffusion 1.x; "v_prediction" that of 2.x, with a last step of pure noise.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    tokenizer = _letters()
    with seeds.drawing_for("tiny pipeline"):
        encoder = _clip(tokenizer, layers=1, end=tokenizer.eos_token_id)
        unet = UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(16,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        vae = _autoencoder()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
        timestep_spacing="trailing" if prediction_type == "v_prediction" else "leading",
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )


def tiny_sdxl() -> StableDiffusionXLPipeline:
    """A real `StableDiffusionXLPipeline`: two encoders of different widths, sizes and a summary for the U-Net."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    tokenizer, tokenizer_2 = _letters(), _letters(pad_token="!")
    with seeds.drawing_for("tiny SDXL"):
        encoder = _clip(tokenizer)
        encoder_2 = _clip(tokenizer_2, width=24, projected=24)
        unet = UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(16, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),  # type: ignore[arg-type]
            cross_attention_dim=16 + 24,
            attention_head_dim=2,
            norm_num_groups=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=24 + 6 * 4,
        )
        vae = _autoencoder()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=encoder,
        text_encoder_2=encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=scheduler,  # type: ignore[arg-type]
    )


def tiny_sd3(t5: bool = True) -> StableDiffusion3Pipeline:
    """A real `StableDiffusion3Pipeline`; without `t5` as people load it to save memory."""
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    tokenizer, tokenizer_2 = _letters(), _letters(pad_token="!")
    with seeds.drawing_for("tiny SD3"):
        encoder = _clip(tokenizer, projected=16)
        encoder_2 = _clip(tokenizer_2, width=24, projected=24)
        tokenizer_3, encoder_3 = _t5(width=48)
        transformer = SD3Transformer2DModel(
            sample_size=4,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=48,
            caption_projection_dim=16,
            pooled_projection_dim=16 + 24,
            out_channels=4,
            pos_embed_max_size=4,
        )
        vae = _autoencoder(shift_factor=0.06)
    parts: Any = {"text_encoder_3": encoder_3 if t5 else None, "tokenizer_3": tokenizer_3 if t5 else None}
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2,
        **parts,
    )


def tiny_flux(guidance: bool = True) -> FluxPipeline:
    """A real `FluxPipeline`: with `guidance` as FLUX.1-dev, which is told how much, without as FLUX.1-schnell."""
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    tokenizer = _letters()
    with seeds.drawing_for("tiny FLUX"):
        encoder = _clip(tokenizer)
        tokenizer_2, encoder_2 = _t5(width=24)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            guidance_embeds=guidance,
            axes_dims_rope=(2, 2, 4),
        )
        vae = _autoencoder(shift_factor=0.11)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if guidance else 1.0, use_dynamic_shifting=guidance)
    return FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )


TINY = {"Stable Diffusion": tiny_pipeline, "SDXL": tiny_sdxl, "SD3": tiny_sd3, "FLUX": tiny_flux}
"""A pipeline of each family."""


def _letters(**special: str) -> CLIPTokenizer:
    """A tokenizer whose every token is a letter."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    places: Any = {token: place for place, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=places, merges=[], model_max_length=LENGTH, **special)


def _clip(tokenizer: CLIPTokenizer, width: int = 16, layers: int = 2, projected: int = 0, end: Any = 2) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    places: Any = tokenizer.get_vocab()
    config = CLIPTextConfig(
        vocab_size=len(places),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=places["<|startoftext|>"],
        eos_token_id=end,
        pad_token_id=places["<|endoftext|>"],
        projection_dim=projected or 512,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def _t5(width: int) -> tuple[T5Tokenizer, T5EncoderModel]:
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.-_>"  # as T5's own, it has no "<"
    pieces: Any = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -2.0) for letter in letters)]
    config = T5Config(
        vocab_size=len(pieces),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512), T5EncoderModel(config)


def _autoencoder(shift_factor: float | None = None) -> AutoencoderKL:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        latent_channels=4,
        block_out_channels=(4, 4),  # type: ignore[arg-type]
        down_block_types=("DownEncoderBlock2D",) * 2,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * 2,  # type: ignore[arg-type]
        norm_num_groups=2,
        sample_size=8,
        shift_factor=shift_factor,
    )
