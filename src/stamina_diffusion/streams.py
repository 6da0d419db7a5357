"""A stream is a TOML of concepts that are learned in order; what is learned already is not learned again.

version = 1
method = "stamina"            # for all that do not say otherwise, else the preset's; also preset, steps, seed ...
set = { rank = 8 }

[[concept]]
name = "rex"
photos = "photos/rex"         # relative to the file
class = "dog"
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .concepts import word_of
from .errors import NameTakenError, SettingsError
from .methods import completed
from .photos import Photo, collect
from .settings import Resolved, resolve
from .studio import Studio
from .toml_tables import checked, read_toml, table, unknown


@dataclass(frozen=True)
class Common:
    """What a stream says for all of its concepts, and a concept may say for itself."""

    method: str | None = None
    preset: str | None = None
    steps: int | None = None
    seed: int | None = None
    set: dict[str, Any] | None = None
    consent: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Item(Common):
    """One `[[concept]]` of a stream."""

    name: str = ""
    photos: str = ""
    class_word: str | None = None


@dataclass(frozen=True)
class Lesson:
    """A concept of a stream with everything that `Studio.learn` wants to know."""

    name: str
    photos: tuple[Photo, ...]
    class_word: str | None
    resolved: Resolved
    consent: str | None
    licence: str | None


def read(path: Path, preset: str, *, skip_bad: bool = False) -> list[Lesson]:
    """The lessons of a stream in order, each photo and each setting checked; `preset` is taken where none is named.

    Raises SettingsError, PhotoError and UnsafeNameError that say which concept of which file is meant.
    """
    found = read_toml(path, [*(field.name for field in fields(Common)), "concept"])
    concepts = found.pop("concept", None)
    if not isinstance(concepts, list) or not concepts:
        raise SettingsError("there is no [[concept]] in it", where=path, do="Write one for each concept, in order.")
    common = checked(Common, "the stream", found, path)
    lessons = []
    for place, values in enumerate(concepts, start=1):
        title = f"[[concept]] {place}"
        values = dict(table(values, title, path))
        known = ["class" if field.name == "class_word" else field.name for field in fields(Item)]
        for key in values:
            if key not in known:
                raise SettingsError(unknown(key, known, f"{title} has no field", "It takes"), where=path)
        if "class" in values:
            values["class_word"] = values.pop("class")
        item = Item(**{**common, **checked(Item, title, values, path)})
        if not item.name or not item.photos:
            missing = "name" if not item.name else "photos"
            raise SettingsError(f"{title} has no {missing}", where=path, do=f"Write {missing} = ... into it.")
        lessons.append(_lesson(item, common.get("set") or {}, path, preset, skip_bad))
    names = [lesson.name.lower() for lesson in lessons]
    for name in names:
        if names.count(name) > 1:
            raise NameTakenError(f"{name!r} stands twice in the stream", where=path, do="Give each its own name.")
    return lessons


def _lesson(item: Item, common: Mapping[str, Any], path: Path, preset: str, skip_bad: bool) -> Lesson:
    word_of(item.name)
    overrides = {key: _text(value) for key, value in {**common, **(item.set or {})}.items()}
    resolved = resolve(item.preset or preset, item.method, overrides=overrides, steps=item.steps, seed=item.seed)
    if resolved.method.word_start == "class" and not item.class_word:
        raise SettingsError(f"{item.name}: word_start is 'class' but it has no class", where=path, do="Add class = ...")
    photos = collect(path.parent / item.photos, skip_bad=skip_bad)
    return Lesson(item.name, tuple(photos), item.class_word, resolved, item.consent, item.licence)


def _text(value: Any) -> str:
    """A TOML value as `--set` would take it."""
    return value if isinstance(value, str) else json.dumps(value)


def remaining(studio: Studio, lessons: Sequence[Lesson]) -> list[Lesson]:
    """The lessons that the studio has not had. Raises NameTakenError for a name that it learned from something else."""
    known = {entry.name.lower(): entry for entry in studio.entries}
    left = []
    for lesson in lessons:
        entry = known.get(lesson.name.lower())
        if entry is None:
            left.append(lesson)
            continue
        photos = [photo["sha256"] for photo in entry.photos]
        method, plan = lesson.resolved.method, lesson.resolved.plan
        known_as = [entry.method, completed(entry.method, entry.settings), entry.plan]
        asked_as = [method.name, method.settings(), plan.settings()]
        same = (
            photos == [photo.sha256 for photo in lesson.photos]
            and json.loads(json.dumps(known_as)) == json.loads(json.dumps(asked_as))
            and entry.class_word == lesson.class_word
        )
        if not same:
            raise NameTakenError(
                f"{lesson.name!r} was learned already, from other photos or with other settings",
                do="Take another name in the stream, or leave this concept out of it.",
            )
    return left
