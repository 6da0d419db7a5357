"""Opens whatever file a person gives as a photo, safely, and turns any picture into upright 8-bit RGB.

A file's content decides what it is, its name does not. What cannot be used raises `Unfit`, with words for a person.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from .photo_findings import Unfit

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "MPO")  # MPO: what some phones write as .jpg
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"})
PIXEL_LIMIT = 100_000_000
BYTE_LIMIT = 500_000_000

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

# ---- bytes


def read(path: Path) -> bytes:
    """The file's bytes; raises Unfit when it is missing, no plain file, too large or not to be read."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):  # opening a pipe would wait for ever
            raise Unfit("unreadable", "this is not a plain file", "Put a copy of the photo itself there.")
        if facts.st_size <= BYTE_LIMIT:
            with open(path, "rb") as file:
                data = file.read(BYTE_LIMIT + 1)
            if len(data) <= BYTE_LIMIT:
                return data
    except FileNotFoundError as error:
        if path.is_symlink():
            what = f"a link to '{os.readlink(path)}', which does not exist"
            raise Unfit("broken-link", what, "Put the photo itself there, or remove the link.") from error
        raise Unfit("missing", "there is no such file", "Check the path for a typing error.") from error
    except PermissionError as error:
        raise Unfit(
            "no-permission", "permission to read it is denied", "Give yourself the right to read it."
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unfit(
            "unreadable", f"the file cannot be read ({reason})", "Put a fresh copy of the photo there."
        ) from error
    megabytes = f"{max(facts.st_size, BYTE_LIMIT + 1) / 1e6:.0f} MB"
    do = "Save it smaller, as a JPEG of a few thousand pixels a side."
    raise Unfit("too-large", f"the file is {megabytes}; the limit is {BYTE_LIMIT // 1_000_000} MB", do)


def decode(data: bytes, path: Path) -> tuple[Image.Image, int]:
    """The first picture in `data`, wholly decoded and upright but in its own mode, and how many pictures there are."""
    if not data:
        raise Unfit("unreadable", "the file is empty (0 bytes)", "Copy the photo again from where it came.")
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
            raise Unfit("unreadable", "there is not enough memory to open it", do) from error
        except Exception as error:
            what = f"the {image.format} picture is cut off or damaged: it begins well and does not decode to its end"
            raise Unfit("truncated", what, "Copy or download the photo again.") from error
        try:
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
        except Exception:  # a photo with damaged metadata is still a photo
            turn = None
        return (image if turn is None else image.transpose(turn)), frames


def _bomb(size: tuple[int, int] | None = None) -> Unfit:
    found = f"{size[0]} x {size[1]} pixels" if size else "too many pixels"
    what = f"its header announces {found}; above {PIXEL_LIMIT // 1_000_000} megapixels a file is not opened"
    return Unfit("bomb", what, "Save it smaller, as a JPEG of a few thousand pixels a side, if it is a real photo.")


def _not_opened(data: bytes, path: Path) -> Unfit:
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
        return other_kind(suffix, "by its content ")
    begins = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")
    if head.startswith(begins) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        what = "begins like a picture, but is cut off or damaged"
        return Unfit("truncated", what, "Copy or download the photo again.")
    what = "not a picture that can be read"
    if text.startswith((b"<!doctype html", b"<html")):
        what = "a web page, not a picture"
    elif head.startswith(b"version https://git-lfs"):
        what = "a Git LFS pointer, not the picture itself"
    elif path.suffix.lower() in OTHER_KINDS:
        return other_kind(path.suffix.lower())
    code = "unreadable" if path.suffix.lower() in SUFFIXES else "not-an-image"
    return Unfit(code, what, "Put a JPEG, PNG, WebP, BMP or TIFF in its place, or remove it.")


def other_kind(suffix: str, by: str = "") -> Unfit:
    kind, target = OTHER_KINDS[suffix]
    do = f"Convert it to {target} with any picture program, or take it out."
    return Unfit("unsupported", f"{by}{kind}, which cannot be read", do)


def _frames(image: Image.Image) -> int:
    """How many pictures a file holds; the second one in a phone's MPO is a depth or gain map and does not count."""
    if image.format == "MPO":
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        return 1


# ---- pixels


def square(image: Image.Image, resolution: int) -> Image.Image:
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
