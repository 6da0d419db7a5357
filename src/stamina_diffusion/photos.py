"""A concept begins as photos that a person took: this finds them, looks each one over, and opens it for training.

`examine` never fails on bad content, it reports; `collect` is the door to training and lets nothing bad through.
A file's content decides what it is, its name does not: a PNG named `.jpg` is a photo, a web page named `.jpg` is not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .errors import PhotoError
from .photo_decoding import RAW, decode, other_kind, read, square
from .photo_findings import Finding, Unfit
from .photo_folders import gather
from .photo_quality import SAMPLE, Print, fingerprint, nearest_print, quality

FEW = 4
CAPTION_LIMIT = 65_536


@dataclass(frozen=True)
class Photo:
    """One usable photo: where it is, its bytes' sha256, its (width, height) as seen upright, and its caption."""

    path: Path
    sha256: str
    size: tuple[int, int]
    caption: str | None = None

    def load(self, resolution: int) -> Image.Image:
        """The photo as RGB: upright, transparency over white, the middle square, `resolution` pixels wide and high.

        Raises PhotoError when the file is no longer the one that was examined.
        """
        if resolution < 1:
            raise ValueError(f"resolution must be at least 1, not {resolution}")
        try:
            data = read(self.path)
            if hashlib.sha256(data).hexdigest() != self.sha256:
                raise Unfit(
                    "changed", "the file has changed since it was examined", "Put the old file back, or begin again."
                )
            return square(decode(data, self.path)[0], resolution)
        except Unfit as unfit:
            raise PhotoError(unfit.what, where=self.path, do=unfit.do) from unfit


@dataclass(frozen=True)
class Examination:
    """The usable photos, in natural order of name, and everything found on the way to them."""

    photos: tuple[Photo, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps a file from being used."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What will probably make the concept worse."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")


def examine(sources: Path | Sequence[Path], *, resolution: int = 512) -> Examination:
    """Look over a folder, a file or a list of them, for training at `resolution`; bad content gives findings.

    A folder is read without its subfolders, unless it holds nothing but kohya-like `10_mug` folders; their numbers
    of repeats are not used. Raises PhotoError only when a single source does not exist or cannot be listed.
    """
    paths, findings, place = gather(sources)
    photos: list[Photo] = []
    prints: list[Print] = []
    by_hash: dict[str, Path] = {}
    for path in paths:
        try:
            photo, sketch, frames, caption_finding = _inspect(path)
        except Unfit as unfit:
            findings.append(Finding(path, "error", unfit.code, unfit.what, unfit.do))
            continue
        findings += quality(path, photo.size, sketch, frames, resolution)
        if caption_finding is not None:
            findings.append(caption_finding)
        mark = fingerprint(sketch)
        if photo.sha256 in by_hash:
            what = f"the same file as {_beside(by_hash[photo.sha256], path)}"
            findings.append(Finding(path, "warning", "duplicate", what, "Delete one of the two: it would count twice."))
        elif (near := nearest_print(mark, prints)) is not None:
            what = f"almost the same picture as {_beside(photos[near].path, path)}"
            do = "Keep the better of the two, or add photos from other sides and in other light."
            findings.append(Finding(path, "hint", "near-duplicate", what, do))
        by_hash.setdefault(photo.sha256, path)
        photos.append(photo)
        prints.append(mark)
    if 0 < len(photos) < FEW:
        what = f"{len(photos)} usable photo{'s' if len(photos) > 1 else ''}"
        do = f"Add photos until there are {FEW} or more, from different sides and in different places."
        findings.append(Finding(place, "hint", "few-photos", what, do))
    return Examination(tuple(photos), tuple(findings))


def collect(sources: Path | Sequence[Path], *, resolution: int = 512, skip_bad: bool = False) -> tuple[Photo, ...]:
    """The photos to learn from; raises PhotoError that names every bad file, or with `skip_bad` leaves those out.

    With `skip_bad` it raises only when no photo is left.
    """
    examination = examine(sources, resolution=resolution)
    photos, errors = examination.photos, examination.errors
    if photos and (skip_bad or not errors):
        return photos
    if len(errors) == 1:
        (error,) = errors
        do = f"{error.do} Or leave it out with --skip-bad." if photos else error.do
        raise PhotoError(error.what, where=error.path, do=do)
    lines = "".join(f"\n  {error.path}: {error.what}. {error.do}" for error in errors)
    what = f"{len(errors)} of {len(errors) + len(photos)} files cannot be used:{lines}"
    do = "Mend or remove them, or leave them out with --skip-bad." if photos else "Give at least one photo that opens."
    raise PhotoError(what, where=sources if isinstance(sources, str | Path) else None, do=do)


def _beside(other: Path, path: Path) -> str:
    """`other` as one names it to a person who looks at `path`."""
    return f"'{other.name}'" if other.name != path.name else f"'{other}'"


def _inspect(path: Path) -> tuple[Photo, Image.Image, int, Finding | None]:
    """The photo at `path`, a small square of it to judge, how many pictures the file holds, and a caption's fault."""
    if path.suffix.lower() in RAW:  # many are TIFFs that would open as a thumbnail
        raise other_kind(path.suffix.lower())
    data = read(path)
    image, frames = decode(data, path)
    try:
        sketch = square(image, min(SAMPLE, *image.size))
    except Exception as error:
        raise Unfit(
            "unreadable", f"its colours (mode {image.mode}) cannot be turned into RGB", "Save it anew as a PNG or JPEG."
        ) from error
    caption, finding = _caption(path)
    return Photo(path, hashlib.sha256(data).hexdigest(), image.size, caption), sketch, frames, finding


def _caption(path: Path) -> tuple[str | None, Finding | None]:
    """The text of `NAME.txt` beside `NAME.jpg`, or None; a file that cannot be read as text gives a finding."""
    for suffix in (".txt", ".TXT"):
        beside = path.with_suffix(suffix)
        if beside == path or not os.path.isfile(beside):
            continue
        try:
            with open(beside, "rb") as file:
                data = file.read(CAPTION_LIMIT + 1)
            if len(data) > CAPTION_LIMIT:
                raise ValueError(f"longer than {CAPTION_LIMIT} bytes")
            wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
            text = data.decode("utf-16" if wide else "utf-8-sig").strip()
            if "\0" in text:
                raise ValueError("not text")
        except (OSError, ValueError) as error:
            reason = "not UTF-8 text" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or error
            what = f"the caption cannot be read ({reason}), so the photo is used without it"
            return None, Finding(beside, "warning", "bad-caption", what, "Save it as plain text in UTF-8.")
        return text or None, None
    return None, None
