"""A manifest is a stream of real photos: a TOML of concepts with folders, which the user has, and class words.

version = 1
[[concept]]
name = "identity-17"          # its word is <identity-17>
photos = "celeba-hq/17"       # relative to the file
class = "person"
test = "celeba-hq/17-test"    # optional; else the photos are divided, always in the same way

Which photos are learned from and which are tested on depends on the concept's name and the files' names alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import seeds
from ..concepts import word_of
from ..errors import NameTakenError, PhotoError, SettingsError
from ..photos import Photo, collect
from ..toml_tables import read_toml, table, unknown
from .concept_streams import LEAST, MOST, Subject
from .protocol import MMD_LEAST

KEYS = ("name", "photos", "class", "test")


@dataclass(frozen=True)
class PhotoSubject(Subject):
    """A concept of a manifest."""

    name: str
    class_word: str
    photos: tuple[Photo, ...]
    test_photos: tuple[Photo, ...] = ()
    """Empty where the photos are divided."""

    def divided(self, training: int) -> tuple[list[Photo], list[Photo]]:
        """The photos to learn from, and the others."""
        if self.test_photos:
            return list(self.photos[:training]), list(self.test_photos)
        order = np.random.default_rng(seeds.derive("manifest", self.name)).permutation(len(self.photos))
        shuffled = [self.photos[place] for place in order]
        return shuffled[:training], shuffled[training:]

    def training(self, count: int, resolution: int) -> tuple[Image.Image, ...]:
        return tuple(photo.load(resolution) for photo in self.divided(count)[0])

    def test(self, count: int, resolution: int, training: int = 0) -> tuple[Image.Image, ...]:
        return tuple(photo.load(resolution) for photo in self.divided(training)[1][:count])


@dataclass(frozen=True)
class Manifest:
    """A file of concepts, each with its photos found and looked over."""

    path: Path
    subjects: tuple[PhotoSubject, ...]


@lru_cache(maxsize=8)
def read_manifest(path: Path) -> Manifest:
    """A manifest with every photo examined. Raises SettingsError, NameTakenError, PhotoError that say which concept."""
    concepts = read_toml(path, ["concept"]).get("concept")
    if not isinstance(concepts, list) or not concepts:
        raise SettingsError("there is no [[concept]] in it", where=path, do="Write one for each concept.")
    found: list[PhotoSubject] = []
    for place, values in enumerate(concepts, start=1):
        subject = _subject(path, f"[[concept]] {place}", values)
        if any(subject.name.lower() == other.name.lower() for other in found):
            raise NameTakenError(f"{subject.name!r} stands twice in it", where=path, do="Give each its own name.")
        found.append(subject)
    return Manifest(path, tuple(found))


def _subject(path: Path, title: str, values: Any) -> PhotoSubject:
    values = table(values, title, path)
    for key in values:
        if key not in KEYS:
            raise SettingsError(unknown(key, KEYS, f"{title} has no field", "It takes"), where=path)
    for key in KEYS[:3]:
        if not isinstance(values.get(key), str) or not values[key]:
            raise SettingsError(f"{title} has no {key}", where=path, do=f'Write {key} = "..." into it.')
    word_of(values["name"])
    return PhotoSubject(
        values["name"],
        values["class"],
        _photos(path, values["name"], values["photos"]),
        _photos(path, values["name"], values["test"]) if values.get("test") else (),
    )


def _photos(path: Path, name: str, folder: str) -> tuple[Photo, ...]:
    try:
        return tuple(collect(path.parent / folder, skip_bad=True))
    except PhotoError as error:
        raise PhotoError(f"{name}: {error.what}", where=error.where, do=error.do) from error


def check_manifest(path: Path, length: int, training: int, test: int) -> Manifest:
    """A manifest that has `length` concepts, each with photos enough. Raises what `read_manifest` raises."""
    manifest = read_manifest(path)
    if not LEAST <= length <= min(MOST, len(manifest.subjects)):
        do = f"Take {LEAST} to {min(MOST, len(manifest.subjects))} with --concepts, or add concepts to the manifest."
        raise SettingsError(f"has {len(manifest.subjects)} concepts, not {length}", where=path, do=do)
    for subject in manifest.subjects[:length]:
        taught, tested = subject.divided(training)
        if len(taught) < training or len(tested) < MMD_LEAST:
            raise PhotoError(
                f"{subject.name} has {len(taught)} photos to learn from and {len(tested)} others; "
                f"{training} and {MMD_LEAST} are needed",
                where=path,
                do="Give it more photos, or take fewer with --set views=...",
            )
    return manifest
