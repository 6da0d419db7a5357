"""How a landmark is drawn: one short function a kind of building, over shared walls, roofs, windows, sky and ground."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .canvas import Canvas, Colour, ellipse, mix, rectangle, shade, smooth

BASE = 0.83
"""The height in the picture at which a building meets the ground."""

LEAST_HEIGHT, MOST_HEIGHT, MOST_WIDTH = 0.62, 0.76, 0.82
"""How large a building stands in the frame before the camera moves."""

WALL_COLOURS: dict[str, Colour] = {
    "gray": (0.60, 0.61, 0.64),
    "red": (0.74, 0.32, 0.26),
    "white": (0.94, 0.93, 0.90),
    "yellow": (0.91, 0.76, 0.42),
    "brown": (0.52, 0.36, 0.25),
    "pink": (0.93, 0.64, 0.67),
    "blue": (0.36, 0.58, 0.80),
    "green": (0.47, 0.66, 0.50),
}
ROOF_COLOURS: dict[str, Colour] = {
    "red": (0.80, 0.22, 0.20),
    "blue": (0.18, 0.34, 0.68),
    "green": (0.16, 0.50, 0.36),
    "gray": (0.36, 0.38, 0.44),
    "gold": (0.95, 0.71, 0.16),
    "orange": (0.92, 0.48, 0.18),
    "purple": (0.48, 0.28, 0.62),
    "white": (0.96, 0.96, 0.95),
}
TRIM_COLOURS: dict[str, Colour] = {
    "white": (0.98, 0.97, 0.94),
    "gold": (0.96, 0.76, 0.26),
    "dark": (0.27, 0.25, 0.30),
    "red": (0.80, 0.26, 0.24),
    "blue": (0.22, 0.42, 0.74),
}
DOOR_COLOURS: dict[str, Colour] = {
    "brown": (0.36, 0.22, 0.14),
    "red": (0.72, 0.14, 0.16),
    "blue": (0.14, 0.27, 0.56),
    "green": (0.10, 0.38, 0.26),
}
FLAG_COLOURS: dict[str, Colour] = {
    "red": (0.88, 0.18, 0.18),
    "blue": (0.15, 0.38, 0.85),
    "yellow": (0.99, 0.82, 0.15),
    "white": (0.99, 0.99, 0.99),
}
LAMPLIGHT: Colour = (1.0, 0.84, 0.42)
GOLD: Colour = (1.0, 0.78, 0.20)

HOUR_TINTS: dict[str, Colour] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (1.0, 0.88, 0.78),
    "night": (0.70, 0.72, 0.84),
    "dawn": (0.97, 0.90, 0.96),
}
SKIES: dict[str, tuple[Colour, Colour]] = {
    "day": ((0.36, 0.66, 0.93), (0.80, 0.92, 0.98)),
    "sunset": ((0.48, 0.34, 0.58), (1.0, 0.68, 0.42)),
    "night": ((0.05, 0.07, 0.22), (0.24, 0.31, 0.55)),
    "dawn": ((0.62, 0.66, 0.88), (0.99, 0.84, 0.80)),
}
GROUNDS: dict[str, Colour] = {
    "grass": (0.45, 0.68, 0.33),
    "sand": (0.90, 0.79, 0.56),
    "snow": (0.94, 0.96, 0.99),
    "stone plaza": (0.72, 0.69, 0.67),
    "water": (0.26, 0.54, 0.72),
}
ROOFS = ("cone", "gable", "flat", "onion", "round", "spire")
# A roof that a kind of building cannot carry is exchanged for one that it can, so that any parts may be combined.
FITTING_ROOFS: dict[str, tuple[str, ...]] = {
    "temple": ("gable", "flat", "round"),
    "pagoda": ("cone", "onion", "spire"),
    "pyramid": ("cone", "flat", "round"),
    "windmill": ("cone", "gable", "onion", "round"),
    "arch": ("gable", "flat", "round"),
    "dome": ("onion", "round"),
    "lighthouse": ("cone", "flat", "onion", "round"),
    "church": ("cone", "onion", "spire", "gable"),
}


def fitting_roof(identity: dict[str, Any]) -> str:
    """The roof that this building carries."""
    allowed = FITTING_ROOFS.get(identity["kind"], ROOFS)
    roof = identity["roof"]
    return roof if roof in allowed else allowed[ROOFS.index(roof) % len(allowed)]


def _varied(colour: Colour, hue: float, light: float) -> Colour:
    """`colour` moved a little in hue and brightness, by less than a name."""
    h, s, v = colorsys.rgb_to_hsv(*colour)
    return colorsys.hsv_to_rgb((h + 0.022 * hue) % 1.0, s, min(max(v * (1.0 + 0.11 * light), 0.0), 1.0))


class Anchors(NamedTuple):
    """Where a building carries its flag or ball (the highest point) and its clock (centre and radius)."""

    apex: tuple[float, float]
    clock: tuple[float, float, float]


class Extent:
    """Stands in for a canvas to learn how far a building reaches before it is drawn."""

    def __init__(self) -> None:
        self.low, self.high = np.full(2, np.inf), np.full(2, -np.inf)

    def polygon(self, points: Any, fill: Colour, opacity: float = 1.0) -> None:
        points = np.asarray(points)
        self.low, self.high = np.minimum(self.low, points.min(0)), np.maximum(self.high, points.max(0))

    def line(self, points: Any, fill: Colour, width: float, opacity: float = 1.0) -> None:
        self.polygon(points, fill)


class Builder:
    """Draws the shared parts of one building in the light of one hour."""

    def __init__(
        self, canvas: Canvas | Extent, identity: dict[str, Any], tint: Colour, lit: bool, shadow: float
    ) -> None:
        self.canvas, self.identity, self.tint, self.lit, self.shadow = canvas, identity, tint, lit, shadow
        self.wall = _varied(WALL_COLOURS[identity["wall"]], identity["wall_hue"], identity["wall_light"])
        self.roof_colour = _varied(ROOF_COLOURS[identity["roof_colour"]], identity["roof_hue"], identity["roof_light"])
        self.trim = _varied(TRIM_COLOURS[identity["trim"]], 0.0, identity["trim_light"])
        self.glass = mix((0.13, 0.17, 0.29), (0.36, 0.46, 0.60), identity["window_light"])
        self.band = 0.012 + 0.014 * identity["trim_width"]

    def between(self, low: float, high: float, key: str) -> float:
        """The identity's number `key`, in [0, 1], as a length from `low` to `high`."""
        return low + (high - low) * self.identity[key]

    def fill(self, points: Any, colour: Colour, opacity: float = 1.0, glow: bool = False) -> None:
        """A polygon under the hour's light, or one that shines by itself."""
        if not glow:
            colour = (colour[0] * self.tint[0], colour[1] * self.tint[1], colour[2] * self.tint[2])
        self.canvas.polygon(points, colour, opacity)

    def stroke(self, points: Any, colour: Colour, width: float) -> None:
        colour = (colour[0] * self.tint[0], colour[1] * self.tint[1], colour[2] * self.tint[2])
        self.canvas.line(points, colour, width)

    def block(
        self, left: float, right: float, top: float, bottom: float, taper: float = 0.0, crown: bool = False
    ) -> None:
        """A wall, narrower at the top by `taper` on each side, with its pattern, shadow and upper trim."""
        if crown and self.identity["ornament"] == "battlements":
            self._battlements(left + taper, right - taper, top)

        def at(across: float, y: float) -> tuple[float, float]:
            inset = taper * (bottom - y) / (bottom - top)
            return (left + inset + (right - left - 2 * inset) * across, y)

        self.fill([at(0, top), at(1, top), at(1, bottom), at(0, bottom)], self.wall)
        self._pattern(at, right - left, top, bottom)
        inner, outer = (0.70, 1.0) if self.shadow > 0 else (0.30, 0.0)
        dark = [at(inner, top), at(outer, top), at(outer, bottom), at(inner, bottom)]
        self.fill(dark, (0.10, 0.08, 0.25), opacity=0.17)
        edge = min(self.band, (bottom - top) / 4)
        self.fill([at(-0.02, top), at(1.02, top), at(1.02, top + edge), at(-0.02, top + edge)], self.trim)

    def _pattern(self, at: Callable[..., tuple[float, float]], width: float, top: float, bottom: float) -> None:
        pattern, scale = self.identity["pattern"], self.identity["pattern_scale"]
        ink = mix(self.wall, self.trim, 0.62)
        # White walls with white trim would hide the pattern.
        if sum(abs(a - b) for a, b in zip(self.wall, ink, strict=True)) < 0.25:
            ink = shade(self.wall, -0.26)
        if pattern == "banded":
            step = 0.065 + 0.05 * scale
            for y in np.arange(bottom - step, top, -step):
                low = y + step * 0.42
                self.fill([at(0, y), at(1, y), at(1, low), at(0, low)], ink)
        elif pattern == "striped":
            count = max(2, round(width / (0.055 + 0.04 * scale)))
            for i in range(count):
                a, b = (i + 0.3) / count, (i + 0.7) / count
                self.fill([at(a, top), at(b, top), at(b, bottom), at(a, bottom)], ink)
        elif pattern == "brick":
            ink = shade(self.wall, -0.28)
            step = 0.036 + 0.016 * scale
            across = step * 2.0 / width
            for row, y in enumerate(np.arange(bottom - step, top + step * 0.3, -step)):
                for x in np.arange(0.15 + (row % 2) * 0.5, 1 / across - 0.5, 1.0):
                    a, b = x * across, min((x + 0.55) * across, 1.0)
                    self.fill([at(a, y), at(b, y), at(b, y + step * 0.5), at(a, y + step * 0.5)], ink)

    def _battlements(self, left: float, right: float, top: float) -> None:
        count = max(2, round((right - left) / 0.075))
        step = (right - left) / (count - 0.45)
        for i in range(count):
            x = left + i * step
            self.fill(rectangle(x, top - 0.034, x + step * 0.55, top + 0.01), self.trim)

    def roof(self, left: float, right: float, base: float, height: float, kind: str | None = None) -> float:
        """A roof over a wall from `left` to `right`; the answer is the height in the picture of its tip."""
        kind = kind or fitting_roof(self.identity)
        width, centre = right - left, (left + right) / 2
        over = width * self.between(0.02, 0.13, "overhang")
        bend = 0.10 * self.identity["roof_curve"]
        half = width / 2 + over
        if kind == "flat":
            height = max(0.3 * height, 0.028)
            right_side = [(1.0, 0.0), (0.92, 1.0)]
        elif kind == "onion":
            right_side = [(0.80, 0.0), (1.08 + bend, 0.22), (0.92, 0.45), (0.42, 0.64), (0.12, 0.80), (0.0, 1.08)]
        elif kind == "round":
            right_side = [(np.cos(t), np.sin(t) * 0.92) for t in np.linspace(0.0, np.pi / 2, 7)]
        elif kind == "spire":
            height *= 1.25
            right_side = [(1.0, 0.0), (0.52 + bend, 0.15), (0.24 + bend * 0.5, 0.45), (0.0, 1.12)]
        elif kind == "gable":
            height *= 0.8
            right_side = [(1.0, 0.0), (1.0, 0.10), (0.0, 1.0)]
        else:
            right_side = [(1.0, 0.0), (0.52 + bend, 0.45), (0.0, 1.0)]
        side = np.array(right_side)
        if kind == "onion":
            side = smooth(side.tolist(), closed=False, steps=4)
        outer = np.stack([centre + side[:, 0] * half, base - side[:, 1] * height], axis=1)
        inner = np.stack([centre - side[:, 0] * half, base - side[:, 1] * height], axis=1)
        self.fill(np.vstack([outer, inner[::-1]]), self.roof_colour)
        if kind == "gable":
            front = [(centre - half * 0.68, base), (centre, base - height * 0.68), (centre + half * 0.68, base)]
            self.fill(front, shade(self.wall, -0.10))
        else:
            dark = outer if self.shadow > 0 else inner
            self.fill(np.vstack([dark, [[centre, dark[-1, 1]], [centre, base]]]), (0.08, 0.05, 0.25), opacity=0.20)
        tip = base - height * float(side[:, 1].max())
        return tip

    def window(self, x: float, y: float, size: float) -> None:
        """One window of the identity's shape about a point; `size` is half its width."""
        shape = self.identity["window"]
        if shape == "round":
            points: Any = ellipse(x, y, size * 1.1, size * 1.1, points=14)
            frame: Any = ellipse(x, y, size * 1.1 + 0.009, size * 1.1 + 0.009, points=14)
        elif shape == "square":
            points, frame = (rectangle(x - r, y - r, x + r, y + r) for r in (size, size + 0.009))
        elif shape == "slit":
            points, frame = (
                rectangle(x - size * 0.5 - r, y - size * 1.6 - r, x + size * 0.5 + r, y + size * 1.6 + r)
                for r in (0.0, 0.008)
            )
        else:
            points, frame = (
                arched(x - size * 0.85 - r, x + size * 0.85 + r, y - size * 1.5 - r, y + size * 1.3 + r)
                for r in (0.0, 0.008)
            )
        self.fill(frame, self.trim)
        self.fill(points, LAMPLIGHT if self.lit else self.glass, glow=self.lit)

    def windows(
        self, left: float, right: float, top: float, bottom: float, columns: int | None = None, rows: int = 1
    ) -> None:
        """A grid of windows that fits into the given wall."""
        columns = int(columns or self.identity["window_columns"])
        across, down = (right - left) / columns, (bottom - top) / rows
        size = min(self.between(0.018, 0.034, "window_size"), across * 0.32, down * 0.27)
        if size < 0.008:
            return
        for row in range(rows):
            for column in range(columns):
                self.window(left + across * (column + 0.5), top + down * (row + 0.5), size)

    def door(self, x: float, base: float = BASE, scale: float = 1.0) -> None:
        width = scale * self.between(0.036, 0.056, "door_size")
        height = scale * self.between(0.105, 0.15, "door_size")
        colour = DOOR_COLOURS[self.identity["door"]]
        for grow, ink in ((0.011, self.trim), (0.0, colour)):
            if self.identity["door_round"]:
                self.fill(arched(x - width - grow, x + width + grow, base - height - grow, base), ink)
            else:
                self.fill(rectangle(x - width - grow, base - height - grow, x + width + grow, base), ink)

    def stack(
        self,
        left: float,
        right: float,
        top: float,
        bottom: float,
        *,
        rows: int = 1,
        columns: int | None = None,
        taper: float = 0.0,
        stepped: float = 1.0,
    ) -> tuple[float, float]:
        """Tiers one upon the other, each set back from the one below; the answer is the edges of the uppermost."""
        tiers = self.identity["tiers"]
        tall = (bottom - top) / tiers
        setback = stepped * (right - left) * self.between(0.05, 0.10, "setback") * min(1.0, 2.0 / tiers)
        drift = self.identity["asymmetry"] * setback * 0.7
        for tier in range(tiers):
            low = bottom - tier * tall
            self.block(left, right, low - tall, low, taper=taper, crown=True)
            # The lowest storey leaves room for the door.
            floor = low - (min(0.15, tall * 0.5) if tier == 0 else 0.0)
            self.windows(left + taper, right - taper, low - tall + self.band, floor, columns, rows)
            left, right = left + taper, right - taper
            if tier < tiers - 1:
                left, right = left + setback + drift, right - setback + drift
        return left, right


