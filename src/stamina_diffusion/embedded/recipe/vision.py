"""The embedded ViT: a small vision transformer that tells the things of the world apart, whatever their rendition.

It is trained on the base pool alone, so that the classes of every stream are new to it. Its teacher is the embedded
encoder, which sees the plain picture: the class token is to say what the encoder says of the whole, and each patch what
the encoder sees there. Beside that it learns who it is (a cosine softmax over identities with a margin, CosFace, arXiv
1801.09414) and the grade of every factor. A teacher's features are far denser in information than a class, and two slow
cores see each picture a few times at most. The heads are training's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from ... import checkpoints, seeds
from ...world.renditions import RENDITIONS, redraw
from ..encoder import HIDDEN_SIZES as TEACHER_SIZES
from ..encoder import RESOLUTION, EmbeddedEncoder, factors
from ..encoder import WIDTH as TEACHER_WIDTH
from .data import BasePool, as_input
from .loop import DECAY, train

IDENTITY_SCALE = 24.0
PATCH_WIDTH = TEACHER_SIZES[2]
"""The width of the teacher's stage that has as many places as there are patches."""


@dataclass(frozen=True)
class VisionRecipe:
    """Every number of the recipe; the defaults are those of the shipped weights."""

    seed: int = 0
    identities: int = 3640
    """Identities of the base pool, of each family."""
    views: int = 6
    captions: int = 6
    """Captions are rendered along with the pictures, since the base's recipe shares them; the ViT reads none."""
    width: int = 192
    depth: int = 6
    heads: int = 3
    patch: int = 16
    steps: int = 6000
    batch: int = 64
    rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 0.05
    margin: float = 0.1
    identity_weight: float = 0.1
    grades_weight: float = 1.0
    teacher_weight: float = 4.0
    patches_weight: float = 2.0
    plain: float = 0.7
    """Share of the pictures that are seen plain; the other renditions divide the rest. As with ImageNet and ImageNet-R,
    what is pre-trained on is mostly photos: were all renditions seen alike, nothing would be left to adapt to."""
    patches: int = 9
    """How many patches of a picture, drawn at random, training looks at until the rate falls; then at all. A step over
    9 of 16 takes little more than half the time (arXiv 2212.00794 does so with longer sequences)."""
    shift: int = 3
    """Pixels by which a picture is moved at most, either way, along each side."""


def config(recipe: VisionRecipe) -> ViTConfig:
    """The plain ViT's configuration, with no class yet."""
    return ViTConfig(
        hidden_size=recipe.width,
        num_hidden_layers=recipe.depth,
        num_attention_heads=recipe.heads,
        intermediate_size=4 * recipe.width,
        image_size=RESOLUTION,
        patch_size=recipe.patch,
        layer_norm_eps=1e-6,
        num_labels=0,  # pyright: ignore[reportCallIssue] (of every configuration)
    )


class Taught(nn.Module):
    """The ViT and the heads it is trained with."""

    def __init__(self, recipe: VisionRecipe, identities: int) -> None:
        super().__init__()
        self.vit = ViTForImageClassification(config(recipe))
        self.identity_head = nn.Parameter(torch.randn(identities, recipe.width) * 0.1)
        self.grade_head = nn.Linear(recipe.width, sum(len(values) for values in factors().values()))
        self.teacher_head = nn.Linear(recipe.width, TEACHER_WIDTH)
        self.patch_head = nn.Linear(recipe.width, PATCH_WIDTH)

    def features(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, 64, 64) in [−1, 1] → the class token after the last norm, (N, width)."""
        return self.tokens(images)[:, 0]

    def tokens(self, images: Tensor, looked_at: Tensor | None = None) -> Tensor:
        """All tokens after the last norm, the class's first, (N, 1 + patches, width).

        With `looked_at`, (N, patches), only of these patches of each picture, and only they are seen.
        """
        vit = self.vit.vit
        if looked_at is None:
            return vit(pixel_values=images).last_hidden_state
        tokens = vit.embeddings(images)
        places = torch.cat([torch.zeros_like(looked_at[:, :1]), looked_at + 1], 1)
        hidden = tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
        for layer in vit.layers:
            hidden = layer(hidden)
        return vit.layernorm(hidden)


def renditions_of(pictures: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Each picture (N, H, W, 3) in the rendition of its place in RENDITIONS, (N,)."""
    result = pictures.copy()
    for place, rendition in enumerate(RENDITIONS):
        which = drawn == place
        result[which] = redraw(pictures[which], rendition)
    return result


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Pictures (N, 3, H, W), each moved by up to `most` pixels and a little brighter or darker.

    Never mirrored: on which side the hair is parted, or the flag stands, belongs to some identities.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (most,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * most + 1, (2, count), generator=generator).tolist()
    moved = [padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(zip(top, left, strict=True))]
    gain = 1 + 0.15 * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    return ((torch.stack(moved) + 1) * gain - 1).clamp(-1, 1)


