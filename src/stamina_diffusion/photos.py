"""A concept begins as photos that a person took: this finds them, looks each one over, and opens it for training.

`examine` never fails on bad content, it reports; `collect` is the door to training and lets nothing bad through.
A file's content decides what it is, its name does not: a PNG named `.jpg` is a photo, a web page named `.jpg` is not.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from .errors import PhotoError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "MPO")  # MPO: what some phones write as .jpg
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"})
PIXEL_LIMIT = 100_000_000
BYTE_LIMIT = 500_000_000
CAPTION_LIMIT = 65_536

RAW = (".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw")
OTHER_KINDS = {  # pictures that are not read: suffix -> what it is called and what to make of it
    **dict.fromkeys((".heic", ".heif", ".hif"), ("a HEIC picture", "JPEG")),
    **dict.fromkeys(RAW, ("a camera's raw file", "JPEG")),
    ".avif": ("an AVIF picture", "JPEG"),
    ".jxl": ("a JPEG XL picture", "JPEG"),
    ".jp2": ("a JPEG 2000 picture", "JPEG"),
    ".gif": ("a GIF", "PNG (one still picture of it)"),
    ".svg": ("an SVG drawing", "PNG, at least 512 pixels wide"),
    ".psd": ("a Photoshop file", "PNG"),
    ".xcf": ("a GIMP file", "PNG"),
    ".tga": ("a TGA picture", "PNG"),
    ".ico": ("an icon", "PNG"),
}
COMPANIONS = frozenset(
    {".txt", ".caption", ".json", ".jsonl", ".csv", ".toml", ".yaml", ".yml", ".xmp", ".aae", ".npz"}
)
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", ".ds_store", "__macosx", "@eadir"})
REPEATS_FOLDER = re.compile(r"\d+_(?P<name>.+)")  # the `10_mug` folders of kohya's trainers

# EXIF tag 274: what must be done to the stored pixels to see them upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The thresholds of the quality findings. They are set so that an ordinary photo passes: see the tests.
SAMPLE = 256  # the side of the square that quality is judged on
FEW = 4
EXTREME_ASPECT = 3.0
BLURRY_BELOW = 15.0  # variance of the Laplacian; ordinary photos have 200 to 5000
DARK_BELOW = 60.0  # of the 95th percentile of brightness
BRIGHT_PIXEL, OVEREXPOSED_ABOVE = 250, 0.7  # share of such pixels in the middle: a white background is fine
GREY_BELOW = 4.0  # largest difference between channels, at the 99th percentile of pixels
NEAR = 3  # differing bits of 64, in both hashes
FLAT_BELOW = 4.0  # standard deviation of brightness under which the hashes say nothing


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
            data = _read(self.path)
            if hashlib.sha256(data).hexdigest() != self.sha256:
                raise _Unfit(
                    "changed", "the file has changed since it was examined", "Put the old file back, or begin again."
                )
            return _square(_decode(data, self.path)[0], resolution)
        except _Unfit as unfit:
            raise PhotoError(unfit.what, where=self.path, do=unfit.do) from unfit


@dataclass(frozen=True)
class Finding:
    """One thing to know about a photo or a folder; `what` reads on from the path, `do` says how to mend it."""

    path: Path | None
    severity: Literal["error", "warning", "hint"]
    code: str
    what: str
    do: str


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
    paths, findings, place = _gather(sources)
    photos: list[Photo] = []
    prints: list[_Print] = []
    by_hash: dict[str, Path] = {}
    for path in paths:
        try:
            photo, sketch, frames, caption_finding = _inspect(path)
        except _Unfit as unfit:
            findings.append(Finding(path, "error", unfit.code, unfit.what, unfit.do))
            continue
        findings += _quality(photo, sketch, frames, resolution)
        if caption_finding is not None:
            findings.append(caption_finding)
        mark = _fingerprint(sketch)
        if photo.sha256 in by_hash:
            what = f"the same file as {_beside(by_hash[photo.sha256], path)}"
            findings.append(Finding(path, "warning", "duplicate", what, "Delete one of the two: it would count twice."))
        elif (near := _nearest_print(mark, prints)) is not None:
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


# ---- which files


def _gather(sources: Path | Sequence[Path]) -> tuple[list[Path], list[Finding], Path | None]:
    """The files to open, what was found among their neighbours, and the place to name when it is one."""
    if isinstance(sources, str | Path):
        source = Path(sources)
        if not os.path.lexists(source):
            raise PhotoError("there is no such file or folder", where=source, do="Check the path for a typing error.")
        if not os.path.isdir(source):
            return [source], [], source
        inside, notes = _folder(source, alone=True)
        return inside, notes, source
    given = [Path(source) for source in sources]
    # A shell's `photos/*` names the captions too; they are not meant as photos.
    named = [path for path in given if not _companion(path)] or given
    paths: dict[str, Path] = {}
    findings: list[Finding] = []
    for source in named:
        members = [source]
        if os.path.isdir(source):
            members, more = _folder(source, alone=False)
            findings += more
        for path in members:
            paths.setdefault(os.path.abspath(path), path)
    if not given:
        findings.append(Finding(None, "error", "empty-folder", "no photos were given", "Name a folder of photos."))
    return sorted(paths.values(), key=_natural), findings, None


def _folder(folder: Path, *, alone: bool) -> tuple[list[Path], list[Finding]]:
    """The files of a folder to open, in natural order, and findings on the rest; hidden files are passed over."""
    try:
        files, folders = _list(folder)
    except OSError as error:
        what, do = f"the folder cannot be listed ({error.strerror})", "Give yourself the right to read it."
        if alone:
            raise PhotoError(what, where=folder, do=do) from error
        return [], [Finding(folder, "error", "unreadable", what, do)]
    findings: list[Finding] = []
    if folders and all(map(_companion, files)) and all(REPEATS_FOLDER.fullmatch(inner.name) for inner in folders):
        names = sorted({inner.name.partition("_")[2] for inner in folders})
        if len(names) > 1:
            what = f"holds {len(names)} folders of photos ({', '.join(names)}), read as one concept"
            do = "If they show different things, teach each folder as a concept of its own."
            findings.append(Finding(folder, "warning", "several-concepts", what, do))
        for inner in folders:
            try:
                files += _list(inner)[0]
            except OSError as error:
                what = f"the folder cannot be listed ({error.strerror})"
                findings.append(Finding(inner, "error", "unreadable", what, "Give yourself the right to read it."))
        folders = []
    paths = [path for path in files if path.suffix.lower() in SUFFIXES]
    stems = {path.with_suffix("") for path in paths}
    others = [path for path in files if path.suffix.lower() in OTHER_KINDS and path.with_suffix("") not in stems]
    for path in others:  # a raw file or a HEIC beside a JPEG of the same name is not missed
        unfit = _other_kind(path.suffix.lower())
        findings.append(Finding(path, "error", unfit.code, unfit.what, unfit.do))
    stems |= {path.with_suffix("") for path in others}
    for path in files:
        if paths and path.suffix.lower() == ".txt" and path.with_suffix("") not in stems:
            do = f"Name it after its photo ('{paths[0].stem}.txt' belongs to '{paths[0].name}'), or remove it."
            findings.append(Finding(path, "hint", "orphan-caption", "a caption without a photo of that name", do))
    if not paths and not others:
        what, do = "there are no photos in this folder", "Put photos (JPEG, PNG, WebP, BMP or TIFF) into it."
        inside = [inner.name for inner in folders if _holds_photos(inner)]
        if inside:
            shown = ", ".join(f"'{name}'" for name in inside[:5]) + (", ..." if len(inside) > 5 else "")
            what = f"there are no photos in this folder, only in folders inside it ({shown})"
            do = f"Name the inner folder instead: '{folder / inside[0]}'."
        findings.append(Finding(folder, "error", "empty-folder", what, do))
    return sorted(paths, key=_natural), findings


def _beside(other: Path, path: Path) -> str:
    """`other` as one names it to a person who looks at `path`."""
    return f"'{other.name}'" if other.name != path.name else f"'{other}'"


def _list(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders in `folder` that a person put there, each in natural order."""
    seen = [path for path in folder.iterdir() if not path.name.startswith(".")]
    seen = sorted((path for path in seen if path.name.casefold() not in SYSTEM_FILES), key=_natural)
    return [path for path in seen if not os.path.isdir(path)], [path for path in seen if os.path.isdir(path)]