def arched(left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """The outline of an opening with a round head."""
    t = np.linspace(np.pi, 0.0, 9)
    centre, half = (left + right) / 2, (right - left) / 2
    rise = min(half, bottom - top)
    head = np.stack([centre + half * np.cos(t), top + rise - rise * np.sin(t)], axis=1)
    return np.vstack([head, [[right, bottom], [left, bottom]]])


def _tower(b: Builder) -> Anchors:
    half = b.between(0.115, 0.205, "width")
    top = BASE - b.between(0.40, 0.54, "height")
    left, right = b.stack(0.5 - half, 0.5 + half, top, BASE, taper=0.012)
    b.door(0.5)
    tip = b.roof(left, right, top, b.between(0.12, 0.22, "roof_height"))
    return Anchors(((left + right) / 2, tip), ((left + right) / 2, top + 0.062, (right - left) * 0.22))


def _castle(b: Builder) -> Anchors:
    half = b.between(0.28, 0.39, "width")
    wall_top = BASE - b.between(0.20, 0.30, "height")
    towers = b.identity["tiers"]
    tower = b.between(0.075, 0.060, "detail") if towers > 1 else 0.12
    places = np.linspace(0.5 - half + tower * 0.7, 0.5 + half - tower * 0.7, towers) if towers > 1 else [0.5]
    middle = 0.5 + b.identity["asymmetry"] * 0.2
    roof_height = b.between(0.10, 0.18, "roof_height")
    apex = (0.5, 1.0)
    for x in places:
        rise = b.between(0.10, 0.17, "height") + (0.10 + 0.08 * b.identity["setback"]) * (1 - abs(x - middle) * 2.2)
        top = wall_top - rise
        b.block(x - tower, x + tower, top, BASE, crown=True)
        b.windows(x - tower, x + tower, top + b.band, wall_top, columns=1)
        tip = b.roof(x - tower, x + tower, top, roof_height)
        apex = min(apex, (x, tip), key=lambda point: point[1])
    b.block(0.5 - half, 0.5 + half, wall_top, BASE, crown=True)
    columns = 2 * b.identity["window_columns"]
    b.windows(0.5 - half, 0.5 + half, wall_top + b.band, wall_top + 0.11, columns=columns)
    b.door(0.5, scale=1.15)
    return Anchors(apex, (apex[0], wall_top - 0.03, 0.045))


def _temple(b: Builder) -> Anchors:
    half = b.between(0.27, 0.38, "width")
    steps = b.identity["tiers"]
    for step in range(steps):
        low = BASE - step * 0.028
        b.fill(rectangle(0.46 - half + step * 0.016, low - 0.028, 0.54 + half - step * 0.016, low), b.trim)
        b.fill(rectangle(0.46 - half + step * 0.016, low - 0.008, 0.54 + half - step * 0.016, low), shade(b.trim, -0.3))
    floor = BASE - steps * 0.028
    top = floor - b.between(0.24, 0.34, "height")
    b.fill(rectangle(0.52 - half, top, 0.48 + half, floor), shade(b.wall, -0.42))
    columns = 4 + 2 * round(b.identity["setback"])
    spacing = 2 * half / columns
    thick = spacing * b.between(0.20, 0.27, "detail")
    b.windows(0.5 - half + spacing / 2, 0.5 + half - spacing / 2, top + 0.02, floor - 0.1, columns=columns - 1)
    b.door(0.5, floor, scale=0.85)
    for x in 0.5 - half + spacing * (np.arange(columns) + 0.5):
        b.block(x - thick, x + thick, top, floor)
        b.fill(rectangle(x - thick * 1.3, floor - 0.02, x + thick * 1.3, floor), b.trim)
    b.block(0.48 - half, 0.52 + half, top - 0.07, top, crown=True)
    tip = b.roof(0.48 - half, 0.52 + half, top - 0.07, b.between(0.16, 0.25, "roof_height"))
    return Anchors((0.5, tip), (0.5, top - 0.085, 0.052))


def _pagoda(b: Builder) -> Anchors:
    tiers = b.identity["tiers"]
    half = b.between(0.17, 0.27, "width")
    total = b.between(0.44, 0.54, "height")
    tall = total / (tiers + 0.2)
    eave = min(tall * b.between(0.38, 0.52, "roof_height"), 0.15)
    flare = b.between(0.045, 0.10, "overhang")
    lift = 0.028 + 0.026 * b.identity["roof_curve"]
    shrink = b.between(0.80, 0.90, "setback")
    low = BASE
    for tier in range(tiers):
        top = low - tall
        b.block(0.5 - half, 0.5 + half, top + eave * 0.5, low)
        if tier:
            b.windows(0.5 - half, 0.5 + half, top + eave, low - 0.01)
        else:
            b.windows(0.5 - half, 0.47, top + eave, low - 0.03, columns=1)
            b.windows(0.53, 0.5 + half, top + eave, low - 0.03, columns=1)
            b.door(0.5, scale=min(1.0, (tall - eave) / 0.13))
        _eaves(b, half, half * shrink, flare, lift, top, eave)
        low, half = top, half * shrink
    b.block(0.5 - half * 0.6, 0.5 + half * 0.6, low - 0.035, low + 0.01, crown=True)
    tip = b.roof(0.5 - half * 0.6, 0.5 + half * 0.6, low - 0.03, b.between(0.10, 0.15, "roof_height"))
    return Anchors((0.5, tip), (0.5, low + eave * 0.45, 0.045))


def _eaves(b: Builder, half: float, upper: float, flare: float, lift: float, top: float, eave: float) -> None:
    """A curved roof between two storeys, whose corners turn up by `lift`."""
    reach = half + flare
    right = [(0.5 + upper, top), (0.5 + half * 0.98, top + eave * 0.55), (0.5 + reach, top + eave - lift)]
    left = [(1.0 - x, y) for x, y in right[::-1]]
    under = [(0.5 - half * 0.8, top + eave * 1.05), (0.5 + half * 0.8, top + eave * 1.05)]
    b.fill([*right, *under[::-1], *left], b.roof_colour)
    side = 1 if b.shadow > 0 else -1
    dark = [(0.5 + side * (x - 0.5), y) for x, y in [*right, under[1], (0.5 + half * 0.3, top + eave)]]
    b.fill([*dark, (0.5 + side * upper * 0.35, top)], (0.08, 0.05, 0.25), opacity=0.18)
    b.stroke([left[0], *under, right[-1]], b.trim, b.band * 0.8)


def _bridge(b: Builder) -> Anchors:
    spans = b.identity["tiers"]
    half = b.between(0.36, 0.46, "width")
    deck = BASE - b.between(0.20, 0.28, "height")
    thick = 0.05
    tower = b.between(0.045, 0.065, "detail")
    inner = half - tower * 2
    span = 2 * inner / spans
    roof_height = b.between(0.09, 0.16, "roof_height")
    tops = [deck - b.between(0.19, 0.28, "height") - side * b.identity["asymmetry"] * 0.03 for side in (-1, 1)]
    sag = [
        (0.5 + inner * t, deck - 0.05 - (0.10 + 0.06 * b.identity["setback"]) * t * t) for t in np.linspace(-1, 1, 13)
    ]
    b.stroke(sag, b.trim, 0.016)
    for x, y in sag[1:-1:2]:
        b.stroke([(x, y), (x, deck)], b.trim, 0.009)
    pier = min(0.022, span * 0.12)
    for i in range(spans):
        left = 0.5 - inner + i * span
        hole = arched(left + pier, left + span - pier, deck + thick, BASE)[:-2]
        outline = [(left, deck), (left, BASE), (left + pier, BASE), *hole, (left + span - pier, BASE)]
        b.fill([*outline, (left + span, BASE), (left + span, deck)], b.wall)
    b.block(0.5 - inner, 0.5 + inner, deck, deck + thick, crown=True)
    tips = []
    for side, top in zip((-1, 1), tops, strict=True):
        x = 0.5 + side * (half - tower)
        b.block(x - tower, x + tower, top, BASE, crown=True)
        b.windows(x - tower, x + tower, top + b.band, deck, columns=1, rows=b.identity["window_columns"])
        b.door(x, scale=0.75)
        tips.append((x, b.roof(x - tower, x + tower, top, roof_height)))
    apex = min(tips, key=lambda point: point[1])
    return Anchors(apex, (apex[0], min(tops) + 0.06, 0.042))


def _pyramid(b: Builder) -> Anchors:
    steps = b.identity["tiers"]
    half = b.between(0.34, 0.44, "width")
    total = b.between(0.40, 0.50, "height")
    summit = b.between(0.06, 0.12, "detail")
    slope = (half - summit) / steps
    tall = total / steps
    ledge = slope * b.between(0.25, 0.55, "setback") if steps > 1 else 0.0
    for step in range(steps):
        reach = half - step * slope
        low = BASE - step * tall
        b.block(0.5 - reach, 0.5 + reach, low - tall, low, taper=slope - ledge, crown=True)
        if step or steps == 1:
            narrow = reach - slope + ledge if steps > 1 else reach * 0.5
            b.windows(0.5 - narrow, 0.5 + narrow, low - tall + b.band, low - (0.16 if steps == 1 else 0))
    stair = 0.07
    b.fill(
        [(0.5 - stair, BASE), (0.5 + stair, BASE), (0.5 + stair * 0.7, BASE - tall), (0.5 - stair * 0.7, BASE - tall)],
        b.trim,
    )
    b.door(0.5)
    tip = b.roof(0.5 - summit, 0.5 + summit, BASE - total, b.between(0.09, 0.16, "roof_height"))
    return Anchors((0.5, tip), (0.5, BASE - total + 0.07, 0.045))


def _skyscraper(b: Builder) -> Anchors:
    half = b.between(0.12, 0.20, "width")
    top = BASE - b.between(0.48, 0.58, "height")
    rows = (6, 3, 2, 2)[b.identity["tiers"] - 1]
    columns = b.identity["window_columns"] + 1
    left, right = b.stack(0.5 - half, 0.5 + half, top, BASE, rows=rows, columns=columns, stepped=0.8)
    b.door(0.5)
    tip = b.roof(left, right, top, b.between(0.09, 0.16, "roof_height"))
    return Anchors(((left + right) / 2, tip), ((left + right) / 2, top + 0.065, (right - left) * 0.2))


def _windmill(b: Builder) -> Anchors:
    half = b.between(0.13, 0.20, "width")
    top = BASE - b.between(0.36, 0.46, "height")
    taper = half * 0.32 / b.identity["tiers"]
    left, right = b.stack(0.5 - half, 0.5 + half, top, BASE, taper=taper)
    b.door(0.5)
    centre = (left + right) / 2
    tip = b.roof(left, right, top, b.between(0.10, 0.16, "roof_height"))
    hub = np.array([centre, top - 0.01])
    # Dark sails would be lost before a night sky.
    cloth = shade(b.trim, 0.28) if sum(b.trim) < 1.5 else b.trim
    length, broad = b.between(0.24, 0.31, "height"), b.between(0.026, 0.046, "setback")
    for angle in b.between(0.15, 1.4, "detail") + np.arange(4) * np.pi / 2:
        along = np.array([np.cos(angle), np.sin(angle)])
        beside = np.array([-along[1], along[0]])
        near, far = hub + along * length * 0.25, hub + along * length
        b.fill([near, far, far + beside * 2 * broad, near + beside * 2 * broad], cloth)
        middle = hub + along * length * 0.62
        b.stroke([middle, middle + beside * 2 * broad], shade(b.roof_colour, -0.2), 0.010)
        b.stroke([hub, far], shade(b.roof_colour, -0.35), 0.016)
    b.fill(ellipse(hub[0], hub[1], 0.026, 0.026, points=12), b.roof_colour)
    return Anchors((centre, tip), (centre, top + 0.10, 0.045))


def _arch(b: Builder) -> Anchors:
    half = b.between(0.24, 0.34, "width")
    tiers = b.identity["tiers"]
    top = BASE - b.between(0.32, 0.40, "height")
    opening = half * b.between(0.36, 0.56, "detail")
    crown = top + 0.05
    b.block(0.5 - half, 0.5 - opening, top, BASE)
    b.block(0.5 + opening, 0.5 + half, top, BASE)
    hole = arched(0.5 - opening, 0.5 + opening, crown, BASE)[:-2]
    b.fill([(0.5 - opening - 0.004, top), *hole, (0.5 + opening + 0.004, top)], b.wall)
    b.stroke(hole, b.trim, 0.022)
    side = (half - opening) / 2
    for x in (0.5 - half + side, 0.5 + half - side):
        b.windows(x - side, x + side, crown, BASE - 0.16, columns=1, rows=b.identity["window_columns"])
        b.door(x, scale=min(0.9, side / 0.07))
    reach = half + 0.025
    for tier in range(tiers):
        low = top - tier * 0.065
        b.block(0.5 - reach, 0.5 + reach, low - 0.065, low + 0.005, crown=tier == tiers - 1)
        reach -= half * b.between(0.07, 0.14, "setback")
    low = top - tiers * 0.065
    reach = half * b.between(0.45, 0.60, "setback")
    tip = b.roof(0.5 - reach, 0.5 + reach, low, b.between(0.10, 0.16, "roof_height"))
    return Anchors((0.5, tip), (0.5, top - 0.01, 0.05))


def _dome(b: Builder) -> Anchors:
    half = b.between(0.26, 0.35, "width")
    top = BASE - b.between(0.24, 0.34, "height")
    if b.identity["detail"] > 0.5:
        slim = b.between(0.02, 0.045, "detail")
        for x in (0.5 - half - slim, 0.5 + half + slim):
            b.block(x - slim, x + slim, top - 0.09, BASE)
            b.roof(x - slim, x + slim, top - 0.09, 0.09)
    left, right = b.stack(0.5 - half, 0.5 + half, top, BASE, stepped=0.5)
    b.door(0.5, scale=1.1)
    centre, reach = (left + right) / 2, (right - left) * b.between(0.30, 0.40, "setback")
    b.block(centre - reach * 0.92, centre + reach * 0.92, top - 0.045, top)
    tip = b.roof(centre - reach, centre + reach, top - 0.04, b.between(0.20, 0.28, "roof_height"))
    return Anchors((centre, tip), (centre, top - 0.03, 0.05))


def _lighthouse(b: Builder) -> Anchors:
    half = b.between(0.105, 0.165, "width")
    top = BASE - b.between(0.40, 0.50, "height")
    left, right = b.stack(0.5 - half, 0.5 + half, top, BASE, taper=half * 0.34 / b.identity["tiers"], stepped=0.0)
    b.door(0.5)
    centre, reach = (left + right) / 2, (right - left) / 2
    lamp = b.between(0.05, 0.08, "detail")
    b.fill(rectangle(centre - reach * 0.68, top - lamp, centre + reach * 0.68, top), LAMPLIGHT, glow=True)
    for across in (-0.66, 0.0, 0.66):
        b.stroke([(centre + reach * across, top - lamp), (centre + reach * across, top)], b.roof_colour, 0.012)
    b.fill(rectangle(centre - reach * 1.35, top - 0.012, centre + reach * 1.35, top + 0.014), b.roof_colour)
    tip = b.roof(centre - reach * 0.72, centre + reach * 0.72, top - lamp, b.between(0.09, 0.15, "roof_height"))
    return Anchors((centre, tip), (centre, top + 0.075, 0.042))


def _church(b: Builder) -> Anchors:
    side = 1 if b.identity["asymmetry"] > 0 else -1
    half = b.between(0.085, 0.125, "width")
    long = b.between(0.30, 0.42, "width")
    tower = 0.5 - side * (long / 2)
    near, far = tower + side * half * 0.6, tower + side * (half * 0.6 + long)
    nave_left, nave_right = min(near, far), max(near, far)
    nave_top = BASE - b.between(0.17, 0.24, "detail")
    b.block(nave_left, nave_right, nave_top, BASE)
    first, last = (nave_left + half * 0.4, nave_right) if side > 0 else (nave_left, nave_right - half * 0.4)
    b.windows(first, last, nave_top + 0.02, BASE - 0.03, columns=b.identity["window_columns"] + 1)
    ridge = nave_top - b.between(0.09, 0.16, "roof_height")
    slope = 0.06 * side
    b.fill([(near, nave_top), (near, ridge), (far - slope, ridge), (far + 0.02 * side, nave_top)], b.roof_colour)
    top = BASE - b.between(0.36, 0.46, "height")
    left, right = b.stack(tower - half, tower + half, top, BASE)
    b.door(tower, scale=0.9)
    tip = b.roof(left, right, top, b.between(0.15, 0.23, "roof_height"))
    return Anchors(((left + right) / 2, tip), ((left + right) / 2, top + 0.07, 0.042))


KIND_FUNCTIONS: dict[str, Callable[[Builder], Anchors]] = {
    "tower": _tower,
    "castle": _castle,
    "temple": _temple,
    "pagoda": _pagoda,
    "bridge": _bridge,
    "pyramid": _pyramid,
    "skyscraper": _skyscraper,
    "windmill": _windmill,
    "arch": _arch,
    "dome": _dome,
    "lighthouse": _lighthouse,
    "church": _church,
}
KINDS: tuple[str, ...] = tuple(KIND_FUNCTIONS)


def _flag_and_ornament(b: Builder, anchors: Anchors) -> None:
    (x, y), (clock_x, clock_y, clock_size) = anchors
    ornament, size = b.identity["ornament"], b.identity["ornament_size"]
    if ornament == "clock":
        radius = min(max(clock_size, 0.04), 0.055) * (0.9 + 0.25 * size)
        b.fill(ellipse(clock_x, clock_y, radius + 0.014, radius + 0.014, points=18), (0.20, 0.17, 0.20))
        b.fill(ellipse(clock_x, clock_y, radius, radius, points=18), (1.0, 0.98, 0.90), glow=b.lit)
        hands = [(clock_x, clock_y - radius * 0.75), (clock_x, clock_y), (clock_x + radius * 0.6, clock_y)]
        b.stroke(hands, (0.1, 0.1, 0.12), 0.014)
    if b.identity["flag"] != "no":
        tall, wide = b.between(0.10, 0.13, "flag_size"), b.between(0.08, 0.12, "flag_size")
        b.stroke([(x, y + 0.02), (x, y - tall)], (0.36, 0.30, 0.28), 0.013)
        deep = wide * 0.62
        cloth = [(0, 0), (0.5, 0.10), (1, 0), (1, 1), (0.5, 1.10), (0, 1)]
        colour = FLAG_COLOURS[b.identity["flag"]]
        b.fill([(x + u * wide, y - tall + v * deep) for u, v in cloth], colour)
    if ornament == "golden ball":
        radius = 0.022 + 0.012 * size
        b.fill(ellipse(x, y - radius * 0.4, radius + 0.005, radius + 0.005, points=14), shade(GOLD, -0.35))
        b.fill(ellipse(x, y - radius * 0.4, radius, radius, points=14), GOLD)


def _build(builder: Builder) -> None:
    _flag_and_ornament(builder, KIND_FUNCTIONS[builder.identity["kind"]](builder))


def _sky(canvas: Canvas, nuisance: dict[str, Any], rng: np.random.Generator) -> None:
    hour, weather = nuisance["hour"], nuisance["weather"]
    gray = {"clear": 0.0, "cloudy": 0.28, "rain": 0.5, "snow": 0.45}[weather]
    dull = {"day": (0.74, 0.79, 0.84), "sunset": (0.72, 0.60, 0.60), "night": (0.19, 0.21, 0.29)}
    top, bottom = (
        mix(_varied(c, nuisance["sky_hue"], 0.0), dull.get(hour, (0.80, 0.78, 0.82)), gray) for c in SKIES[hour]
    )
    canvas.gradient(top, bottom, until=0.95)
    x, y = nuisance["sun"]
    if hour == "night" and weather in ("clear", "cloudy"):
        for star_x, star_y in rng.random((9, 2)) * (1.0, 0.55):
            canvas.polygon(ellipse(star_x, star_y, 0.008, 0.008, points=6), (0.92, 0.92, 0.80))
        canvas.polygon(ellipse(x, y, 0.055, 0.055), (0.98, 0.96, 0.84))
        canvas.polygon(ellipse(x + 0.026, y - 0.012, 0.047, 0.047), mix(top, bottom, y))
    elif weather == "clear":
        y = y + (0.30 if hour in ("sunset", "dawn") else 0.0)
        disc = (1.0, 0.93, 0.55) if hour == "day" else (1.0, 0.86, 0.56)
        canvas.polygon(ellipse(x, y, 0.098, 0.098), disc, opacity=0.30)
        canvas.polygon(ellipse(x, y, 0.066, 0.066), disc)
    if weather != "clear":
        cloud = shade(mix(top, bottom, 0.7), 0.45 if hour != "night" else 0.14)
        for _ in range(3):
            _cloud(canvas, float(rng.uniform(0, 1)), float(rng.uniform(0.06, 0.34)), cloud, rng)


def _cloud(canvas: Canvas, x: float, y: float, colour: Colour, rng: np.random.Generator) -> None:
    size = float(rng.uniform(0.07, 0.12))
    for offset, radius in ((-0.9, 0.42), (0.0, 0.62), (0.85, 0.46)):
        canvas.polygon(ellipse(x + offset * size, y - radius * size * 0.4, radius * size, radius * size), colour)
    canvas.polygon(ellipse(x, y, size * 1.5, size * 0.34), colour)


def _background(canvas: Canvas, nuisance: dict[str, Any], tint: Colour, rng: np.random.Generator) -> None:
    """What stands far off: pale towards the sky, so that the building keeps its outline."""
    kind = nuisance["background"].split()[-2]
    haze = SKIES[nuisance["hour"]][1]
    horizon = BASE - 0.035

    def far(colour: Colour) -> Colour:
        return mix((colour[0] * tint[0], colour[1] * tint[1], colour[2] * tint[2]), haze, 0.45)

    starts = np.linspace(-0.25, 1.15, 7) + rng.uniform(-0.06, 0.06, 7)
    heights = rng.uniform(0.10, 0.20, 7)
    for i, (x, tall) in enumerate(zip(starts, heights, strict=True)):
        if kind == "hills" and i % 2 == 0:
            green = shade((0.42, 0.62, 0.40), 0.06 * (i % 3))
            canvas.polygon(ellipse(x + 0.1, horizon + 0.04, 0.34, tall + 0.02), far(green))
        elif kind == "mountains":
            peak = (x + 0.1, horizon - tall * 1.7)
            slope = [(x - 0.12, horizon + 0.04), peak, (x + 0.32, horizon + 0.04)]
            canvas.polygon(slope, far(shade((0.44, 0.48, 0.62), 0.10 * (i % 2))))
            cap = [(peak[0] + dx * 0.25, peak[1] + 0.25 * (horizon + 0.04 - peak[1])) for dx in (-0.22, 0.22)]
            canvas.polygon([cap[0], peak, cap[1]], far((0.97, 0.98, 1.0)))
        elif kind == "trees":
            for step, size in ((0.0, 0.085), (0.1, 0.07)):
                crown = ellipse(x + step, horizon - 0.03, size, tall * 0.6 + size * 0.3, points=14)
                canvas.polygon(crown, far((0.24, 0.48 + 0.06 * (i % 2), 0.30)))
        elif kind == "city":
            wide = 0.05 + tall * 0.25
            colour = far(shade((0.46, 0.50, 0.60), 0.12 * (i % 3)))
            canvas.polygon(rectangle(x, horizon - tall * 1.3, x + wide, BASE), colour)
            canvas.polygon(rectangle(x + wide + 0.01, horizon - tall * 0.8, x + 2 * wide, BASE), colour)


def _ground(canvas: Canvas, nuisance: dict[str, Any], tint: Colour, rng: np.random.Generator) -> None:
    kind = nuisance["ground"]

    def lit(colour: Colour) -> Colour:
        return (colour[0] * tint[0], colour[1] * tint[1], colour[2] * tint[2])

    colour = GROUNDS[kind]
    near = BASE + 0.03
    canvas.polygon(rectangle(-0.4, BASE - 0.04, 1.4, 1.5), lit(shade(colour, -0.08)))
    if kind == "water":
        canvas.polygon(rectangle(-0.4, BASE - 0.04, 1.4, near), lit((0.66, 0.68, 0.56)))
        canvas.polygon(rectangle(-0.4, near, 1.4, near + 0.015), lit((0.48, 0.46, 0.42)))
        ripple = lit(shade(colour, 0.40))
        for x, y, wide in rng.uniform((-0.1, near + 0.03, 0.05), (1.0, 1.0, 0.13), (9, 3)):
            canvas.polygon(rectangle(x, y, x + wide, y + 0.011), ripple)
        return
    canvas.polygon(rectangle(-0.4, near, 1.4, 1.5), lit(colour))
    if kind == "stone plaza":
        joint = lit(shade(colour, -0.16))
        for x in np.linspace(-0.9, 1.9, 13):
            canvas.line([(0.5 + (x - 0.5) * 0.7, near), (x, 1.05)], joint, 0.009)
        for y in (near, near + 0.06):
            canvas.line([(-0.4, y), (1.4, y)], joint, 0.009)
    else:
        spot = lit(shade(colour, -0.16 if kind == "grass" else -0.09))
        for x, y, wide in rng.uniform((-0.1, near + 0.02, 0.03), (1.0, 1.0, 0.09), (7, 3)):
            canvas.polygon(ellipse(x, y, wide, 0.010, points=10), spot)


def _front(canvas: Canvas, nuisance: dict[str, Any], tint: Colour, rng: np.random.Generator) -> None:
    """Passers-by or a tree, small and towards an edge: they must not hide what tells the building."""

    def lit(red: float, green: float, blue: float) -> Colour:
        return (red * tint[0], green * tint[1], blue * tint[2])

    if nuisance["front"] == "people in front":
        for x in rng.uniform(0.12, 0.88, 2):
            low = float(rng.uniform(BASE + 0.06, BASE + 0.10))
            coat = lit(*(float(v) for v in rng.uniform(0.15, 0.85, 3)))
            canvas.polygon(rectangle(x - 0.013, low - 0.045, x + 0.013, low), lit(0.18, 0.18, 0.25))
            canvas.polygon(ellipse(x, low - 0.065, 0.023, 0.036, points=12), coat)
            canvas.polygon(ellipse(x, low - 0.112, 0.018, 0.019, points=12), lit(0.86, 0.66, 0.52))
    elif nuisance["front"] == "a tree in front":
        x = float(rng.choice([rng.uniform(0.03, 0.13), rng.uniform(0.87, 0.97)]))
        canvas.polygon(rectangle(x - 0.016, BASE - 0.06, x + 0.016, BASE + 0.06), lit(0.42, 0.28, 0.18))
        canvas.polygon(ellipse(x, BASE - 0.13, 0.080, 0.11), lit(0.22, 0.50, 0.26))
        canvas.polygon(ellipse(x - 0.02, BASE - 0.16, 0.045, 0.06), lit(0.32, 0.60, 0.32))


def _falling(canvas: Canvas, nuisance: dict[str, Any], rng: np.random.Generator) -> None:
    if nuisance["weather"] == "rain":
        for x, y in rng.random((26, 2)):
            canvas.line([(x, y), (x - 0.018, y + 0.06)], (0.84, 0.90, 0.98), 0.007, opacity=0.7)
    elif nuisance["weather"] == "snow":
        for x, y, size in rng.uniform((0, 0, 0.008), (1, 1, 0.014), (34, 3)):
            canvas.polygon(ellipse(x, y, size, size, points=8), (1.0, 1.0, 1.0))


def draw(identity: dict[str, Any], nuisance: dict[str, Any], size: int) -> Image.Image:
    """The building `identity` in the view `nuisance`."""
    canvas = Canvas(size)
    rng = np.random.default_rng(nuisance["scatter"])
    tint = HOUR_TINTS[nuisance["hour"]]
    if nuisance["weather"] in ("rain", "cloudy"):
        tint = mix(tint, (0.72, 0.76, 0.82), 0.25)
    _sky(canvas, nuisance, rng)
    canvas.place(
        turn=nuisance["turn"],
        scale=nuisance["scale"],
        stretch=nuisance["stretch"],
        shift=nuisance["shift"],
        about=(0.5, 0.66),
        flip=nuisance["flip"],
    )
    view = canvas.pose.copy()
    _background(canvas, nuisance, tint, rng)
    _ground(canvas, nuisance, tint, rng)
    shadow = -1.0 if (nuisance["sun"][0] > 0.5) != nuisance["flip"] else 1.0
    lit = nuisance["hour"] == "night"
    extent = Extent()
    _build(Builder(extent, identity, tint, lit, shadow))
    wide, tall = extent.high[0] - extent.low[0], BASE - extent.low[1]
    # Proportions stay; the whole is made as large as the frame wants it, flag and all.
    fit = min(float(np.clip(1.0, LEAST_HEIGHT / tall, MOST_HEIGHT / tall)), MOST_WIDTH / wide)
    centre = (extent.low[0] + extent.high[0]) / 2
    foot = ellipse(0.5 + 0.04 * shadow, BASE + 0.004, wide * fit * 0.56, 0.022, points=20)
    canvas.polygon(foot, (0.10, 0.10, 0.20), opacity=0.16)
    # A lean is a shear about the foot: the building stays on the ground.
    lean = identity["lean"]
    stance = [[fit, -lean * fit, 0.5 - centre * fit + lean * BASE * fit], [0.0, fit, BASE * (1 - fit)], [0.0, 0.0, 1.0]]
    canvas.pose = view @ np.array(stance)
    _build(Builder(canvas, identity, tint, lit, shadow))
    canvas.pose = view
    _front(canvas, nuisance, tint, rng)
    canvas.place()
    _falling(canvas, nuisance, rng)
    return canvas.image()
