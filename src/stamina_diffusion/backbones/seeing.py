"""How a picture becomes what a classifier sees: its size, a crop and a mirroring in training, its scale of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import SettingsError

Grey = tuple[float, float, float]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Sight:
    """What a picture goes through on its way into the network; the defaults show it whole, in [−1, 1]."""

    side: int = 224
    """Pixels of a side of what the network sees."""
    resize: int | None = None
    """To test: the shorter side becomes so long, and the middle is cut out; None squeezes the whole picture in."""
    training: Literal["as tested", "crop"] = "as tested"
    """"crop": a part of random place, area and shape, brought to size (torchvision's RandomResizedCrop)."""
    smallest: float = 0.08
    """The least area of a crop, of 1."""
    mirror: bool = False
    """Half of the training's pictures are mirrored."""
    mean: Grey = (0.5, 0.5, 0.5)
    spread: Grey = (0.5, 0.5, 0.5)
    """(value − mean) / spread, of values in [0, 1]."""
    filter: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        for name in ("mean", "spread"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.side < 1 or (self.resize is not None and self.resize < self.side):
            raise SettingsError(f"side is {self.side} and resize {self.resize}", do="Give a resize of side or more.")
        if self.filter not in _FILTERS or self.training not in ("as tested", "crop"):
            found = f"filter {self.filter!r}, training {self.training!r}"
            raise SettingsError(f"there is no {found}", do="Choose bilinear or bicubic; 'as tested' or 'crop'.")

    @property
    def still(self) -> bool:
        """Whether training sees a picture always alike."""
        return self.training == "as tested" and not self.mirror

    def settings(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return asdict(self) | {"mean": list(self.mean), "spread": list(self.spread)}

    def tested(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Pictures as they are judged, (N, 3, side, side)."""
        return self._scaled([self._whole(picture) for picture in pictures])

    def trained(self, pictures: Sequence[Image.Image], draw: torch.Generator) -> Tensor:
        """Pictures as one step of training sees them, (N, 3, side, side)."""
        crop = self._crop if self.training == "crop" else lambda picture, draw: self._whole(picture)
        seen = self._scaled([crop(picture, draw) for picture in pictures])
        if self.mirror:
            turned = torch.rand(len(seen), 1, 1, 1, generator=draw) < 0.5
            seen = torch.where(turned, seen.flip(-1), seen)
        return seen

    def _whole(self, picture: Image.Image) -> Image.Image:
        width, height = picture.size
        if self.resize is None:
            wide = tall = self.side
        else:
            short = min(width, height)
            wide, tall = (max(self.resize, int(self.resize * long / short)) for long in (width, height))
        if picture.size != (wide, tall):
            picture = picture.resize((wide, tall), _FILTERS[self.filter])
        left, top = (wide - self.side) // 2, (tall - self.side) // 2
        return picture.crop((left, top, left + self.side, top + self.side)) if left or top else picture

    def _crop(self, picture: Image.Image, draw: torch.Generator) -> Image.Image:
        width, height = picture.size
        for _ in range(10):
            share, shape, x, y = torch.rand(4, generator=draw).tolist()
            area = (self.smallest + (1 - self.smallest) * share) * width * height
            # Shapes from 3:4 to 4:3, as likely lying as standing.
            ratio = math.exp((2 * shape - 1) * math.log(4 / 3))
            wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < tall <= height:
                left, top = int(x * (width - wide + 1)), int(y * (height - tall + 1))
                box = (left, top, left + wide, top + tall)
                return picture.resize((self.side, self.side), _FILTERS[self.filter], box=box)
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        return picture.resize((self.side, self.side), _FILTERS[self.filter], box=box)

    def _scaled(self, pictures: Sequence[Image.Image]) -> Tensor:
        if not pictures:
            return torch.empty(0, 3, self.side, self.side)
        arrays = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
        values = torch.from_numpy(arrays).movedim(-1, 1).float() / 255
        mean, spread = (torch.tensor(grey).view(3, 1, 1) for grey in (self.mean, self.spread))
        return (values - mean) / spread
