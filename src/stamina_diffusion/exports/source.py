"""What an export is made from: the base, the model as it is now, and the difference of the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..backbones.diffusion.text_to_image import TextToImage
from ..errors import ExportError
from ..studio import Studio

Layout = Literal["diffusers", "kohya"]


@dataclass(frozen=True)
class Wanted:
    """What the person asked for beside the format; what a format does not need it does not read."""

    layout: Layout = "diffusers"
    """Of `lora`: whose names."""
    rank: int | None = None
    """Of `lora`; 16 where neither it nor `error` is given."""
    error: float | None = None
    """Of `lora`: the smallest rank at which no layer's ‖Δ − BA‖/‖Δ‖ is above it."""
    pictures: bool = True
    """Draw a grid for the card, and what a lossy format changes in it."""
    licence: str | None = None
    consent: str | None = None


class Written(NamedTuple):
    """What a format says of what it wrote, for the card."""

    use: str
    """How another program loads it, in Markdown."""
    lost: tuple[str, ...] = ()
    """What the studio's model has and these files have not; a sentence each."""


class Moved(NamedTuple):
    """One tensor of the denoiser before and after everything that was learned."""

    before: Tensor
    after: Tensor


@dataclass(eq=False)
class Source:
    """A studio, opened for an export."""

    studio: Studio
    wanted: Wanted = Wanted()
    tell: Callable[[str], None] = field(default=lambda line: None)
    name: str = ""
    """Of the folder that will hold the export."""

    @cached_property
    def now(self) -> TextToImage:
        """The model of the newest version."""
        return self.studio.backbone()

    @cached_property
    def base(self) -> TextToImage:
        """The model before anything was learned."""
        return self.studio.rebuilt(0)

    @property
    def words(self) -> dict[str, str]:
        """Name → word of every concept, in the order of learning."""
        return {entry.name: entry.word for entry in self.studio.entries}

    def rows(self, word: str) -> list[Tensor]:
        """A word's row (width,) in each text encoder, float32 on the CPU."""
        return rows_of(self.now.pipeline, word, self.now.encoder_names)

    @cached_property
    def moved(self) -> Mapping[str, Moved]:
        """By the site's name every tensor of the denoiser that learning changed, float32 on the CPU."""
        before, after = self.base.weight_sites("network"), self.now.weight_sites("network")
        pairs = {name: Moved(_plain(before[name].value), _plain(site.value)) for name, site in after.items()}
        return {name: pair for name, pair in pairs.items() if not torch.equal(*pair)}

    def needs_change(self, to: str) -> Mapping[str, Moved]:
        """`moved`. Raises ExportError when it is empty: such a file would say nothing."""
        if not self.moved:
            do = "Take --to embeddings, which is all that was learned." if self.words else "Learn a concept first."
            raise ExportError(f"no weight was changed, so {to} would be empty", where=self.studio.folder, do=do)
        return self.moved


def rows_of(pipeline: object, word: str, encoders: Sequence[str] = ("text_encoder",)) -> list[Tensor]:
    """A word's row in each of some text encoders of a pipeline."""
    rows = []
    for name in encoders:
        encoder, tokenizer = getattr(pipeline, name), getattr(pipeline, name.replace("text_encoder", "tokenizer"))
        rows.append(_plain(encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(word)]))
    return rows


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()
