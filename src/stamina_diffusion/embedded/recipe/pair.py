"""Stage 2: a contrastive image–text pair (CLIP, arXiv 2103.00020), whose image tower also learns who and what it sees.

The word features must be good before the U-Net learns from them: a text tower trained along with the U-Net from
scratch was seen to be ignored by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ... import checkpoints, seeds
from ..encoder import WIDTH, EmbeddedEncoder, factors
from . import Recipe
from .data import BasePool
from .loop import mixed_precision, train

IDENTITY_SCALE = 24.0
IDENTITY_MARGIN = 0.15
"""Scale and margin of the cosine softmax over identities (CosFace, arXiv 1801.09414)."""


class Pair(nn.Module):
    """The two towers and the training-only identity head."""

    def __init__(self, recipe: Recipe, tokenizer: CLIPTokenizer, identities: int) -> None:
        super().__init__()
        self.text = CLIPTextModel(text_config(recipe, tokenizer))
        self.encoder = EmbeddedEncoder(factors(), recipe.text_width)
        self.identity_head = nn.Parameter(torch.randn(identities, WIDTH) * 0.1)
        self.log_scale = nn.Parameter(torch.tensor(2.5))


def text_config(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.text_width,
        intermediate_size=2 * recipe.text_width,
        projection_dim=recipe.text_width,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=4,
        max_position_embeddings=recipe.text_length,
        bos_token_id=tokenizer.bos_token_id,  # pyright: ignore[reportArgumentType]
        eos_token_id=tokenizer.eos_token_id,  # pyright: ignore[reportArgumentType]
        pad_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
    )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Small shifts, blur and noise, (N, 3, H, W): what the autoencoder does to a picture must not hide its identity."""
    count, _, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4), mode="replicate")
    top, left = (int(torch.randint(0, 9, (1,), generator=generator)) for _ in range(2))
    images = padded[:, :, top : top + height, left : left + width]
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.lerp(images, blurred, torch.rand(count, 1, 1, 1, generator=generator) ** 2)
    level = torch.rand(count, 1, 1, 1, generator=generator) ** 2 * 0.08
    return (images + level * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str], length: int | None = None) -> Tensor:
    """Token ids, padded to the longest or to `length`, (N, tokens)."""
    longest = length or tokenizer.model_max_length
    padding = "max_length" if length else "longest"
    return tokenizer(captions, padding=padding, truncation=True, max_length=longest, return_tensors="pt").input_ids


def make(folder: Path, recipe: Recipe, pool: BasePool, tokenizer: CLIPTokenizer, device: torch.device) -> Pair:
    """Train both towers, or read them when it is done."""
    torch.manual_seed(seeds.derive(recipe.seed, "pair", "start"))
    pair = Pair(recipe, tokenizer, int(pool.identities.max()) + 1).to(device)
    _train("pair", folder, recipe, pool, tokenizer, device, pair, list(pair.parameters()), recipe.pair_steps)
    return pair.eval().requires_grad_(False)


def go_on_with_image_tower(
    folder: Path, recipe: Recipe, pool: BasePool, tokenizer: CLIPTokenizer, device: torch.device, pair: Pair
) -> Pair:
    """Train the image tower further against the frozen text tower: the U-Net does not wait for the encoder."""
    pair.requires_grad_(True).train()
    pair.text.requires_grad_(False).eval()
    pair.encoder.text_projection.requires_grad_(False)
    trained = [parameter for parameter in pair.parameters() if parameter.requires_grad]
    _train("encoder", folder, recipe, pool, tokenizer, device, pair, trained, recipe.encoder_steps)
    return pair.eval().requires_grad_(False)


def _train(
    name: str,
    folder: Path,
    recipe: Recipe,
    pool: BasePool,
    tokenizer: CLIPTokenizer,
    device: torch.device,
    pair: Pair,
    trained: Sequence[Tensor],
    steps: int,
) -> None:
    count = len(pool.pictures)
    grade_sizes = [len(values) for values in factors().values()]

    def loss_at(step: int) -> dict[str, Tensor]:
        generator = seeds.generator(recipe.seed, name, step)
        chosen = torch.randint(0, count, (recipe.pair_batch,), generator=generator).numpy()
        variants = torch.randint(0, recipe.captions, (recipe.pair_batch,), generator=generator).tolist()
        images = torch.from_numpy(pool.pictures[chosen]).permute(0, 3, 1, 2).float() / 255
        images = augment(images, generator).to(device)
        captions = [pool.captions[i][v] for i, v in zip(chosen, variants, strict=True)]
        tokens = tokenize(tokenizer, captions).to(device)
        identities = torch.from_numpy(pool.identities[chosen]).to(device)
        grades = torch.from_numpy(pool.grades[chosen].astype(np.int64)).to(device)

        with mixed_precision(device):
            features = pair.encoder(images)
            pooled = pair.text(input_ids=tokens).pooler_output
            pictures, texts = pair.encoder.image_in_shared_space(features), pair.encoder.text_in_shared_space(pooled)
            logits = pair.encoder.attribute_head(features * WIDTH**0.5)
        similar = pictures.float() @ texts.float().T * pair.log_scale.exp().clamp(max=60)
        target = torch.arange(len(chosen), device=device)
        contrast = (F.cross_entropy(similar, target) + F.cross_entropy(similar.T, target)) / 2
        cosine = features.float() @ F.normalize(pair.identity_head, dim=-1).T
        cosine = cosine - IDENTITY_MARGIN * F.one_hot(identities, cosine.shape[1])
        identity = F.cross_entropy(cosine * IDENTITY_SCALE, identities)
        named = [
            F.cross_entropy(part.float(), grades[:, i], ignore_index=-1)
            for i, part in enumerate(logits.split(grade_sizes, -1))
        ]
        attribute = torch.stack(named).nan_to_num().mean()
        loss = contrast + 0.5 * identity + attribute
        return {"loss": loss, "contrast": contrast, "identity": identity, "attribute": attribute}

    train(
        name,
        folder,
        steps=steps,
        rate=recipe.pair_rate,
        warm_up=100,
        trained=list(trained),
        state=checkpoints.named_tensors(pair=pair),
        loss_at=loss_at,
    )
