"""How a cartoon face is drawn: one short function a part, back to front, from unit-interval identity numbers.

`stamina_diffusion.world.faces` decides what a face is; this module only turns those numbers into shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stamina_diffusion.world.canvas import Canvas, Colour, ellipse, mix, rectangle, shade, smooth

CENTRE = 0.5
MIDDLE = 0.50

SKIN_TONES: tuple[Colour, ...] = (
    (1.00, 0.88, 0.80),
    (0.97, 0.80, 0.68),
    (0.88, 0.68, 0.52),
    (0.74, 0.52, 0.37),
    (0.57, 0.38, 0.26),
    (0.42, 0.28, 0.20),
)
HAIR_COLOURS: dict[str, Colour] = {
    "black": (0.12, 0.11, 0.13),
    "dark brown": (0.30, 0.18, 0.12),
    "light brown": (0.56, 0.36, 0.20),
    "blond": (0.93, 0.77, 0.40),
    "red": (0.78, 0.30, 0.12),
    "gray": (0.58, 0.59, 0.62),
    "white": (0.94, 0.93, 0.91),
    "blue": (0.20, 0.42, 0.85),
    "pink": (0.95, 0.45, 0.68),
    "green": (0.22, 0.65, 0.36),
}
EYE_COLOURS: dict[str, Colour] = {
    "brown": (0.38, 0.21, 0.10),
    "blue": (0.16, 0.48, 0.86),
    "green": (0.18, 0.62, 0.30),
    "gray": (0.50, 0.55, 0.60),
    "amber": (0.80, 0.53, 0.12),
}
LIP_COLOURS: dict[str, Colour | None] = {
    "natural": None,
    "pink": (0.93, 0.42, 0.55),
    "red": (0.80, 0.10, 0.16),
    "purple": (0.50, 0.16, 0.42),
}
FRAME_COLOURS: dict[str, Colour] = {
    "black": (0.10, 0.10, 0.12),
    "red": (0.83, 0.14, 0.16),
    "blue": (0.14, 0.32, 0.80),
    "gold": (0.85, 0.64, 0.16),
    "white": (0.97, 0.97, 0.97),
}
CLOTH_COLOURS: dict[str, Colour] = {
    "black": (0.18, 0.18, 0.21),
    "white": (0.95, 0.95, 0.95),
    "gray": (0.55, 0.57, 0.60),
    "red": (0.82, 0.20, 0.20),
    "orange": (0.95, 0.55, 0.18),
    "yellow": (0.97, 0.82, 0.28),
    "green": (0.25, 0.60, 0.36),
    "blue": (0.22, 0.42, 0.78),
    "purple": (0.52, 0.32, 0.70),
    "pink": (0.95, 0.58, 0.70),
}
BACKGROUNDS: dict[str, Colour] = {
    "blue": (0.55, 0.76, 0.95),
    "green": (0.62, 0.86, 0.64),
    "yellow": (0.99, 0.90, 0.55),
    "pink": (0.99, 0.76, 0.83),
    "white": (0.97, 0.97, 0.98),
    "gray": (0.74, 0.76, 0.79),
    "orange": (0.99, 0.74, 0.48),
    "purple": (0.77, 0.68, 0.93),
}
EARRING_COLOURS: dict[str, Colour] = {
    "gold": (0.97, 0.76, 0.18),
    "silver": (0.88, 0.90, 0.93),
    "red": (0.88, 0.12, 0.20),
    "blue": (0.15, 0.38, 0.90),
}
EAR_COVERING = ("bob", "wavy", "afro")
FALLING = ("straight", "wavy", "bob")
# What still shows of a tall or combed style under a hat is only its short sides.
FLAT_UNDER_HAT = ("mohawk", "spiky", "bun", "side-parted")


def hair_shown(identity: dict[str, Any]) -> str:
    """The hair style that can be seen, given the hat."""
    style = identity["hair_style"]
    return "cropped" if identity["hat"] != "none" and style in FLAT_UNDER_HAT else style


def _warmed(colour: Colour, warmth: float) -> Colour:
    """`colour` shifted towards red and yellow (warmth > 0) or pink (warmth < 0)."""
    return (colour[0], colour[1] * (1 + 0.022 * warmth), colour[2] * (1 - 0.06 * warmth))


def skin_colour(identity: dict[str, Any]) -> Colour:
    position = identity["skin_tone"] * (len(SKIN_TONES) - 1)
    low = min(int(position), len(SKIN_TONES) - 2)
    tone = mix(SKIN_TONES[low], SKIN_TONES[low + 1], position - low)
    return _warmed(tone, 2 * identity["skin_warmth"] - 1)


@dataclass(frozen=True)
class Face:
    """Measures that several parts share, in unit coordinates of the upright head."""

    canvas: Canvas
    identity: dict[str, Any]
    nuisance: dict[str, Any]
    width: float
    upper: float
    lower: float
    skin: Colour
    hair: Colour
    line: Colour
    front: float
    eye_y: float
    eye_rx: float
    eye_ry: float
    eye_dx: float
    nose_y: float
    mouth_y: float
    brim: float

    @property
    def top(self) -> float:
        return MIDDLE - self.upper

    @property
    def chin(self) -> float:
        return MIDDLE + self.lower

    def across(self, offset: float, depth: float = 1.0) -> float:
        """The x of a feature `offset` right of the nose line: a turned head narrows its far side."""
        narrowing = 1.0 - 0.16 * self.nuisance["yaw"] * np.sign(offset)
        return CENTRE + self.front * depth + offset * narrowing

    def outline(self, start: float, stop: float, pad: float = 0.0, points: int = 30) -> np.ndarray:
        """The head's outline between two angles (0 right temple, pi/2 crown, -pi/2 chin), `pad` outside it."""
        angle = np.linspace(start, stop, points)
        cos, sin = np.cos(angle), np.sin(angle)
        power = np.where(sin < 0, 1.22 - 0.62 * self.identity["jaw"], 1.0)
        x = (self.width + pad) * np.sign(cos) * np.abs(cos) ** power
        y = -sin * np.where(sin < 0, self.lower + pad, self.upper + pad)
        return np.stack([CENTRE + x, MIDDLE + y], axis=1)


