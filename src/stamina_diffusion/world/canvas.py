"""A small anti-aliased canvas: shapes in unit coordinates, moved by an affine pose, drawn at four times the size.

Unit coordinates run from (0, 0) at the top left to (1, 1) at the bottom right, so a drawing has no size of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
"""Red, green and blue, each in [0, 1]."""

SUPERSAMPLING = 4


def mix(a: Colour, b: Colour, amount: float) -> Colour:
    """The colour at `amount` of the way from `a` (0) to `b` (1)."""
    return (a[0] + (b[0] - a[0]) * amount, a[1] + (b[1] - a[1]) * amount, a[2] + (b[2] - a[2]) * amount)


def shade(colour: Colour, amount: float) -> Colour:
    """`colour` made lighter (amount > 0, towards white) or darker (amount < 0, towards black); amount in [-1, 1]."""
    return mix(colour, (1.0, 1.0, 1.0), amount) if amount >= 0 else mix(colour, (0.0, 0.0, 0.0), -amount)


def ellipse(cx: float, cy: float, rx: float, ry: float, *, points: int = 28, turn: float = 0.0) -> np.ndarray:
    """The outline of an ellipse, (points, 2), turned by `turn` radians about its centre."""
    t = np.linspace(0.0, 2.0 * np.pi, points, endpoint=False)
    x, y = rx * np.cos(t), ry * np.sin(t)
    return np.stack([cx + x * np.cos(turn) - y * np.sin(turn), cy + x * np.sin(turn) + y * np.cos(turn)], axis=1)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The outline of an upright rectangle, (4, 2)."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def smooth(points: Sequence[Sequence[float]], *, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A Catmull-Rom curve through `points`, (n, 2); closed by default."""
    p = np.asarray(points, dtype=float)
    if closed:
        before, after, last = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        before, after = np.vstack([p[:1], p[:-2]]), p[1:]
        last = np.vstack([p[2:], p[-1:]])
        p_end, p = p[-1:], p[:-1]
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (q[:, None, :] for q in (before, p, after, last))
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.vstack([curve, p_end])


class Canvas:
    """A square picture of `size` pixels, drawn at four times the size and reduced at the end.

    `pose` is a 2×3 affine matrix in unit coordinates that every later shape passes through; set it between shapes.
    """

    def __init__(self, size: int, background: Colour = (1.0, 1.0, 1.0)) -> None:
        self.size = size
        self.pixels = size * SUPERSAMPLING
        self.pose = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        self._image = Image.new("RGB", (self.pixels, self.pixels), _rgb(background))
        self._draw = ImageDraw.Draw(self._image, "RGB")
        self._blend = ImageDraw.Draw(self._image, "RGBA")

    def place(
        self,
        *,
        turn: float = 0.0,
        scale: float = 1.0,
        stretch: float = 1.0,
        shift: tuple[float, float] = (0.0, 0.0),
        about: tuple[float, float] = (0.5, 0.5),
        flip: bool = False,
    ) -> None:
        """Set the pose: flip, stretch in x, scale and turn (radians) about a point, then shift."""
        cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
        sx = -stretch if flip else stretch
        linear = np.array([[cos * sx, -sin], [sin * sx, cos]])
        centre = np.asarray(about)
        self.pose = np.hstack([linear, (centre + np.asarray(shift) - linear @ centre)[:, None]])

    def _project(self, points: np.ndarray | Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        p = np.asarray(points, dtype=float) @ self.pose[:, :2].T + self.pose[:, 2]
        return list(map(tuple, p * self.pixels))

    def polygon(self, points: np.ndarray | Sequence[Sequence[float]], fill: Colour, opacity: float = 1.0) -> None:
        """Fill the outline `points`, (n, 2)."""
        if opacity >= 1.0:
            self._draw.polygon(self._project(points), fill=_rgb(fill))
        else:
            self._blend.polygon(self._project(points), fill=(*_rgb(fill), round(255 * max(opacity, 0.0))))

    def line(
        self, points: np.ndarray | Sequence[Sequence[float]], fill: Colour, width: float, opacity: float = 1.0
    ) -> None:
        """A polyline through `points`; `width` is in unit coordinates and grows with the pose."""
        scale = float(np.sqrt(abs(np.linalg.det(self.pose[:, :2]))))
        pixels = max(1, round(width * scale * self.pixels))
        if opacity >= 1.0:
            self._draw.line(self._project(points), fill=_rgb(fill), width=pixels, joint="curve")
        else:
            ink = (*_rgb(fill), round(255 * opacity))
            self._blend.line(self._project(points), fill=ink, width=pixels, joint="curve")

    def gradient(self, top: Colour, bottom: Colour, until: float = 1.0) -> None:
        """Fill the canvas from y = 0 to y = `until` with a vertical gradient; the pose does not move it."""
        rows = max(1, round(self.pixels * until))
        ramp = np.linspace(np.asarray(top), np.asarray(bottom), rows)[:, None, :]
        band = np.broadcast_to(np.clip(ramp * 255 + 0.5, 0, 255).astype(np.uint8), (rows, self.pixels, 3))
        self._image.paste(Image.fromarray(np.ascontiguousarray(band)), (0, 0))

    def light(self, tint: Colour, strength: float, direction: float = 0.0) -> None:
        """Tint the whole picture: multiply by `tint`, more on one side; direction in [-1, 1] is left to right."""
        x = np.linspace(-1.0, 1.0, self.pixels)[None, :, None]
        gain = np.asarray(tint)[None, None, :] * (1.0 + strength * direction * x)
        pixels = np.asarray(self._image, dtype=np.float32) * gain.astype(np.float32)
        self._image.paste(Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)), (0, 0))

    def image(self) -> Image.Image:
        """The finished picture, RGB, `size` × `size`."""
        return self._image.resize((self.size, self.size), Image.Resampling.BOX)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    r, g, b = (round(255 * min(max(float(c), 0.0), 1.0)) for c in colour)
    return r, g, b
