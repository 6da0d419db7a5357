"""Cartoon portraits: an identity of many continuous parts, and views of it that redraw pose, mood and clothes.

Continuous parts are numbers in [0, 1] and become words only in `attributes`, so words can never say all of a face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from stamina_diffusion.world.canvas import Canvas
from stamina_diffusion.world.faces_drawing import (
    BACKGROUNDS,
    CLOTH_COLOURS,
    EAR_COVERING,
    EARRING_COLOURS,
    EYE_COLOURS,
    FRAME_COLOURS,
    HAIR_COLOURS,
    LIP_COLOURS,
    draw_face,
    hair_shown,
)

PARTS: dict[str, tuple[str, ...]] = {
    "head": ("head_width", "head_height", "jaw"),
    "skin": ("skin_tone", "skin_warmth"),
    "hair style": ("hair_style", "hair_length", "hair_volume", "hairline", "hair_side"),
    "hair colour": ("hair_colour", "hair_shade"),
    "eyes": ("eye_size", "eye_spacing", "eye_height", "eye_tilt", "eye_roundness"),
    "eye colour": ("eye_colour", "eye_shade"),
    "brows": ("brow_thickness", "brow_tilt", "brow_height", "brow_length"),
    "nose": ("nose_length", "nose_width", "nose_shape"),
    "mouth": ("mouth_width", "mouth_height", "lip_fullness", "lip_colour"),
    "ears": ("ear_size", "earrings", "earring_colour"),
    "glasses": ("glasses", "glasses_colour", "glasses_size"),
    "beard": ("beard", "beard_size"),
    "hat": ("hat", "hat_colour", "hat_shade", "hat_height"),
    "marks": ("freckles", "blush", "wrinkles", "mole", "mole_x", "mole_y"),
}

_STYLE_ODDS = {
    "bald": 0.06, "cropped": 0.10, "side-parted": 0.10, "spiky": 0.08, "mohawk": 0.05, "curly": 0.10, "afro": 0.07,
    "bob": 0.10, "straight": 0.10, "wavy": 0.08, "bun": 0.06, "ponytail": 0.06, "pigtails": 0.04,
}  # fmt: skip
_COLOUR_ODDS = (0.19, 0.17, 0.14, 0.14, 0.12, 0.08, 0.05, 0.04, 0.04, 0.03)
_LONG_STYLES = ("bob", "straight", "wavy", "bun", "ponytail", "pigtails")
_EXPRESSIONS = ("neutral", "smiling", "laughing", "sad", "surprised")
_CLOTHES = ("t-shirt", "shirt", "hoodie", "sweater")

# A factor whose grades are thirds of one continuous identity number; the middle one is never worth saying.
_THIRDS: dict[str, tuple[str, tuple[str, str, str]]] = {
    "face width": ("head_width", ("narrow", "average", "wide")),
    "face length": ("head_height", ("short", "average", "long")),
    "jaw": ("jaw", ("pointed chin", "average", "square jaw")),
    "eye size": ("eye_size", ("small", "average", "big")),
    "eye spacing": ("eye_spacing", ("close-set", "average", "wide-set")),
    "eye tilt": ("eye_tilt", ("downturned", "average", "upturned")),
    "eye shape": ("eye_roundness", ("narrow", "average", "round")),
    "brow thickness": ("brow_thickness", ("thin", "average", "thick")),
    "brow slant": ("brow_tilt", ("worried", "average", "slanted")),
    "brow height": ("brow_height", ("low", "average", "high")),
    "nose length": ("nose_length", ("short", "average", "long")),
    "nose width": ("nose_width", ("narrow", "average", "wide")),
    "mouth width": ("mouth_width", ("small", "average", "wide")),
    "lip fullness": ("lip_fullness", ("thin", "average", "full")),
}
# A factor that a mark either shows or not: the identity number above which it is drawn, and its words.
_MARKS: dict[str, tuple[float, str]] = {
    "freckles": (0.75, "freckles"),
    "blush": (0.72, "rosy cheeks"),
    "wrinkles": (0.80, "wrinkles"),
    "mole": (0.80, "a mole"),
}

_IDENTITY_GRADES: dict[str, tuple[str, ...]] = {
    **{factor: words for factor, (_, words) in _THIRDS.items()},
    "skin": ("pale", "light", "tan", "brown", "dark"),
    "hair style": tuple(_STYLE_ODDS),
    "hair length": ("none", "short", "medium-length", "long"),
    "hair colour": ("none", *HAIR_COLOURS),
    "eye colour": tuple(EYE_COLOURS),
    "nose shape": ("round", "pointed", "straight"),
    "lip colour": tuple(LIP_COLOURS),
    "ears": ("covered", "small", "average", "big"),
    "earrings": ("none", "hoop", "stud"),
    "earring colour": ("none", *EARRING_COLOURS),
    "glasses": ("none", "round", "square"),
    "glasses colour": ("none", *FRAME_COLOURS),
    "beard": ("none", "stubble", "moustache", "goatee", "full"),
    "hat": ("none", "cap", "beanie", "brimmed"),
    "hat colour": ("none", *CLOTH_COLOURS),
    **{factor: ("none", words) for factor, (_, words) in _MARKS.items()},
}
IDENTITY_FACTORS: tuple[str, ...] = tuple(_IDENTITY_GRADES)
GRADES: dict[str, tuple[str, ...]] = {
    **_IDENTITY_GRADES,
    "expression": _EXPRESSIONS,
    "head turn": ("left", "forward", "right"),
    "eyelids": ("open", "closed"),
    "clothing": _CLOTHES,
    "clothing colour": tuple(CLOTH_COLOURS),
    "background": tuple(BACKGROUNDS),
    "light": ("warm", "even", "cool"),
}

_WORD_LIMIT = 40


def _pick(rng: np.random.Generator, values: Sequence[str], odds: Sequence[float] | None = None) -> str:
    chances = None if odds is None else np.asarray(odds) / np.sum(odds)
    return values[int(rng.choice(len(values), p=chances))]


def draw_identity(rng: np.random.Generator) -> dict[str, Any]:
    """A new face: plain numbers in [0, 1] and names."""
    identity: dict[str, Any] = {key: float(rng.uniform()) for keys in PARTS.values() for key in keys}
    style = _pick(rng, tuple(_STYLE_ODDS), tuple(_STYLE_ODDS.values()))
    bearded = 0.10 if style in _LONG_STYLES else 0.42
    painted = 0.45 if style in _LONG_STYLES else 0.18
    beard = _pick(rng, ("stubble", "moustache", "goatee", "full")) if rng.uniform() < bearded else "none"
    painted = 0.0 if beard != "none" else painted
    identity |= {
        "hair_style": style,
        "hair_colour": _pick(rng, tuple(HAIR_COLOURS), _COLOUR_ODDS),
        "eye_colour": _pick(rng, tuple(EYE_COLOURS), (0.32, 0.24, 0.20, 0.12, 0.12)),
        "nose_shape": _pick(rng, _IDENTITY_GRADES["nose shape"]),
        "lip_colour": _pick(rng, ("pink", "red", "purple")) if rng.uniform() < painted else "natural",
        "earrings": _pick(rng, ("none", "hoop", "stud"), (0.76, 0.13, 0.11)),
        "earring_colour": _pick(rng, tuple(EARRING_COLOURS)),
        "glasses": _pick(rng, ("none", "round", "square"), (0.70, 0.16, 0.14)),
        "glasses_colour": _pick(rng, tuple(FRAME_COLOURS)),
        "beard": beard,
        "hat": _pick(rng, ("none", "cap", "beanie", "brimmed"), (0.78, 0.08, 0.07, 0.07)),
        "hat_colour": _pick(rng, tuple(CLOTH_COLOURS)),
    }
    return identity


def draw_nuisance(rng: np.random.Generator, identity: dict[str, Any]) -> dict[str, Any]:
    """What changes from one picture of a face to the next; `identity` does not restrict it."""
    return {
        "yaw": float(rng.uniform(-1.0, 1.0)),
        "roll": float(np.deg2rad(rng.uniform(-10.0, 10.0))),
        "scale": float(rng.uniform(0.92, 1.08)),
        "x": float(rng.uniform(-0.035, 0.035)),
        "y": float(rng.uniform(-0.02, 0.03)),
        "expression": _pick(rng, _EXPRESSIONS, (0.28, 0.28, 0.18, 0.14, 0.12)),
        "intensity": float(rng.uniform()),
        "gaze": float(rng.uniform(-1.0, 1.0)),
        "blink": bool(rng.uniform() < 0.04),
        "clothing": _pick(rng, _CLOTHES),
        "clothing_colour": _pick(rng, tuple(CLOTH_COLOURS)),
        "clothing_shade": float(rng.uniform(-0.08, 0.12)),
        "background": _pick(rng, tuple(BACKGROUNDS)),
        "background_shade": float(rng.uniform(-0.06, 0.08)),
        "warmth": float(rng.uniform(-1.0, 1.0)),
        "light_side": float(rng.uniform(-1.0, 1.0)),
    }


def render(identity: dict[str, Any], nuisance: dict[str, Any], size: int = 64) -> Image.Image:
    """The picture of one view, RGB, `size` × `size`."""
    canvas = Canvas(size)
    draw_face(canvas, identity, nuisance)
    return canvas.image()


def _grade(value: float, words: Sequence[str]) -> str:
    return words[min(int(value * len(words)), len(words) - 1)]


def _hair_length(identity: dict[str, Any]) -> str:
    style, length = hair_shown(identity), identity["hair_length"]
    if style == "bald":
        return "none"
    if style in ("straight", "wavy", "ponytail", "pigtails"):
        return "long" if length > 0.5 else "medium-length"
    if style in ("bob", "curly"):
        return "medium-length" if length > 0.5 else "short"
    return "medium-length" if style == "bun" else "short"


def attributes(identity: dict[str, Any], nuisance: dict[str, Any]) -> dict[str, str]:
    """Every factor's grade, as far as the picture shows it."""
    style = hair_shown(identity)
    named = {factor: _grade(identity[key], words) for factor, (key, words) in _THIRDS.items()}
    named |= {factor: words if identity[factor] > least else "none" for factor, (least, words) in _MARKS.items()}
    for accessory in ("glasses", "hat"):
        worn = identity[accessory]
        named |= {accessory: worn, f"{accessory} colour": "none" if worn == "none" else identity[f"{accessory}_colour"]}
    earrings = identity["earrings"]
    return named | {
        "skin": _grade(identity["skin_tone"], GRADES["skin"]),
        "hair style": style,
        "hair length": _hair_length(identity),
        "hair colour": "none" if style == "bald" else identity["hair_colour"],
        "eye colour": identity["eye_colour"],
        "nose shape": identity["nose_shape"],
        "lip colour": identity["lip_colour"],
        "ears": "covered" if style in EAR_COVERING else _grade(identity["ear_size"], ("small", "average", "big")),
        "earrings": earrings,
        "earring colour": "none" if earrings == "none" else identity["earring_colour"],
        "beard": identity["beard"],
        "expression": nuisance["expression"],
        "head turn": _grade((nuisance["yaw"] + 1) / 2, GRADES["head turn"]),
        "eyelids": "closed" if nuisance["blink"] else "open",
        "clothing": nuisance["clothing"],
        "clothing colour": nuisance["clothing_colour"],
        "background": nuisance["background"],
        "light": _grade((1 - nuisance["warmth"]) / 2, GRADES["light"]),
    }


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


