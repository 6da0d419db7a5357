"""A person's pictures of classes: a folder of folders, one for each class, named as the class is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .errors import PhotoError
from .photo_decoding import SUFFIXES
from .photos import Photo, collect

LONGEST = 100


def collect_classes(folder: Path, *, resolution: int = 224, skip_bad: bool = False) -> tuple[Photo, ...]:
    """The pictures of every class; each `caption` is the name of its class, that of its folder.

    Raises PhotoError for a folder without folders, a class that is there twice or has no picture that opens, and a
    picture that is of two classes.
    """
    if not folder.is_dir():
        raise PhotoError("there is no such folder", where=folder, do="Give a folder with a folder for each class.")
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    loose = [path for path in inside if path.is_file() and path.suffix.lower() in SUFFIXES]
    classes = [path for path in inside if path.is_dir()]
    if loose and classes:
        do = "Move it into the folder of its class."
        raise PhotoError("is in no class's folder", where=loose[0], do=do)
    if not classes:
        do = "Put the pictures of each class into a folder of its own, named as the class is called."
        raise PhotoError("has no folders, and so no classes", where=folder, do=do)
    known: dict[str, Path] = {}
    found: list[Photo] = []
    for path in classes:
        name = path.name.strip()
        if not name.isprintable() or len(name) > LONGEST:
            do = f"Take a name of 1 to {LONGEST} printable characters."
            raise PhotoError("its name cannot be a class's", where=path, do=do)
        twin = known.setdefault(name.casefold(), path)
        if twin != path:
            what = f"the class {name!r} is there twice, beside {twin.name!r}"
            raise PhotoError(what, where=path, do="Put the pictures of both into one folder.")
        try:
            photos = collect(path, resolution=resolution, skip_bad=skip_bad)
        except PhotoError as error:
            where = error.where or path
            raise PhotoError(f"class {name!r}: {error.what}", where=where, do=error.do) from error
        found += [replace(photo, caption=name) for photo in photos]
    check_classes(found)
    return tuple(found)


def check_classes(photos: Sequence[Photo]) -> None:
    """Raise PhotoError for a picture, by its bytes, that is of two classes."""
    owner: dict[str, Photo] = {}
    for photo in photos:
        other = owner.setdefault(photo.sha256, photo)
        if other.caption != photo.caption:
            what = f"is the same picture as '{other.path}', and of another class"
            raise PhotoError(what, where=photo.path, do="Leave it in one of the two classes.")


def check_apart(taught: Sequence[Photo], asked: Sequence[Photo], before: Mapping[str, str] | None = None) -> None:
    """Raise PhotoError for a picture, by its bytes, that is to learn from and to be tested on.

    `before` says of the hash of each picture that was learned from earlier which one it is.
    """
    seen = {**(before or {}), **{photo.sha256: f"'{photo.path}', which is learned from" for photo in taught}}
    for photo in asked:
        if photo.sha256 in seen:
            what = f"is the same picture as {seen[photo.sha256]}"
            raise PhotoError(what, where=photo.path, do="Remove one of the two: a test on it would say nothing.")