def make_face(canvas: Canvas, identity: dict[str, Any], nuisance: dict[str, Any]) -> Face:
    width = 0.178 + 0.062 * identity["head_width"]
    upper, lower = 0.245, 0.235 + 0.05 * identity["head_height"]
    skin = skin_colour(identity)
    hair = shade(HAIR_COLOURS[identity["hair_colour"]], 0.24 * (identity["hair_shade"] - 0.5))
    eye_y = MIDDLE + 0.005 + 0.022 * (identity["eye_height"] - 0.5)
    eye_dx = width * (0.40 + 0.17 * identity["eye_spacing"])
    eye_rx = min(0.037 + 0.022 * identity["eye_size"], eye_dx - 0.014)
    eye_ry = (0.026 + 0.016 * identity["eye_size"]) * (0.72 + 0.45 * identity["eye_roundness"])
    mouth_y = MIDDLE + lower * (0.66 + 0.06 * identity["mouth_height"])
    nose_y = min(eye_y + 0.062 + 0.068 * identity["nose_length"], mouth_y - 0.036)
    brow_reach = eye_y - eye_ry - 0.05
    brim = min(MIDDLE - upper + 0.095, brow_reach)
    line = mix(shade(skin, -0.72), (0.12, 0.06, 0.06), 0.4)
    return Face(
        canvas=canvas, identity=identity, nuisance=nuisance, width=width, upper=upper, lower=lower, skin=skin,
        hair=hair, line=line, front=0.034 * nuisance["yaw"], eye_y=eye_y, eye_rx=eye_rx, eye_ry=eye_ry,
        eye_dx=eye_dx, nose_y=nose_y, mouth_y=mouth_y, brim=brim,
    )  # fmt: skip


def draw_background(canvas: Canvas, nuisance: dict[str, Any]) -> None:
    colour = shade(BACKGROUNDS[nuisance["background"]], nuisance["background_shade"])
    canvas.gradient(shade(colour, 0.16), shade(colour, -0.07))


def draw_clothes(face: Face) -> None:
    canvas, kind = face.canvas, face.nuisance["clothing"]
    colour = shade(CLOTH_COLOURS[face.nuisance["clothing_colour"]], face.nuisance["clothing_shade"])
    dark, light = shade(colour, -0.22), shade(colour, 0.45)
    if kind == "hoodie":
        canvas.polygon(ellipse(0.5, 0.885, 0.21, 0.105), dark)
    neck = 0.088 + 0.02 * face.identity["head_width"]
    canvas.polygon(rectangle(0.5 - neck, 0.62, 0.5 + neck, 0.95), shade(face.skin, -0.16))
    body = [(0.06, 1.35), (0.09, 1.02), (0.19, 0.915), (0.5 - neck, 0.865)]
    mirrored = [(1.0 - x, y) for x, y in reversed(body)]
    canvas.polygon(smooth([*body, (0.5, 0.90), *mirrored], steps=4), colour)
    if kind == "t-shirt":
        canvas.polygon(ellipse(0.5, 0.875, neck + 0.02, 0.075), dark)
        canvas.polygon(ellipse(0.5, 0.865, neck + 0.005, 0.066), shade(face.skin, -0.10))
    elif kind == "shirt":
        canvas.polygon([(0.5 - neck, 0.85), (0.5 + neck, 0.85), (0.5, 0.985)], shade(face.skin, -0.10))
        for side in (-1, 1):
            collar = [(0.5 + side * neck, 0.835), (0.5 + side * (neck + 0.055), 0.885), (0.5 + side * 0.085, 0.985)]
            canvas.polygon([*collar, (0.5, 0.965)], light)
        canvas.line([(0.5, 0.97), (0.5, 1.1)], dark, 0.012)
    elif kind == "sweater":
        canvas.polygon(rectangle(0.5 - neck - 0.012, 0.815, 0.5 + neck + 0.012, 0.885), shade(colour, 0.16))
        canvas.polygon(ellipse(0.5, 0.885, neck + 0.012, 0.022), shade(colour, 0.16))
    else:
        canvas.polygon(ellipse(0.5, 0.87, neck + 0.045, 0.062), shade(colour, 0.10))
        canvas.polygon(ellipse(0.5, 0.862, neck + 0.004, 0.050), shade(face.skin, -0.10))
        for side in (-1, 1):
            canvas.line([(0.5 + side * 0.06, 0.92), (0.5 + side * 0.065, 1.02)], shade(colour, 0.7), 0.014)