class _Said:
    """The kept factors, read by the clauses below: a middle or absent grade reads as nothing."""

    def __init__(self, kept: Mapping[str, str]) -> None:
        self.kept = kept

    def word(self, factor: str) -> str:
        grade = self.kept.get(factor, "")
        return "" if grade in ("average", "none", "natural", "covered", "even", "open") else grade

    def noun(self, noun: str, *factors: str) -> str:
        """`noun` after the grades of those factors; nothing when none of them says anything."""
        words = [word for word in map(self.word, factors) if word]
        return " ".join([*words, noun]) if words else ""


def _hair(said: _Said) -> str:
    style, plain = said.word("hair style"), said.noun("hair", "hair length", "hair colour")
    if said.kept.get("hair length") == "none" and not style:
        return "no hair"
    if style == "bald":
        return "a bald head"
    if style in ("mohawk", "afro", "bob"):
        return _article(said.noun(style, "hair length", "hair colour") or style)
    if style in ("bun", "ponytail"):
        return f"{plain or 'hair'} in a {style}"
    if style == "pigtails":
        return f"{plain or 'hair'} in pigtails"
    return said.noun("hair", "hair length", "hair colour", "hair style")


def _features(said: _Said) -> list[str]:
    """What the person has: noun phrases that can follow 'with'."""
    eyes = said.noun("eyes", "eye size", "eye spacing", "eye shape", "eye tilt", "eye colour")
    eyes = "closed eyes" if said.word("eyelids") else eyes
    nose = said.noun("nose", "nose length", "nose width", "nose shape")
    face = said.noun("face", "face length", "face width")
    mouth = said.noun("mouth", "mouth width")
    beard = said.word("beard")
    beards = {"": "", "stubble": "stubble", "moustache": "a moustache", "goatee": "a goatee", "full": "a full beard"}
    found = [_hair(said), eyes, nose and _article(nose), face and _article(face), mouth and _article(mouth)]
    found += [said.noun("lips", "lip fullness", "lip colour"), said.noun("skin", "skin"), said.noun("ears", "ears")]
    found += [said.noun("eyebrows", "brow height", "brow thickness", "brow slant"), beards[beard]]
    found += [said.word(mark) for mark in _MARKS]
    found += [_article(said.word("jaw")) if said.word("jaw") else ""]
    return [item for item in found if item]