def _holds_photos(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in SUFFIXES for path in _list(folder)[0])
    except OSError:
        return False


def _companion(path: Path) -> bool:
    return path.suffix.lower() in COMPANIONS or path.name.casefold() in SYSTEM_FILES


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Order as a person counts: 2.jpg before 10.jpg. The path settles ties."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name.casefold())
    # A number of a thousand digits is compared as text: int() refuses it.
    keys = [(0, int(part), "") if part[0] in "0123456789" and len(part) < 19 else (1, 0, part) for part in parts]
    return keys, str(path)


# ---- one file


class _Unfit(Exception):
    """A file that cannot be used, with the words for its finding."""

    def __init__(self, code: str, what: str, do: str) -> None:
        super().__init__(what)
        self.code, self.what, self.do = code, what, do


def _inspect(path: Path) -> tuple[Photo, Image.Image, int, Finding | None]:
    """The photo at `path`, a small square of it to judge, how many pictures the file holds, and a caption's fault."""
    if path.suffix.lower() in RAW:  # many are TIFFs that would open as a thumbnail
        raise _other_kind(path.suffix.lower())
    data = _read(path)
    image, frames = _decode(data, path)
    try:
        sketch = _square(image, min(SAMPLE, *image.size))
    except Exception as error:
        raise _Unfit(
            "unreadable", f"its colours (mode {image.mode}) cannot be turned into RGB", "Save it anew as a PNG or JPEG."
        ) from error
    caption, finding = _caption(path)
    return Photo(path, hashlib.sha256(data).hexdigest(), image.size, caption), sketch, frames, finding