def _scallops(face: Face, start: float, stop: float, pad: float, bump: float, count: int) -> np.ndarray:
    """An outline around the head made of `count` round bumps."""
    angle = np.linspace(start, stop, count * 5 + 1)
    radius = pad + bump * np.abs(np.sin((angle - start) / (stop - start) * np.pi * count))
    x = CENTRE + (face.width + radius) * np.cos(angle)
    return np.stack([x, MIDDLE - 0.02 - (face.upper - 0.02 + radius) * np.sin(angle)], axis=1)


def _under_hat(face: Face, points: np.ndarray) -> np.ndarray:
    """`points` with all above the ears squeezed, so that nothing rises over the hat's brim."""
    if face.identity["hat"] == "none":
        return points
    ears, limit, highest = MIDDLE + 0.06, face.brim - 0.02, float(points[:, 1].min())
    squeeze = min(1.0, (ears - limit) / max(ears - highest, 1e-6))
    y = np.where(points[:, 1] < ears, ears - (ears - points[:, 1]) * squeeze, points[:, 1])
    return np.stack([points[:, 0], y], axis=1)


def _fall_bottom(face: Face) -> float:
    """Where hair that falls past the ears ends."""
    length = face.identity["hair_length"]
    return 0.66 + 0.10 * length if hair_shown(face.identity) == "bob" else 0.80 + 0.18 * length


def draw_hair_back(face: Face) -> None:
    style, volume, length = hair_shown(face.identity), face.identity["hair_volume"], face.identity["hair_length"]
    back, side = shade(face.hair, -0.16), 1 if face.identity["hair_side"] > 0.5 else -1
    if style == "afro":
        shape = _scallops(face, -0.75, np.pi + 0.75, 0.075 + 0.055 * volume, 0.016, 13)
        face.canvas.polygon(_under_hat(face, shape), face.hair)
    elif style == "curly":
        shape = _scallops(face, -0.45 - 0.5 * length, np.pi + 0.45 + 0.5 * length, 0.012 + 0.03 * volume, 0.04, 9)
        face.canvas.polygon(_under_hat(face, shape), back)
    elif style in FALLING:
        reach = face.width + 0.035 + 0.03 * volume
        bottom = _fall_bottom(face)
        crown = face.outline(np.pi, 0.0, 0.02 + 0.02 * volume, 14)
        tail = [(CENTRE + reach, 0.62), (CENTRE + reach * 0.97, bottom), (CENTRE - reach * 0.97, bottom)]
        face.canvas.polygon(_under_hat(face, np.vstack([crown, tail, [(CENTRE - reach, 0.62)]])), back)
    elif style == "ponytail":
        end = 0.74 + 0.20 * length
        out = face.width + 0.075 + 0.035 * volume
        tail = [(0.06, 0.30), (out * 0.85, 0.25), (out + 0.03, 0.42), (out + 0.01, end - 0.10), (out - 0.03, end)]
        tail += [(out - 0.085, end - 0.12), (face.width - 0.02, 0.45)]
        shape = smooth([(CENTRE + side * x, y) for x, y in tail], steps=5)
        face.canvas.polygon(_under_hat(face, shape), back)
    elif style == "pigtails":
        size, drop = 0.062 + 0.022 * volume, 0.10 + 0.14 * length
        for sign in (-1, 1):
            x = CENTRE + sign * (face.width + 0.045)
            tail = [(x - sign * 0.02, 0.41), (x + sign * size, 0.45), (x + sign * size * 0.9, 0.50 + drop)]
            tail += [(x + sign * 0.01, 0.58 + drop), (x - sign * size * 0.6, 0.50 + drop)]
            face.canvas.polygon(smooth(tail, steps=5), back)
    elif style == "bun":
        size = 0.06 + 0.03 * volume
        centre = face.top - size * 0.62
        face.canvas.polygon(ellipse(CENTRE, centre, size * 1.12, size), face.hair)
        face.canvas.line(ellipse(CENTRE, centre, size * 0.6, size * 0.5)[14:26], shade(face.hair, 0.22), 0.012)


