"""Stage 2: a contrastive image–text pair (CLIP, arXiv 2103.00020), whose image tower also learns who and what it sees.

The word features must be good before the U-Net learns from them: a text tower trained along with the U-Net from
scratch was seen to be ignored by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ... import checkpoints, seeds
from ..encoder import WIDTH, EmbeddedEncoder, factors
from . import Recipe
from .data import BasePool, as_input, tokens_of
from .loop import DECAY, mixed_precision, train

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


def augment(images: Tensor, top: int, left: int, generator: torch.Generator) -> Tensor:
    """A shift to (top, left) of [0, 8]², blur and noise drawn with a generator of the pictures' device, (N, 3, H, W).

    What the autoencoder does to a picture must not hide its identity.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4), mode="replicate")
    images = padded[:, :, top : top + height, left : left + width]
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    drawn = {"generator": generator, "device": images.device}
    images = torch.lerp(images, blurred, torch.rand(count, 1, 1, 1, **drawn) ** 2)
    level = torch.rand(count, 1, 1, 1, **drawn) ** 2 * 0.08
    return (images + level * torch.randn(images.shape, **drawn)).clamp(0, 1)


def make(folder: Path, recipe: Recipe, pool: BasePool, tokenizer: CLIPTokenizer, device: torch.device) -> Pair:
    """Train both towers, or read them when it is done."""
    torch.manual_seed(seeds.derive(recipe.seed, "pair", "start"))
    pair = Pair(recipe, tokenizer, int(pool.identities.max()) + 1).to(device)
    _train("pair", folder, recipe, pool, tokenizer, device, pair, list(pair.parameters()))
    return pair.eval().requires_grad_(False)


def go_on_with_image_tower(
    folder: Path, recipe: Recipe, pool: BasePool, tokenizer: CLIPTokenizer, device: torch.device, pair: Pair
) -> Pair:
    """Train the image tower further against the frozen text tower: the U-Net does not wait for the encoder."""
    pair.requires_grad_(True).train()
    pair.text.requires_grad_(False).eval()
    pair.encoder.text_projection.requires_grad_(False)
    trained = [parameter for parameter in pair.parameters() if parameter.requires_grad]
    _train("encoder", folder, recipe, pool, tokenizer, device, pair, trained)
    return pair.eval().requires_grad_(False)


@torch.no_grad()
def from_packed(
    recipe: Recipe, pool: BasePool, tokenizer: CLIPTokenizer, text: CLIPTextModel, encoder: EmbeddedEncoder
) -> Pair:
    """The pair of packed weights. Its identity head, which is not packed, starts as each identity's mean feature."""
    pair = Pair(recipe, tokenizer, int(pool.identities.max()) + 1)
    pair.text, pair.encoder = text, encoder
    parts = torch.arange(len(pool.pictures)).split(256)
    seen = torch.cat([encoder((as_input(pool.pictures[part.numpy()]) + 1) / 2) for part in parts])
    sums = torch.zeros_like(pair.identity_head).index_add_(0, torch.from_numpy(pool.identities), seen)
    pair.identity_head.copy_(F.normalize(sums, dim=-1))
    return pair


def _train(
    name: Literal["pair", "encoder"],
    folder: Path,
    recipe: Recipe,
    pool: BasePool,
    tokenizer: CLIPTokenizer,
    device: torch.device,
    pair: Pair,
    trained: Sequence[Tensor],
) -> None:
    steps, rate, decay = {
        "pair": (recipe.pair_steps, recipe.pair_rate, DECAY),
        "encoder": (recipe.encoder_steps, recipe.encoder_rate, recipe.encoder_decay),
    }[name]
    pictures, count = torch.from_numpy(pool.pictures).to(device), len(pool.pictures)
    tokens = tokens_of(folder, pool, tokenizer, recipe).to(device)
    identities, grades = torch.from_numpy(pool.identities).to(device), torch.from_numpy(pool.grades).to(device)
    grade_sizes = [len(values) for values in factors().values()]

    def loss_at(step: int) -> dict[str, Tensor]:
        generator = seeds.generator(recipe.seed, name, step)
        chosen = torch.randint(0, count, (recipe.pair_batch,), generator=generator).to(device)
        variants = torch.randint(0, recipe.captions, (recipe.pair_batch,), generator=generator).to(device)
        top, left = torch.randint(0, 9, (2,), generator=generator).tolist()
        images = pictures[chosen].permute(0, 3, 1, 2).float() / 255
        images = augment(images, top, left, seeds.generator(recipe.seed, name, step, "augment", device=device))
        who, graded = identities[chosen], grades[chosen].long()

        with mixed_precision(device):
            features = pair.encoder(images)
            pooled = pair.text(input_ids=tokens[chosen, variants].long()).pooler_output
            seen, texts = pair.encoder.image_in_shared_space(features), pair.encoder.text_in_shared_space(pooled)
            logits = pair.encoder.attribute_head(features * WIDTH**0.5)
        similar = seen.float() @ texts.float().T * pair.log_scale.exp().clamp(max=60)
        target = torch.arange(len(chosen), device=device)
        contrast = (F.cross_entropy(similar, target) + F.cross_entropy(similar.T, target)) / 2
        cosine = features.float() @ F.normalize(pair.identity_head, dim=-1).T
        cosine = cosine - IDENTITY_MARGIN * F.one_hot(who, cosine.shape[1])
        identity = F.cross_entropy(cosine * IDENTITY_SCALE, who)
        named = [
            F.cross_entropy(part.float(), graded[:, i], ignore_index=-1)
            for i, part in enumerate(logits.split(grade_sizes, -1))
        ]
        attribute = torch.stack(named).nan_to_num().mean()
        loss = contrast + 0.5 * identity + attribute
        return {"loss": loss, "contrast": contrast, "identity": identity, "attribute": attribute}

    train(
        name,
        folder,
        steps=steps,
        rate=rate,
        warm_up=100,
        trained=list(trained),
        state=checkpoints.named_tensors(pair=pair),
        loss_at=loss_at,
        decay=decay,
    )
