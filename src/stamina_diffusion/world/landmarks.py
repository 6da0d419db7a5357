"""Landmarks: a building whose identity is drawn once, seen again under any sky, on any ground, from any stand.

Words name the coarse grades of a building (its kind, colours, tiers); the proportions, slants, exact hues and the
placing of parts are continuous, so that only pictures can tell one red castle from another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from .landmarks_drawing import KINDS, ROOF_COLOURS, TRIM_COLOURS, WALL_COLOURS, draw, fitting_roof

PARTS: dict[str, tuple[str, ...]] = {
    "kind": ("kind",),
    "proportions": ("height", "width", "tiers", "setback", "detail"),
    "stance": ("lean", "asymmetry"),
    "walls": ("wall", "wall_hue", "wall_light"),
    "pattern": ("pattern", "pattern_scale"),
    "roof": ("roof", "roof_height", "roof_curve", "overhang"),
    "roof colour": ("roof_colour", "roof_hue", "roof_light"),
    "windows": ("window", "window_columns", "window_size", "window_light"),
    "door": ("door", "door_size", "door_round"),
    "flag": ("flag", "flag_size"),
    "ornament": ("ornament", "ornament_size"),
    "trim": ("trim", "trim_width", "trim_light"),
}
"""Part name → the identity keys of that part; a sibling redraws some parts and keeps the others."""

NUMBERS = ("one", "two", "three", "four", "five", "six")

GRADES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "height": ("low", "middling", "tall"),
    "width": ("narrow", "ordinary", "wide"),
    "tiers": ("one tier", "two tiers", "three tiers", "four tiers"),
    "walls": tuple(f"{name} walls" for name in WALL_COLOURS),
    "pattern": ("plain", "brick", "banded", "striped"),
    "roof": ("cone roof", "gable roof", "flat roof", "onion roof", "round roof", "spire"),
    "roof colour": tuple(ROOF_COLOURS),
    "windows": ("round windows", "square windows", "arched windows", "slit windows"),
    "door": ("brown door", "red door", "blue door", "green door"),
    "flag": ("no flag", "red flag", "blue flag", "yellow flag", "white flag"),
    "ornament": ("no ornament", "clock", "golden ball", "battlements"),
    "trim": tuple(f"{name} trim" for name in TRIM_COLOURS),
    "hour": ("day", "sunset", "night", "dawn"),
    "weather": ("clear", "cloudy", "rain", "snow"),
    "ground": ("grass", "sand", "snow", "stone plaza", "water"),
    "background": ("nothing behind", "hills behind", "mountains behind", "trees behind", "a city behind"),
    "front": ("nobody in front", "people in front", "a tree in front"),
}
"""Factor → all its grades, in words."""

IDENTITY_FACTORS: tuple[str, ...] = tuple(GRADES)[:13]
"""The factors that come from the identity; the rest belong to the view."""


def _choose(rng: np.random.Generator, options: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    if weights is None:
        return options[int(rng.integers(len(options)))]
    return options[int(rng.choice(len(options), p=np.asarray(weights) / sum(weights)))]


def _first_words(factor: str) -> tuple[str, ...]:
    return tuple(grade.split()[0] for grade in GRADES[factor])


def draw_identity(rng: np.random.Generator) -> dict[str, Any]:
    """A building: plain numbers and names, the same keys for every kind."""

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return float(rng.uniform(low, high))

    return {
        "kind": _choose(rng, KINDS),
        "height": uniform(),
        "width": uniform(),
        "tiers": int(rng.integers(1, 5)),
        "setback": uniform(),
        "detail": uniform(),
        "lean": uniform(-0.05, 0.05),
        "asymmetry": uniform(-1.0, 1.0),
        "wall": _choose(rng, tuple(WALL_COLOURS)),
        "wall_hue": uniform(-1.0, 1.0),
        "wall_light": uniform(-1.0, 1.0),
        "pattern": _choose(rng, GRADES["pattern"]),
        "pattern_scale": uniform(),
        "roof": _choose(rng, _first_words("roof")),
        "roof_height": uniform(),
        "roof_curve": uniform(-1.0, 1.0),
        "overhang": uniform(),
        "roof_colour": _choose(rng, tuple(ROOF_COLOURS)),
        "roof_hue": uniform(-1.0, 1.0),
        "roof_light": uniform(-1.0, 1.0),
        "window": _choose(rng, _first_words("windows")),
        "window_columns": int(rng.integers(1, 4)),
        "window_size": uniform(),
        "window_light": uniform(),
        "door": _choose(rng, _first_words("door")),
        "door_size": uniform(),
        "door_round": bool(rng.random() < 0.5),
        "flag": _choose(rng, ("no", "red", "blue", "yellow", "white"), (3, 1, 1, 1, 1)),
        "flag_size": uniform(),
        "ornament": _choose(rng, GRADES["ornament"]),
        "ornament_size": uniform(),
        "trim": _choose(rng, tuple(TRIM_COLOURS)),
        "trim_width": uniform(),
        "trim_light": uniform(-1.0, 1.0),
    }


def draw_nuisance(rng: np.random.Generator, identity: dict[str, Any]) -> dict[str, Any]:
    """One view of the building: hour, weather, surroundings and camera; any building may stand anywhere."""
    del identity
    return {
        "hour": _choose(rng, GRADES["hour"], (5, 2, 2, 2)),
        "weather": _choose(rng, GRADES["weather"], (5, 3, 1.5, 1.5)),
        "ground": _choose(rng, GRADES["ground"], (4, 2, 2, 2, 3)),
        "background": _choose(rng, GRADES["background"], (2, 2, 2, 2, 2)),
        "front": _choose(rng, GRADES["front"], (7, 1.5, 1.5)),
        "sky_hue": float(rng.uniform(-1.0, 1.0)),
        "sun": (float(rng.uniform(0.08, 0.92)), float(rng.uniform(0.08, 0.3))),
        "shift": (float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.025, 0.035))),
        "scale": float(rng.uniform(0.88, 1.12)),
        "stretch": float(rng.uniform(0.95, 1.05)),
        "turn": float(np.radians(rng.uniform(-3.0, 3.0))),
        "flip": bool(rng.random() < 0.5),
        "scatter": int(rng.integers(2**31)),
    }


def render(identity: dict[str, Any], nuisance: dict[str, Any], size: int = 64) -> Image.Image:
    """The picture of this building in this view, RGB, `size` × `size`; the same arguments give the same picture."""
    return draw(identity, nuisance, size)


def _third(value: float, grades: tuple[str, ...]) -> str:
    return grades[min(int(value * 3), 2)]


def attributes(identity: dict[str, Any], nuisance: dict[str, Any]) -> dict[str, str]:
    """Factor → its grade, for every factor in `GRADES`."""
    roof = fitting_roof(identity)
    return {
        "kind": identity["kind"],
        "height": _third(identity["height"], GRADES["height"]),
        "width": _third(identity["width"], GRADES["width"]),
        "tiers": GRADES["tiers"][identity["tiers"] - 1],
        "walls": f"{identity['wall']} walls",
        "pattern": identity["pattern"],
        "roof": roof if roof == "spire" else f"{roof} roof",
        "roof colour": identity["roof_colour"],
        "windows": f"{identity['window']} windows",
        "door": f"{identity['door']} door",
        "flag": f"{identity['flag']} flag",
        "ornament": identity["ornament"],
        "trim": f"{identity['trim']} trim",
        **{factor: nuisance[factor] for factor in ("hour", "weather", "ground", "background", "front")},
    }


MOST_WORDS = 40

OPENINGS = ("a photo of", "a picture of", "a view of", "")

NOUNS = {"temple": "temple with columns", "dome": "domed hall"}

# What a tier is depends on the building: it is counted in the thing that the drawing repeats.
TIER_WORDS = {"bridge": "span", "castle": "tower", "pyramid": "step", "temple": "step"}

GROUND_WORDS = {
    "grass": ("on the grass", "on green grass"),
    "sand": ("on the sand", "in the desert"),
    "snow": ("on the snow", "on snowy ground"),
    "stone plaza": ("on a stone plaza", "on a plaza"),
    "water": ("by the water",),
}
HOUR_WORDS = {
    "day": ("by day", "in daylight"),
    "sunset": ("at sunset",),
    "night": ("at night",),
    "dawn": ("at dawn",),
}
WEATHER_WORDS = {
    "clear": ("under a clear sky",),
    "cloudy": ("under a cloudy sky", "under clouds"),
    "rain": ("in the rain",),
    "snow": ("in falling snow",),
}
DAY_WORDS = {"clear": "on a sunny day", "cloudy": "on a cloudy day", "rain": "on a rainy day"}


def phrase(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """A plain English caption that says the factors given, in an order and in words that vary."""
    kind = attributes.get("kind")
    words = [attributes[factor] for factor in ("height", "width") if factor in attributes]
    words = [word for word in words if word not in ("middling", "ordinary")]
    subject = " ".join([*words, NOUNS.get(kind, kind) if kind else _choose(rng, ("landmark", "building"), (3, 1))])
    features, scene = _features(attributes, rng), _scene(attributes, rng)
    opening = _choose(rng, OPENINGS, (4, 3, 2, 1))
    while True:
        caption = " ".join(filter(None, [opening, _article(subject)]))
        if features:
            # "with" twice in a row would jar: a temple with columns goes on with its list.
            joint = " and " if subject.endswith("columns") and len(features) == 1 else " with "
            joint = ", " if subject.endswith("columns") and len(features) > 1 else joint
            caption += joint + _listed(features)
        caption = " ".join([caption, *scene])
        if len(caption.split()) <= MOST_WORDS:
            return caption
        features.pop(int(rng.integers(len(features))))


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _features(attributes: Mapping[str, str], rng: np.random.Generator) -> list[str]:
    """What the building has, each as the object of "with", shuffled."""
    features = []
    pattern = attributes.get("pattern", "plain")
    if "walls" in attributes or pattern != "plain":
        words = attributes.get("walls", "walls").split()
        features.append(" ".join([*words[:-1], *([pattern] if pattern != "plain" else []), "walls"]))
    if "roof" in attributes or "roof colour" in attributes:
        colour = attributes.get("roof colour")
        features.append(_article(" ".join(filter(None, [colour, attributes.get("roof", "roof")]))))
    if "tiers" in attributes:
        count = attributes["tiers"].split()[0]
        noun = TIER_WORDS.get(attributes.get("kind", ""), "tier")
        features.append(f"{count} {noun}{'' if count == 'one' else 's'}")
    features += [attributes[factor] for factor in ("windows", "trim") if factor in attributes]
    if "door" in attributes:
        features.append(_article(attributes["door"]))
    for factor in ("flag", "ornament"):
        grade = attributes.get(factor)
        if grade and not grade.startswith("no "):
            features.append(grade if grade == "battlements" else _article(grade))
        elif grade and rng.random() < 0.12:
            features.append(grade)
    return [features[i] for i in rng.permutation(len(features))]


def _scene(attributes: Mapping[str, str], rng: np.random.Generator) -> list[str]:
    """Clauses of when, where and before what; those that say what stands around come last."""
    hour, weather = attributes.get("hour"), attributes.get("weather")
    clauses = []
    if hour == "day" and weather in DAY_WORDS and rng.random() < 0.7:
        clauses.append(DAY_WORDS[weather])
    else:
        clauses += [_choose(rng, HOUR_WORDS[hour])] if hour else []
        clauses += [_choose(rng, WEATHER_WORDS[weather])] if weather and (weather != "clear" or not hour) else []
    if "ground" in attributes:
        clauses.append(_choose(rng, GROUND_WORDS[attributes["ground"]]))
    clauses = [clauses[i] for i in rng.permutation(len(clauses))]
    around = [
        attributes[factor]
        for factor in ("background", "front")
        if factor in attributes and not attributes[factor].startswith("no")
    ]
    return [*clauses, f"with {_listed(around)}"] if around else clauses