def draw_locks(face: Face) -> None:
    """The hair that falls in front of the shoulders on both sides of the face."""
    style, volume = hair_shown(face.identity), face.identity["hair_volume"]
    if style not in FALLING:
        return
    bottom = _fall_bottom(face)
    rows = np.linspace(0.0, 1.0, 13)
    y = face.top + 0.06 + rows * (bottom - face.top - 0.06)
    bulge = np.sin(np.minimum(rows * 1.7, 1.0) * np.pi / 2)
    outer = face.width * 0.72 + (face.width * 0.28 + 0.03 + 0.035 * volume) * bulge
    inner = np.full_like(rows, face.width * 0.74)
    if style == "wavy":
        outer = outer + (0.014 + 0.014 * volume) * np.sin(rows * 15.0) * np.minimum(rows * 3, 1)
        inner = inner + 0.016 * np.sin(rows * 15.0)
    if style == "bob":
        outer = outer - 0.05 * np.maximum(rows - 0.8, 0) / 0.2
    for side in (-1, 1):
        outline = np.concatenate(
            [np.stack([CENTRE + side * outer, y], 1), np.stack([CENTRE + side * inner, y], 1)[::-1]]
        )
        face.canvas.polygon(_under_hat(face, outline), face.hair)


def draw_ears(face: Face) -> None:
    if hair_shown(face.identity) in EAR_COVERING:
        return
    size = 0.030 + 0.034 * face.identity["ear_size"]
    y = MIDDLE + 0.035
    for side in (-1, 1):
        # The far ear of a turned head hides behind the cheek, the near one comes forward.
        x = CENTRE + side * (face.width + size * 0.28) - 0.014 * face.nuisance["yaw"]
        face.canvas.polygon(ellipse(x, y, size * 0.82, size * 1.25, points=20), shade(face.skin, -0.06))
        face.canvas.polygon(ellipse(x, y, size * 0.42, size * 0.72, points=16), shade(face.skin, -0.22))


def draw_earrings(face: Face) -> None:
    kind = face.identity["earrings"]
    if kind == "none":
        return
    size = 0.030 + 0.034 * face.identity["ear_size"]
    colour = EARRING_COLOURS[face.identity["earring_colour"]]
    for side in (-1, 1):
        x = CENTRE + side * (face.width + size * 0.32) - 0.014 * face.nuisance["yaw"]
        y = MIDDLE + 0.035 + size * 1.25
        if kind == "hoop":
            ring = ellipse(x, y + 0.028, 0.026, 0.032, points=20)
            face.canvas.line([*ring, ring[0], ring[1]], colour, 0.013)
        else:
            face.canvas.polygon(ellipse(x, y + 0.006, 0.019, 0.021, points=16), colour)


def draw_head(face: Face) -> None:
    face.canvas.polygon(face.outline(0, 2 * np.pi, points=48), face.skin)
    # A thin darker rim on the side away from the light rounds the head without hiding anything.
    side = -np.sign(face.nuisance["light_side"]) or 1.0
    rim = face.outline(-1.45, 0.5, points=16)
    inner = rim * [0.93, 1.0] + [0.07 * CENTRE, 0.0]
    shape = np.vstack([rim, inner[::-1]])
    if side < 0:
        shape = shape * [-1.0, 1.0] + [2 * CENTRE, 0.0]
    face.canvas.polygon(shape, shade(face.skin, -0.10))
    if hair_shown(face.identity) == "bald" and face.identity["hat"] == "none":
        face.canvas.polygon(
            ellipse(CENTRE - 0.07 * side, face.top + 0.06, 0.055, 0.022, turn=-0.35 * side), shade(face.skin, 0.35)
        )


def draw_marks(face: Face) -> None:
    identity = face.identity
    cheek = face.nose_y - 0.005
    if identity["blush"] > 0.72:
        rosy = mix(face.skin, (0.95, 0.35, 0.35), 0.42)
        for side in (-1, 1):
            face.canvas.polygon(ellipse(face.across(side * face.width * 0.60), cheek + 0.03, 0.042, 0.027), rosy)
    if identity["wrinkles"] > 0.8:
        crease = shade(face.skin, -0.24)
        for side in (-1, 1):
            x = face.across(side * face.width * 0.36)
            fold = [(x, cheek + 0.005), (x + side * 0.022, cheek + 0.035), (x + side * 0.024, cheek + 0.065)]
            face.canvas.line(smooth(fold, closed=False), crease, 0.011)
        for level in (0.0, 0.03):
            y = face.top + 0.125 + level
            face.canvas.line([(face.across(-0.07), y), (face.across(0.07), y)], crease, 0.010)
    if identity["freckles"] > 0.75:
        spot = mix(shade(face.skin, -0.35), (0.55, 0.22, 0.08), 0.4)
        spots = ((0.30, 0.0), (0.46, -0.012), (0.62, 0.004), (0.38, 0.026), (0.55, 0.03), (0.70, -0.02))
        for side in (-1, 1):
            for x, y in spots:
                face.canvas.polygon(
                    ellipse(face.across(side * face.width * x), cheek + y, 0.0085, 0.0085, points=8), spot
                )
    if identity["mole"] > 0.8:
        x = face.across(face.width * (1.1 * identity["mole_x"] - 0.55))
        y = face.mouth_y - 0.055 + 0.03 * identity["mole_y"]
        face.canvas.polygon(ellipse(x, y, 0.0105, 0.0105, points=10), face.line)


