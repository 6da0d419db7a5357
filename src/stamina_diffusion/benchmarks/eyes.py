"""What a benchmark's pictures are judged by: features of pictures, and of prompts in a space that both share."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import SettingsError

Array = NDArray[np.floating]


class Eyes(abc.ABC):
    """An encoder of pictures and prompts."""

    name: str

    @abc.abstractmethod
    def look(self, pictures: Sequence[Image.Image]) -> Array:
        """Features of pictures as they are, (N, width)."""

    @abc.abstractmethod
    def shared(self, features: Array) -> Array:
        """Features of pictures → the space that prompts share."""

    @abc.abstractmethod
    def read(self, prompts: Sequence[str]) -> Array:
        """Prompts in the shared space; none may hold a learned word."""


class Embedded(Eyes):
    """The embedded encoder, and the embedded base's text encoder with which it was trained."""

    name = "embedded"

    def __init__(self, pipeline: Any) -> None:
        from ..embedded import load_encoder

        self.encoder, self.pipeline = load_encoder(), pipeline

    @torch.no_grad()
    def look(self, pictures: Sequence[Image.Image]) -> Array:
        from ..embedded.encoder import to_tensor

        parts = [self.encoder.features(to_tensor(pictures[k : k + 64])) for k in range(0, len(pictures), 64)]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def shared(self, features: Array) -> Array:
        unit = torch.nn.functional.normalize(torch.from_numpy(np.asarray(features, np.float32)), dim=-1)
        return self.encoder.image_in_shared_space(unit).numpy()

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Array:
        tokenizer, text = self.pipeline.tokenizer, self.pipeline.text_encoder
        options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        ids = tokenizer(list(prompts), return_tensors="pt", **options).input_ids.to(text.device)
        return self.encoder.text_in_shared_space(text(ids).pooler_output.cpu()).numpy()


class Clip(Eyes):
    """A CLIP model of a hub id or a folder, such as openai/clip-vit-base-patch32."""

    def __init__(self, source: str) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        self.name = source
        try:
            self.model: Any = CLIPModel.from_pretrained(source, use_safetensors=True).eval().requires_grad_(False)
            self.processor: Any = CLIPImageProcessorPil.from_pretrained(source)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, TypeError) as error:
            said = str(error).strip().splitlines()[0]
            do = "Give a CLIP model's folder with safetensors weights, or its hub id."
            raise SettingsError(f"the encoder cannot be loaded: {said}", where=source, do=do) from error
        if torch.cuda.is_available():
            self.model.to("cuda")

    @torch.no_grad()
    def look(self, pictures: Sequence[Image.Image]) -> Array:
        parts = []
        for start in range(0, len(pictures), 64):
            pixels = self.processor(list(pictures[start : start + 64]), return_tensors="pt")["pixel_values"]
            seen = self.model.vision_model(pixels.to(self.model.device)).pooler_output
            parts.append(self.model.visual_projection(seen).float().cpu())
        return torch.cat(parts).numpy()

    def shared(self, features: Array) -> Array:
        return features

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Array:
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        said = self.model.text_model(**tokens.to(self.model.device)).pooler_output
        return self.model.text_projection(said).float().cpu().numpy()


def eyes_of(encoder: str, pipeline: Any) -> Eyes:
    """The encoder of a protocol; `pipeline` is the base before it learned anything, or after."""
    return Embedded(pipeline) if encoder == "embedded" else Clip(encoder)
