"""What an export is made from: the model as it is now, what its weights were before, and the words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from accelerate import PartialState
from torch import Tensor

from ..backbones.diffusion.text_to_image import TextToImage
from ..errors import ExportError
from ..settings import Draw, draw_settings, preset_for
from ..sites import changes_in
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
    preset: str | None = None
    """Whose settings of drawing the pictures take; by the base if not given."""
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

    @property
    def now(self) -> TextToImage:
        """The model of the newest version, float32 on the CPU: a GPU may have no room for that."""
        return self._loaded[0]

    @cached_property
    def _loaded(self) -> tuple[TextToImage, dict[str, Tensor]]:
        """The newest model, and what its learned weights were before: of one load, so that there is one model."""
        backbone, before = self.studio.bare(), {}
        for entry in self.studio.entries:
            names = changes_in(self.studio.read_checked(entry, "change.safetensors"))
            sites = backbone.weight_sites("network")
            before |= {
                name: _plain(sites[name].value).clone() for name in names if name in sites and name not in before
            }
            self.studio.fold_recorded(backbone, entry)
        return backbone, before

    @cached_property
    def draw(self) -> Draw:
        """How pictures of the export are drawn."""
        return draw_settings(self.wanted.preset or preset_for(self.studio.base))

    @contextmanager
    def drawing(self, backbone: TextToImage) -> Iterator[TextToImage]:
        """Inside, a model is where it draws, stored as the preset says: its weights must have been written before."""
        try:
            yield backbone.store(self.draw.storage).to(torch.device(PartialState().device or "cpu"))
        finally:
            backbone.to(torch.device("cpu")).gather()

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
        backbone, before = self._loaded
        sites = backbone.weight_sites("network")
        pairs = {name: Moved(value, _plain(sites[name].value)) for name, value in before.items()}
        return {name: pairs[name] for name in sites if name in pairs and not torch.equal(*pairs[name])}

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