def draw_beard(face: Face) -> None:
    kind, size = face.identity["beard"], face.identity["beard_size"]
    if kind == "none":
        return
    colour = shade(face.hair, -0.05)
    lip = face.nose_y + 0.4 * (face.mouth_y - face.nose_y)
    if kind in ("full", "stubble"):
        pad = 0.008 + 0.055 * size if kind == "full" else 0.0
        jaw = face.outline(0.02, -np.pi - 0.02, 0.0, 30)
        depth = np.clip((jaw[:, 1] - MIDDLE) / face.lower, 0, 1)
        jaw[:, 1] += pad * depth**2
        jaw[:, 0] += (jaw[:, 0] - CENTRE) * 0.05 * depth * (kind == "full")
        w = face.width
        edge = [(-0.86 * w, MIDDLE + 0.07), (-0.62 * w, lip + 0.02), (-0.30 * w, lip), (0, lip - 0.004)]
        edge += [(0.30 * w, lip), (0.62 * w, lip + 0.02), (0.86 * w, MIDDLE + 0.07)]
        upper = smooth([(face.across(x, 0.6), y) for x, y in edge], closed=False, steps=3)
        face.canvas.polygon(np.vstack([jaw, upper]), colour, 0.30 if kind == "stubble" else 1.0)
        return
    half = face.width * (0.36 + 0.20 * size)
    drop = 0.010 + 0.022 * size
    wing = [(-half, lip + 0.030 + drop), (-half * 0.6, lip + 0.004), (0, lip + 0.002), (half * 0.6, lip + 0.004)]
    wing += [(half, lip + 0.030 + drop), (half * 0.5, lip + 0.034), (0, lip + 0.030), (-half * 0.5, lip + 0.034)]
    face.canvas.polygon(smooth([(face.across(x), y) for x, y in wing], steps=3), colour)
    if kind == "goatee":
        wide = face.width * (0.30 + 0.12 * size)
        top = face.mouth_y + 0.03
        tuft = [
            (-wide, top),
            (0, top + 0.012),
            (wide, top),
            (wide * 0.8, face.chin),
            (0, face.chin + 0.02 + 0.05 * size),
        ]
        tuft += [(-wide * 0.8, face.chin)]
        face.canvas.polygon(smooth([(face.across(x, 0.7), y) for x, y in tuft], steps=4), colour)


def draw_nose(face: Face) -> None:
    identity, shape = face.identity, face.identity["nose_shape"]
    half = 0.019 + 0.028 * identity["nose_width"]
    x, y = face.across(0.0, 1.45), face.nose_y
    fill, edge = shade(face.skin, -0.15), shade(face.skin, -0.36)
    bridge = face.eye_y + 0.012
    lean = 0.008 * face.nuisance["yaw"]
    if shape == "round":
        face.canvas.polygon(
            [(x - lean - 0.010, bridge), (x - lean + 0.010, bridge), (x + half * 0.6, y), (x - half * 0.6, y)], fill
        )
        face.canvas.polygon(ellipse(x, y - 0.004, half, half * 0.72 + 0.006, points=20), fill)
        face.canvas.polygon(
            ellipse(x - half * 0.2, y - 0.012, half * 0.35, half * 0.28, points=12), shade(face.skin, 0.18)
        )
    elif shape == "pointed":
        face.canvas.polygon(
            [(x - lean, bridge - 0.02), (x + half, y - 0.012), (x, y + 0.016), (x - half, y - 0.012)], fill
        )
        face.canvas.line([(x - half, y - 0.012), (x, y + 0.016), (x + half, y - 0.012)], edge, 0.010)
    else:
        face.canvas.polygon(
            [(x - lean - 0.011, bridge), (x - lean + 0.011, bridge), (x + half * 0.7, y), (x - half * 0.7, y)], fill
        )
        face.canvas.line(
            smooth([(x - half, y - 0.008), (x, y + 0.010), (x + half, y - 0.008)], closed=False), edge, 0.013
        )


def draw_eyes(face: Face) -> None:
    nuisance, canvas = face.nuisance, face.canvas
    colour = shade(EYE_COLOURS[face.identity["eye_colour"]], 0.24 * (face.identity["eye_shade"] - 0.5))
    tilt = 0.5 * (face.identity["eye_tilt"] - 0.5)
    openness = {"laughing": 0.86, "surprised": 1.14}.get(nuisance["expression"], 1.0)
    rx, ry = face.eye_rx, face.eye_ry * openness
    for side in (-1, 1):
        x = face.across(side * face.eye_dx)
        turn = -side * tilt
        eye = ellipse(x, face.eye_y, rx, ry, points=24, turn=turn)
        if nuisance["blink"]:
            canvas.line(eye[0:13] * [1, 0.6] + [0, 0.4 * face.eye_y], face.line, 0.016)
            continue
        canvas.polygon(eye, (0.99, 0.99, 0.99))
        iris = min(ry * 0.92, rx * 0.66)
        ix = x + nuisance["gaze"] * (rx - iris) * 0.8
        canvas.polygon(ellipse(ix, face.eye_y, iris, iris, points=18), colour)
        canvas.polygon(ellipse(ix, face.eye_y, iris * 0.46, iris * 0.46, points=12), (0.05, 0.04, 0.05))
        canvas.polygon(
            ellipse(ix - iris * 0.32, face.eye_y - iris * 0.36, iris * 0.27, iris * 0.27, points=8), (1, 1, 1)
        )
        canvas.line(eye[12:], face.line, 0.015)