def _accessories(said: _Said) -> list[str]:
    """What the person wears: noun phrases that can follow 'with' or 'wearing'."""
    hat = said.word("hat")
    noun = {"": "hat", "brimmed": "brimmed hat"}.get(hat, hat)
    hat_words = said.noun(noun, "hat colour") or (noun if hat else "")
    glasses = said.noun("glasses", "glasses colour", "glasses")
    rings = said.noun("earrings", "earring colour", "earrings")
    return [item for item in (hat_words and _article(hat_words), glasses, rings) if item]


def _absences(said: _Said, rng: np.random.Generator) -> list[str]:
    absent = {"glasses": "glasses", "beard": "a beard", "hat": "a hat", "earrings": "earrings", "freckles": "freckles"}
    unsaid = [noun for key, noun in absent.items() if said.kept.get(key) == "none" and rng.uniform() < 0.15]
    return [f"without {' or '.join(unsaid)}"] if unsaid else []


def _joined(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def phrase(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """A caption that says the kept factors, in an order that varies; too many of them, and some go unsaid."""
    said = _Said(attributes)
    features, worn = _features(said), _accessories(said)
    clothes = said.noun(said.word("clothing") or "clothes", "clothing colour") or said.word("clothing")
    if clothes:
        clothes = clothes if clothes.endswith("clothes") else _article(clothes)
    expression = said.word("expression")
    moods = {"": "", "neutral": "", "sad": "looking sad", "surprised": "looking surprised"}
    mood = moods.get(expression, expression)
    if expression == "neutral":
        features.append("a neutral expression")
    turn, light, background = said.word("head turn"), said.word("light"), said.word("background")
    facing = f"facing {turn}" if turn in ("left", "right") else ""
    backing = f"on a {background} background".replace("a orange", "an orange") if background else ""
    around = [mood, facing, backing, f"in {light} light" if light else "", *_absences(said, rng)]
    around = [clause for clause in around if clause]
    if worn and rng.uniform() < 0.5:
        features, worn = features + worn, []
    if clothes and (worn or rng.uniform() < 0.4):
        worn, clothes = [*worn, clothes], ""
    opening = _pick(rng, ("a photo of a person", "a portrait of a person", "a picture of a person", "a person"))
    loose = [("with", item) for item in features] + [("wearing", item) for item in worn]
    loose += [("", clause) for clause in (*around, f"in {clothes}" if clothes else "") if clause]
    rng.shuffle(loose)
    # The opening and the words that join the items are not counted by the items themselves.
    room = _WORD_LIMIT - 9
    kept: dict[str, list[str]] = {}
    for kind, item in loose:
        room -= len(item.split())
        if room >= 0:
            kept.setdefault(kind, []).append(item)
    clauses = [f"{kind} {_joined(kept[kind])}" for kind in ("with", "wearing") if kind in kept] + kept.get("", [])
    order = rng.permutation(len(clauses))
    return " ".join([opening, *(clauses[index] for index in order)])
