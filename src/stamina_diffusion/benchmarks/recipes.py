"""How a manifest is made of a data set that the user has: which folders count, and a seeded choice among them.

A recipe fetches nothing. It reads names of folders and files below a root and chooses `count` concepts with photos
enough by a seed, so that two people with the same files get the same stream. Where the sets are from, and under which
terms, is said from memory: read the terms where you get the files.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import seeds
from ..errors import SettingsError

PHOTOS = {".jpg", ".jpeg", ".png", ".webp"}
HIERARCHY = "train_label_to_hierarchical.csv"
CLASSES = "prompts_and_classes.txt"


@dataclass(frozen=True)
class Recipe:
    """One data set."""

    title: str
    layout: str
    """What is expected below the root."""
    least: int
    """Photos that a concept must have."""
    class_of: Callable[[Path, str], str | None]
    """The class word of a folder, from the root and the folder's name; None to leave it out."""
    source: str
    terms: str


def _from_name(root: Path, name: str) -> str:
    """`pet_dog3` → `dog`: the last word of the folder's name, without its number."""
    words = [word for word in re.split(r"[_\-\s]+", re.sub(r"\d+", "", name)) if word]
    return words[-1].lower() if words else "object"


def _from_classes(root: Path, name: str) -> str | None:
    """What the set's own list of subjects and classes says; from the name where there is no list."""
    path = root / CLASSES
    if not path.is_file():
        return _from_name(root, name)
    pairs = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.count(",") == 1)
    return {subject.strip(): word.strip() for subject, word in pairs}.get(name)


def _waterfalls(root: Path, name: str) -> str | None:
    """`waterfall` for a landmark of that kind by the set's own hierarchy; `landmark` for all where it is not there."""
    path = root / HIERARCHY
    if not path.is_file():
        return "landmark"
    with path.open(encoding="utf-8", newline="") as file:
        kinds = {row["landmark_id"]: row["hierarchical_label"] for row in csv.DictReader(file)}
    return "waterfall" if "waterfall" in kinds.get(name, "").lower() else None


RECIPES: Mapping[str, Recipe] = {
    "celeba-hq": Recipe(
        "CelebA-HQ identities",
        "a folder for each identity",
        15,
        lambda root, name: "person",
        "CelebA-HQ with CelebA's identity annotations, arranged one folder an identity",
        "non-commercial research; pictures of real people",
    ),
    "google-landmarks": Recipe(
        "Google Landmarks v2",
        f"a folder for each landmark_id; with {HIERARCHY} beside them only waterfalls",
        15,
        _waterfalls,
        "the Google Landmarks Dataset v2 of cvdfoundation, arranged one folder a landmark_id",
        "annotations CC BY 4.0; each photo under its author's own licence",
    ),
    "customconcept101": Recipe(
        "CustomConcept101",
        "a folder for each concept",
        10,
        _from_name,
        "the data set of Custom Diffusion's authors",
        "see the data set's own page",
    ),
    "dreambooth": Recipe(
        "DreamBooth's subjects",
        f"a folder for each subject; {CLASSES} beside them names the classes",
        4,
        _from_classes,
        "the data set of DreamBooth's authors",
        "see the data set's own page",
    ),
    "cifc": Recipe(
        "CIFC",
        "a folder for each concept",
        4,
        _from_name,
        "the repository of the CIDM paper (JiahuaDong/CIFC)",
        "see the repository",
    ),
}


def select(recipe: str, root: Path, count: int, seed: int) -> str:
    """A manifest, as text, of `count` concepts below `root`. Raises SettingsError where there are not so many."""
    made = RECIPES[recipe]
    if not root.is_dir():
        raise SettingsError("there is no such folder", where=root, do=f"Give the root of {made.title}: {made.layout}.")
    able = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        photos = sum(path.suffix.lower() in PHOTOS for path in folder.iterdir())
        word = made.class_of(root, folder.name)
        if photos >= made.least and word is not None:
            able.append((folder, word))
    if len(able) < count:
        raise SettingsError(
            f"has {len(able)} folders of {made.least} photos or more that the recipe takes, not {count}",
            where=root,
            do=f"{made.title} has {made.layout}; take fewer concepts, or another root.",
        )
    order = np.random.default_rng(seeds.derive(seed, "recipe", recipe)).permutation(len(able))[:count]
    lines = [f"# {count} concepts of {made.title} by recipe {recipe}, seed {seed}: {made.source}.",
             f"# Terms: {made.terms}.", "version = 1"]  # fmt: skip
    for place in order:
        folder, word = able[place]
        lines += ["", "[[concept]]", f"name = {json.dumps(_name(folder.name))}",
                  f"photos = {json.dumps(folder.resolve().as_posix())}", f"class = {json.dumps(word)}"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _name(folder: str) -> str:
    """A folder's name as a concept's: letters, digits, - and _, a letter first."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", folder).strip("-")[:36]
    return plain if plain[:1].isalpha() else f"id-{plain}"