def draw_brows(face: Face) -> None:
    identity, expression = face.identity, face.nuisance["expression"]
    thick = 0.011 + 0.026 * identity["brow_thickness"]
    lift = {"surprised": 0.024, "laughing": 0.008}.get(expression, 0.0)
    y = face.eye_y - face.eye_ry - 0.026 - 0.034 * identity["brow_height"] - lift
    # Positive slope lowers the inner end; sadness raises it.
    slope = 0.050 * (identity["brow_tilt"] - 0.45) - (0.024 if expression == "sad" else 0.0)
    half = face.eye_rx * (0.92 + 0.35 * identity["brow_length"])
    colour = mix(shade(face.hair, -0.22), face.line, 0.35)
    for side in (-1, 1):
        x = face.eye_dx * 1.02
        ends = [(x - half, y + slope), (x + half * 0.1, y - 0.010), (x + half, y - slope * 0.4 + 0.010)]
        curve = smooth([(face.across(side * px), py) for px, py in ends], closed=False, steps=4)
        taper = np.linspace(1.0, 0.45, len(curve))[:, None] * [[0.0, thick / 2]]
        face.canvas.polygon(np.vstack([curve - taper, (curve + taper)[::-1]]), colour)


def draw_mouth(face: Face) -> None:
    identity, canvas, expression = face.identity, face.canvas, face.nuisance["expression"]
    strength = 0.8 + 0.4 * face.nuisance["intensity"]
    widen, bend, opening = {
        "neutral": (1.0, 0.002, 0.0),
        "smiling": (1.14, 0.036, 0.0),
        "laughing": (1.15, 0.022, 0.058),
        "sad": (0.95, -0.028, 0.0),
        "surprised": (0.62, 0.0, 0.055),
    }[expression]
    half = (0.048 + 0.046 * identity["mouth_width"]) * widen
    bend, opening = bend * strength, opening * strength
    full = 0.006 + 0.017 * identity["lip_fullness"]
    natural = mix(shade(face.skin, -0.22), (0.78, 0.30, 0.30), 0.45)
    lips = LIP_COLOURS[identity["lip_colour"]] or natural
    t = np.linspace(-1.0, 1.0, 13)
    arch = 1 - t**2
    x = np.array([face.across(half * float(s), 1.1) for s in t])
    middle = face.mouth_y + bend * (arch - 0.6)
    spread = np.sqrt(arch)
    if expression == "surprised":
        upper, lower = middle - opening * 0.45 * spread, middle + opening * 0.55 * spread
    else:
        upper, lower = middle, middle + opening * spread
    outer_top, outer_bottom = upper - full * (arch * 0.8 + 0.2 * spread), lower + full * 1.1 * spread
    canvas.polygon(_band(x, outer_top, outer_bottom), lips)
    if opening:
        canvas.polygon(_band(x, upper, lower), (0.36, 0.07, 0.09))
        if expression == "laughing":
            canvas.polygon(_band(x[1:-1], upper[1:-1], upper[1:-1] + 0.42 * (lower - upper)[1:-1]), (1.0, 1.0, 1.0))
        tongue = lower - 0.28 * (lower - upper)
        canvas.polygon(_band(x[3:-3], tongue[3:-3] + 0.004, lower[3:-3]), (0.90, 0.42, 0.44))
    else:
        canvas.line(np.stack([x, middle], 1), mix(shade(lips, -0.55), face.line, 0.5), 0.013)