def _read(path: Path) -> bytes:
    """The file's bytes; raises _Unfit when it is missing, no plain file, too large or not to be read."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):  # opening a pipe would wait for ever
            raise _Unfit("unreadable", "this is not a plain file", "Put a copy of the photo itself there.")
        if facts.st_size <= BYTE_LIMIT:
            with open(path, "rb") as file:
                data = file.read(BYTE_LIMIT + 1)
            if len(data) <= BYTE_LIMIT:
                return data
    except FileNotFoundError as error:
        if path.is_symlink():
            what = f"a link to '{os.readlink(path)}', which does not exist"
            raise _Unfit("broken-link", what, "Put the photo itself there, or remove the link.") from error
        raise _Unfit("missing", "there is no such file", "Check the path for a typing error.") from error
    except PermissionError as error:
        raise _Unfit(
            "no-permission", "permission to read it is denied", "Give yourself the right to read it."
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _Unfit(
            "unreadable", f"the file cannot be read ({reason})", "Put a fresh copy of the photo there."
        ) from error
    megabytes = f"{max(facts.st_size, BYTE_LIMIT + 1) / 1e6:.0f} MB"
    do = "Save it smaller, as a JPEG of a few thousand pixels a side."
    raise _Unfit("too-large", f"the file is {megabytes}; the limit is {BYTE_LIMIT // 1_000_000} MB", do)


def _decode(data: bytes, path: Path) -> tuple[Image.Image, int]:
    """The first picture in `data`, wholly decoded and upright but in its own mode, and how many pictures there are."""
    if not data:
        raise _Unfit("unreadable", "the file is empty (0 bytes)", "Copy the photo again from where it came.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pillow warns of odd metadata, and of large pictures that we judge ourselves
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise _bomb() from error
        except Exception as error:
            raise _not_opened(data, path) from error
        if image.width * image.height > PIXEL_LIMIT:
            raise _bomb(image.size)
        frames = _frames(image)
        try:
            image.load()
        except Image.DecompressionBombError as error:
            raise _bomb() from error
        except MemoryError as error:
            do = "Save it with fewer pixels, or close other programs."
            raise _Unfit("unreadable", "there is not enough memory to open it", do) from error
        except Exception as error:
            what = f"the {image.format} picture is cut off or damaged: it begins well and does not decode to its end"
            raise _Unfit("truncated", what, "Copy or download the photo again.") from error
        try:
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
        except Exception:  # a photo with damaged metadata is still a photo
            turn = None
        return (image if turn is None else image.transpose(turn)), frames


def _bomb(size: tuple[int, int] | None = None) -> _Unfit:
    found = f"{size[0]} x {size[1]} pixels" if size else "too many pixels"
    what = f"its header announces {found}; above {PIXEL_LIMIT // 1_000_000} megapixels a file is not opened"
    return _Unfit("bomb", what, "Save it smaller, as a JPEG of a few thousand pixels a side, if it is a real photo.")


def _not_opened(data: bytes, path: Path) -> _Unfit:
    """Why `data` is no photo, by its first bytes: renamed HEIC files and saved web pages are the usual ones."""
    head = data[:512]
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    suffix = {
        brand == b"avif": ".avif",
        brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"): ".heic",
        head.startswith(b"GIF8"): ".gif",
        head.startswith(b"8BPS"): ".psd",
        head.startswith(b"\xff\x0a") or head[4:8] == b"JXL ": ".jxl",
        text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text): ".svg",
    }.get(True)
    if suffix is not None:
        return _other_kind(suffix, "by its content ")
    begins = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")
    if head.startswith(begins) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        what = "begins like a picture, but is cut off or damaged"
        return _Unfit("truncated", what, "Copy or download the photo again.")
    what = "not a picture that can be read"
    if text.startswith((b"<!doctype html", b"<html")):
        what = "a web page, not a picture"
    elif head.startswith(b"version https://git-lfs"):
        what = "a Git LFS pointer, not the picture itself"
    elif path.suffix.lower() in OTHER_KINDS:
        return _other_kind(path.suffix.lower())
    code = "unreadable" if path.suffix.lower() in SUFFIXES else "not-an-image"
    return _Unfit(code, what, "Put a JPEG, PNG, WebP, BMP or TIFF in its place, or remove it.")


def _other_kind(suffix: str, by: str = "") -> _Unfit:
    kind, target = OTHER_KINDS[suffix]
    do = f"Convert it to {target} with any picture program, or take it out."
    return _Unfit("unsupported", f"{by}{kind}, which cannot be read", do)


def _frames(image: Image.Image) -> int:
    """How many pictures a file holds; the second one in a phone's MPO is a depth or gain map and does not count."""
    if image.format == "MPO":
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        return 1


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