@torch.no_grad()
def start_with_components(taught: Taught, pictures: np.ndarray) -> None:
    """Let the patches' layer start as their whitened principal components: equal variances, nothing said twice."""
    layer = taught.vit.vit.embeddings.patch_embeddings.projection
    width, channels, side, _ = layer.weight.shape
    patches = F.unfold(as_input(pictures), side, stride=side).mT.reshape(-1, channels * side * side).double()
    variance, axes = torch.linalg.eigh(torch.cov(patches.T))
    variance, axes = variance.flip(0)[:width], axes.flip(1)[:, :width]
    # An axis and its opposite are equally good; the largest entry is made positive so that machines agree.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    rows = (axes / (variance + 1e-2 * variance.mean()).sqrt()).T
    layer.weight.copy_(rows.view_as(layer.weight))
    assert layer.bias is not None
    layer.bias.copy_(-rows @ patches.mean(0))


class Teacher(NamedTuple):
    """What the embedded encoder says of plain pictures, in float16 on the CPU."""

    whole: Tensor
    """Unit features, (N, 160)."""
    patches: Tensor
    """What its third stage sees at each place of 4×4, (N, 16, 128): one for each patch of 16 pixels."""


@torch.no_grad()
def teacher_of(encoder: EmbeddedEncoder, pictures: np.ndarray, device: torch.device) -> Teacher:
    """The encoder's answers to plain pictures (N, 64, 64, 3) uint8."""
    encoder = encoder.to(device)
    whole, patches = [], []
    for i in range(0, len(pictures), 256):
        seen = encoder.tower(as_input(pictures[i : i + 256]).to(device), output_hidden_states=True)
        whole.append(F.normalize(seen.pooler_output.flatten(1), dim=-1).half().cpu())
        patches.append(seen.hidden_states[3].flatten(2).mT.half().cpu())
    return Teacher(torch.cat(whole), torch.cat(patches))


def make(
    folder: Path,
    recipe: VisionRecipe,
    pool: BasePool,
    teacher: Teacher,
    device: torch.device,
    after_step: Callable[[Taught, int], None] = lambda taught, step: None,
) -> Taught:
    """Train the ViT, or read it when it is done; `teacher` is the embedded encoder's of the pool's pictures."""
    torch.manual_seed(seeds.derive(recipe.seed, "vision", "start"))
    taught = Taught(recipe, int(pool.identities.max()) + 1)
    start_with_components(taught, pool.pictures[:: max(1, len(pool.pictures) // 3000)])
    taught = taught.to(device).train()
    # The teacher's features are all of one side of zero: about their mean they say most.
    whole = teacher.whole.float()
    whole = F.normalize(whole - whole.mean(0), dim=-1)
    some = teacher.patches[:: max(1, len(whole) // 3000)].float().flatten(0, 1)
    middle, spread = some.mean(0), some.std(0) + 1e-3
    patches = (RESOLUTION // recipe.patch) ** 2
    grade_sizes = [len(values) for values in factors().values()]
    others = len(RENDITIONS) - 1
    shares = torch.tensor([recipe.plain, *[(1 - recipe.plain) / others] * others])

    def loss_at(step: int) -> dict[str, Tensor]:
        generator = seeds.generator(recipe.seed, "vision", step)
        chosen = torch.randint(0, len(pool.pictures), (recipe.batch,), generator=generator).numpy()
        drawn = torch.multinomial(shares, recipe.batch, replacement=True, generator=generator).numpy()
        images = shifted(as_input(renditions_of(pool.pictures[chosen], drawn)), recipe.shift, generator).to(device)
        identities = torch.from_numpy(pool.identities[chosen]).to(device)
        grades = torch.from_numpy(pool.grades[chosen].astype(np.int64)).to(device)

        looked_at = None
        if step < (1 - DECAY) * recipe.steps and recipe.patches < patches:
            places = torch.rand(recipe.batch, patches, generator=generator).argsort(1)
            looked_at = places[:, : recipe.patches].to(device)
        tokens = taught.tokens(images, looked_at)
        features = tokens[:, 0]
        local = (teacher.patches[chosen].float() - middle) / spread
        if looked_at is not None:
            local = local.gather(1, looked_at.cpu()[..., None].expand(-1, -1, local.shape[-1]))
        patch = F.smooth_l1_loss(taught.patch_head(tokens[:, 1:]), local.to(device))
        cosine = F.normalize(features, dim=-1) @ F.normalize(taught.identity_head, dim=-1).T
        margin = recipe.margin * F.one_hot(identities, cosine.shape[1])
        identity = F.cross_entropy((cosine - margin) * IDENTITY_SCALE, identities)
        named = [
            F.cross_entropy(part, grades[:, i], ignore_index=-1)
            for i, part in enumerate(taught.grade_head(features).split(grade_sizes, -1))
        ]
        # A factor of the other family has no grade: with none in the batch its mean is no number.
        grade = torch.stack(named).nan_to_num().mean()
        likeness = F.cosine_similarity(taught.teacher_head(features), whole[chosen].to(device)).mean()
        loss = (
            recipe.identity_weight * identity
            + recipe.grades_weight * grade
            + recipe.teacher_weight * (1 - likeness)
            + recipe.patches_weight * patch
        )
        return {"loss": loss, "identity": identity, "grade": grade, "likeness": likeness, "patch": patch}

    train(
        "vision",
        folder,
        steps=recipe.steps,
        rate=recipe.rate,
        warm_up=recipe.warm_up,
        trained=list(taught.parameters()),
        state=checkpoints.named_tensors(taught=taught),
        loss_at=loss_at,
        after_step=lambda step: after_step(taught, step),
        weight_decay=recipe.weight_decay,
    )
    return taught.eval().requires_grad_(False)