def _band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The closed outline between two curves over the same x."""
    return np.vstack([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])


def draw_hair_front(face: Face) -> None:
    style, volume = hair_shown(face.identity), face.identity["hair_volume"]
    if style == "bald":
        return
    canvas, hair, w = face.canvas, face.hair, face.width
    hatted = face.identity["hat"] != "none"
    side = 1 if face.identity["hair_side"] > 0.5 else -1
    line_y = face.top + 0.075 + 0.035 * face.identity["hairline"]
    temple = MIDDLE + 0.01
    block = [(0.93, temple), (0.84, line_y + 0.045), (0.62, line_y), (0.0, line_y - 0.006)]
    block += [(-0.62, line_y), (-0.84, line_y + 0.045), (-0.93, temple)]
    hairlines = {
        "side-parted": [(0.93, temple), (0.80, line_y + 0.02), (0.45, line_y - 0.045), (0.15, line_y - 0.005),
                        (-0.45, line_y + 0.03), (-0.82, line_y + 0.06), (-0.93, temple)],
        "straight": [(0.93, temple + 0.04), (0.78, line_y + 0.075), (0.40, line_y), (0.0, line_y - 0.055),
                     (-0.40, line_y), (-0.78, line_y + 0.075), (-0.93, temple + 0.04)],
        "wavy": [(0.93, temple + 0.04), (0.80, line_y + 0.04), (0.50, line_y - 0.05), (0.1, line_y),
                 (-0.45, line_y + 0.035), (-0.75, line_y + 0.085), (-0.93, temple + 0.04)],
        "bob": [(0.95, temple + 0.06), (0.86, line_y + 0.068), (0.45, line_y + 0.058), (0.0, line_y + 0.062),
                (-0.45, line_y + 0.058), (-0.86, line_y + 0.068), (-0.95, temple + 0.06)],
        "bun": [(0.97, temple - 0.02), (0.74, line_y + 0.02), (0.40, line_y - 0.025), (0.0, line_y - 0.04),
                (-0.40, line_y - 0.025), (-0.74, line_y + 0.02), (-0.97, temple - 0.02)],
    }  # fmt: skip
    hairlines["ponytail"] = hairlines["pigtails"] = hairlines["bun"]
    hairline = [
        (CENTRE + side * x * w + 0.55 * face.front * (1 - abs(x) ** 4), y) for x, y in hairlines.get(style, block)
    ]
    if style == "spiky":
        hairline = [(x, y + (0.018 if index % 2 else -0.012)) for index, (x, y) in enumerate(hairline)]
    elif style not in ("bob",):
        hairline = list(smooth(hairline, closed=False, steps=3))
    pad = {"cropped": 0.006 + 0.016 * volume, "mohawk": 0.002, "side-parted": 0.025 + 0.035 * volume}.get(style)
    pad = 0.014 + 0.02 * volume if pad is None else pad
    pad = min(pad, 0.012) if hatted else pad
    sweep = face.outline(np.pi + 0.04, -0.04, pad, 20) if side > 0 else face.outline(-0.04, np.pi + 0.04, pad, 20)
    if style in ("curly", "afro") and not hatted:
        sweep = _scallops(face, np.pi + 0.05, -0.05, 0.012 + 0.03 * volume, 0.04 if style == "curly" else 0.02, 9)
        sweep = sweep if side > 0 else sweep[::-1]
    if style == "spiky" and not hatted:
        spikes = face.outline(np.pi + 0.04, -0.04, 0.0, 17)
        grow = np.where(np.arange(17) % 2 == 1, 0.06 + 0.05 * volume, 0.012) * np.sin(
            np.linspace(0.35, np.pi - 0.35, 17)
        )
        spikes = spikes + (spikes - [CENTRE, MIDDLE]) * grow[:, None] * 4.0
        sweep = spikes if side > 0 else spikes[::-1]
    if style == "mohawk":
        canvas.polygon(np.vstack([sweep, hairline]), mix(face.skin, hair, 0.38))
        _draw_crest(face, line_y)
        return
    canvas.polygon(np.vstack([sweep, hairline]), hair)
    if style in ("curly", "afro"):
        for x in np.linspace(-0.72, 0.72, 6):
            y = line_y - 0.012 + 0.035 * abs(x) ** 2
            canvas.polygon(ellipse(CENTRE + x * w + 0.5 * face.front, y, 0.036, 0.028, points=14), hair)
        for x, y in ((-0.5, 0.03), (0.05, 0.0), (0.55, 0.035)):
            canvas.line(ellipse(CENTRE + x * w, face.top + y, 0.028, 0.024, points=16)[8:15], shade(hair, 0.2), 0.011)
    elif not hatted:
        shine = face.outline(1.2, 2.1, -0.035, 8)
        canvas.line(shine, mix(hair, (1.0, 1.0, 1.0), 0.22), 0.016)
    if style == "pigtails" and not hatted:
        for sign in (-1, 1):
            canvas.polygon(ellipse(CENTRE + sign * (w + 0.025), 0.42, 0.024, 0.03, points=14), (0.92, 0.30, 0.45))


def _draw_crest(face: Face, line_y: float) -> None:
    """A mohawk: a comb of spikes over the middle of the head."""
    tall = 0.09 + 0.05 * face.identity["hair_length"]
    half = 0.062 + 0.022 * face.identity["hair_volume"]
    x = np.linspace(-half, half, 7)
    tips = np.where(np.arange(7) % 2 == 1, tall, tall * 0.62) * (1 - 0.25 * np.abs(x / half))
    top = np.stack([CENTRE + x * 1.25 + 0.2 * face.front, face.top + 0.01 - tips], axis=1)
    root = [(CENTRE + half * 0.9 + 0.3 * face.front, face.top + 0.02), (CENTRE + half * 0.5 + 0.6 * face.front, line_y)]
    root += [(CENTRE + 0.6 * face.front, line_y + 0.018), (CENTRE - half * 0.5 + 0.6 * face.front, line_y)]
    root += [(CENTRE - half * 0.9 + 0.3 * face.front, face.top + 0.02)]
    face.canvas.polygon(np.vstack([top, root]), face.hair)


def draw_hat(face: Face) -> None:
    kind = face.identity["hat"]
    if kind == "none":
        return
    canvas, w, brim, shift = face.canvas, face.width, face.brim, 0.4 * face.front
    colour = shade(CLOTH_COLOURS[face.identity["hat_colour"]], 0.2 * (face.identity["hat_shade"] - 0.5))
    dark, light = shade(colour, -0.25), mix(colour, (1.0, 1.0, 1.0), 0.25)
    tall = 0.035 + 0.035 * face.identity["hat_height"]
    reach = w + 0.022
    if kind == "brimmed":
        crown = [(-w * 0.92, brim), (-w * 0.80, face.top - tall - 0.01), (0, face.top - tall - 0.035)]
        crown += [(w * 0.80, face.top - tall - 0.01), (w * 0.92, brim)]
        canvas.polygon([(CENTRE + x + shift, y) for x, y in crown], colour)
        canvas.polygon(rectangle(CENTRE - w * 0.91 + shift, brim - 0.055, CENTRE + w * 0.91 + shift, brim), dark)
        canvas.polygon(ellipse(CENTRE + shift, brim, w * 1.62, 0.036), colour)
        return
    height = brim - face.top + tall
    angle = np.linspace(np.pi, 0, 18)
    dome = np.stack([CENTRE + reach * np.cos(angle), brim - height * np.sin(angle) ** 0.85], axis=1)
    side_y = brim + (0.045 if kind == "cap" else 0.03)
    edge = [(reach, side_y), (w * 0.9, side_y), (w * 0.6, brim), (-w * 0.6, brim), (-w * 0.9, side_y), (-reach, side_y)]
    canvas.polygon(np.vstack([dome, [(CENTRE + x, y) for x, y in edge]]), colour)
    if kind == "cap":
        bill = [(-w * 0.92, brim + 0.012), (0, brim - 0.05), (w * 0.92, brim + 0.012), (w * 0.6, brim + 0.034)]
        bill += [(0, brim + 0.046), (-w * 0.6, brim + 0.034)]
        canvas.polygon(smooth([(CENTRE + x + 1.6 * shift, y) for x, y in bill], steps=4), dark)
        canvas.polygon(ellipse(CENTRE, face.top - tall + 0.004, 0.018, 0.012, points=12), dark)
    else:
        band = rectangle(CENTRE - reach - 0.008, brim - 0.045, CENTRE + reach + 0.008, brim + 0.028)
        canvas.polygon(band, light)
        for x in np.linspace(-0.85, 0.85, 8):
            stripe = CENTRE + x * reach + shift
            canvas.line([(stripe, brim - 0.04), (stripe, brim + 0.024)], shade(light, -0.14), 0.009)
        canvas.polygon(ellipse(CENTRE, face.top - tall - 0.018, 0.042, 0.038, points=18), light)


def draw_glasses(face: Face) -> None:
    kind = face.identity["glasses"]
    if kind == "none":
        return
    canvas, colour = face.canvas, FRAME_COLOURS[face.identity["glasses_colour"]]
    size = 0.050 + 0.018 * face.identity["glasses_size"]
    rx = min(max(size, face.eye_rx + 0.012), face.eye_dx - 0.006)
    ry = size if kind == "round" else size * 0.82
    width = 0.017
    for side in (-1, 1):
        x, y = face.across(side * face.eye_dx), face.eye_y + 0.006
        lens = ellipse(x, y, rx, ry) if kind == "round" else rectangle(x - rx, y - ry, x + rx, y + ry)
        canvas.polygon(lens, (0.85, 0.95, 1.0), 0.16)
        corner = 0.0 if kind == "round" else width / 2
        start = [lens[0] + [0.0, 0.0]]
        canvas.line(np.vstack([start, lens[1:], lens[:1], lens[1:2]]), colour, width + corner * 0.2)
        edge = CENTRE + side * face.width * 0.99
        canvas.line([(x + side * rx, y - 0.01), (edge, y - 0.012)], colour, width)
    inner_left, inner_right = face.across(-face.eye_dx) + rx, face.across(face.eye_dx) - rx
    canvas.line([(inner_left, face.eye_y - 0.004), (inner_right, face.eye_y - 0.004)], colour, width)


def draw_face(canvas: Canvas, identity: dict[str, Any], nuisance: dict[str, Any]) -> None:
    """Draw everything, back to front."""
    face = make_face(canvas, identity, nuisance)
    draw_background(canvas, nuisance)
    shift = (nuisance["x"], nuisance["y"] + 0.033)
    head = {"turn": nuisance["roll"], "scale": 1.15 * nuisance["scale"], "shift": shift, "about": (0.5, 0.78)}
    body = {**head, "turn": 0.25 * nuisance["roll"]}
    canvas.place(**head)
    draw_hair_back(face)
    canvas.place(**body)
    draw_clothes(face)
    canvas.place(**head)
    draw_locks(face)
    draw_ears(face)
    for draw in (draw_head, draw_marks, draw_beard, draw_nose, draw_eyes, draw_mouth, draw_hair_front, draw_brows):
        draw(face)
    draw_hat(face)
    draw_earrings(face)
    draw_glasses(face)
    warmth = nuisance["warmth"]
    tint = (1.0 + 0.04 * warmth, 1.0, 1.0 - 0.06 * warmth)
    canvas.light(tint, 0.065, nuisance["light_side"])