# ---- pixels


def _square(image: Image.Image, resolution: int) -> Image.Image:
    """The middle square of an upright image as RGB over white, `resolution` pixels wide and high."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = _rgb(image.crop((left, top, left + side, top + side)))
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB; what is transparent becomes white."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image), sixteen=image.mode.startswith("I;16"))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, *, sixteen: bool) -> np.ndarray:
    """Deep grey values scaled to 0..255. Pillow's own conversion clips them, and a 16-bit photo turns white.

    Only 16 bits have a known range. For 32 bits and floats the range is the smallest usual one that holds the values:
    0..1 (floats), 0..255, 0..65535, else from the least to the greatest.
    """
    if sixteen:
        return np.rint(values.astype(np.float32) / 257).astype(np.uint8)
    whole = np.issubdtype(values.dtype, np.integer)
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    tops = (255.0, 65535.0) if whole else (1.0, 255.0, 65535.0)
    fitting = [top for top in tops if low >= 0 and high <= top]
    if fitting:
        low, high = 0.0, fitting[0]
    return np.rint((values - low) / (high - low or 1.0) * 255).astype(np.uint8)


def _quality(photo: Photo, sketch: Image.Image, frames: int, resolution: int) -> list[Finding]:
    """What a photographer would say of this photo; `sketch` is its middle square, small."""
    found: list[Finding] = []

    def add(severity: Literal["warning", "hint"], code: str, what: str, do: str) -> None:
        found.append(Finding(photo.path, severity, code, what, do))

    width, height = photo.size
    short, long = min(photo.size), max(photo.size)
    if frames > 1:
        what = f"holds {frames} pictures, and only the first is used"
        add("warning", "animated", what, "Save the pictures that you want as separate files.")
    if long > EXTREME_ASPECT * short:
        what = f"{width} x {height} has one side {long / short:.1f} times the other; only the middle square is used"
        add("warning", "extreme-aspect", what, "Crop it to roughly square around the subject.")
    if 2 * short < resolution:
        what = f"{width} x {height} pixels, which will be enlarged {resolution / short:.1f} times"
        do = f"Use a photo with at least {resolution} pixels on its shorter side."
        add("warning", "too-small", what, do)

    colour = np.asarray(sketch, dtype=np.float32)
    grey = np.asarray(sketch.convert("L"), dtype=np.float32)
    quarter = sketch.height // 4
    middle = grey[quarter : sketch.height - quarter, quarter : sketch.width - quarter]
    dark = np.percentile(grey, 95) < DARK_BELOW
    overexposed = (middle >= BRIGHT_PIXEL).mean() > OVEREXPOSED_ABOVE
    if dark:
        add("hint", "dark", "very dark nearly everywhere", "Brighten it, or take it again in more light.")
    if overexposed:
        add(
            "hint", "overexposed", "the middle is nearly all white", "Take it again in less light, the subject centred."
        )
    if np.percentile(colour.max(axis=2) - colour.min(axis=2), 99) < GREY_BELOW:
        add("hint", "grey", "has no colour", "Use a colour photo, unless the concept is to be drawn in grey.")
    # Under 128 pixels the measure says little, and a dark or white picture is flat for another reason.
    if short >= 128 and not dark and not overexposed and _sharpness(grey) < BLURRY_BELOW:
        add("hint", "blurry", "looks blurred", "Use a sharper photo of the subject, if there is one.")
    return found


def _sharpness(grey: np.ndarray) -> float:
    """The variance of the Laplacian."""
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


_Print = tuple[int, int] | None  # 64 bits each, or None for a picture too flat to tell from another


def _fingerprint(sketch: Image.Image) -> _Print:
    """The average hash and the difference hash of a picture."""
    grey = sketch.convert("L")
    if np.asarray(grey, dtype=np.float32).std() < FLAT_BELOW:
        return None
    small = np.asarray(grey.resize((8, 8), Image.Resampling.BOX), dtype=np.int16)
    wide = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small > small.mean(), wide[:, 1:] > wide[:, :-1])
    average, difference = (int.from_bytes(np.packbits(bit).tobytes(), "big") for bit in bits)
    return average, difference


def _nearest_print(mark: _Print, others: Sequence[_Print]) -> int | None:
    """The first of `others` within NEAR bits of `mark` in both hashes."""
    if mark is None:
        return None
    for place, other in enumerate(others):
        if other and (mark[0] ^ other[0]).bit_count() <= NEAR and (mark[1] ^ other[1]).bit_count() <= NEAR:
            return place
    return None
