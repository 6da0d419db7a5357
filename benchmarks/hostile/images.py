"""Bad photos: bombs, cut and mixed files, strange modes and metadata, and things on a disk that are no files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from . import visits
from .cases import Case, Expect, Place, learn, pickled

if TYPE_CHECKING:
    from .page import Page

Make = Callable[[Place], object]


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    draws = np.random.default_rng(width * 31 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(draws).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes, check: int | None = None) -> bytes:
    found = zlib.crc32(kind + data) if check is None else check
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, pixels: bytes = b"", more: bytes = b"") -> bytes:
    """A PNG file by hand, so that its header may lie."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(*tags: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A TIFF file by hand: tags of (number, type, count, value)."""
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 0) + data


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, colours: int = 0) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 2835, 2835, colours, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + header + b"\0" * 64


def swollen(kind: bytes, head: bytes) -> bytes:
    """A PNG file with 99 MB of text or colour profile in a few kilobytes."""
    return png(8, 8, pixels=b"\0" * 200, more=chunk(kind, head + zlib.compress(b"a" * 99_000_000)))


def images() -> Iterator[tuple[str, Expect, bytes | Callable[[], bytes]]]:
    """File name → what is expected of it → its bytes, or what makes them where that takes a while."""
    jpeg, photo = saved(noise(32, 24), "JPEG"), saved(noise(32, 24), "PNG")
    webp = saved(noise(32, 24), "WEBP")
    still, moved = noise(16, 16), noise(17, 17).resize((16, 16))

    # Bombs: little to download, much to hold.
    yield "bomb-announced.png", "refused", png(100_000, 100_000)
    yield "bomb-real.png", "refused", lambda: png(30_000, 30_000, depth=1, colour=0, pixels=b"\0" * 3_751 * 30_000)
    yield "bomb-widest.png", "refused", png(2**31 - 1, 1)
    yield "bomb-beyond.png", "refused", png(2**32 - 1, 2**32 - 1)
    for kind, head in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        yield f"bomb-{kind.decode()}.png", "either", partial(swollen, kind, head)
    texts = chunk(b"tEXt", b"a\0" + b"b" * 9) * 20_000
    yield "bomb-many-texts.png", "either", png(8, 8, pixels=b"\0" * 200, more=texts)
    yield "bomb.bmp", "refused", bmp(60_000, 60_000)
    yield "bomb-upside-down.bmp", "refused", bmp(2**31 - 1, -(2**31))
    yield (
        "bomb.tiff",
        "refused",
        tiff((256, 4, 1, 2**31), (257, 4, 1, 2**31), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 8)),
    )
    yield "bomb-just-under.png", "either", lambda: png(10_000, 9_999, depth=1, colour=0, pixels=b"\0" * 1_251 * 9_999)
    lossless = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14) + b"\0" * 5
    yield "bomb.webp", "refused", b"RIFF" + struct.pack("<I", 4 + len(lossless)) + b"WEBP" + lossless
    grown = bytearray(jpeg)
    place = grown.index(b"\xff\xc0") + 5
    grown[place : place + 4] = struct.pack(">HH", 65_535, 65_535)
    yield "bomb.jpg", "refused", bytes(grown)

    # Cut off, or damaged within.
    for name, whole in (
        ("a.png", photo),
        ("a.jpg", jpeg),
        ("a.webp", webp),
        ("a.bmp", saved(still, "BMP")),
        ("a.tiff", saved(still, "TIFF")),
    ):
        yield f"half-{name}", "refused", whole[: len(whole) // 2]
        yield f"head-{name}", "refused", whole[:12]
    yield "nothing.png", "refused", b""
    yield "one-byte.jpg", "refused", b"\xff"
    yield "zeros.png", "refused", b"\0" * 4096
    yield "ones.jpg", "refused", b"\xff" * 4096
    yield "only-end.png", "refused", b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b"")
    yield "no-pixels.png", "refused", png(0, 0)
    yield "no-height.png", "refused", png(8, 0)
    yield "wrong-crc.png", "refused", photo.replace(photo[29:33], b"\0\0\0\0", 1)
    yield "long-chunk.png", "refused", photo[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + b"\0" * 64
    yield (
        "bad-zlib.png",
        "refused",
        b"\x89PNG\r\n\x1a\n" + photo[8:33] + chunk(b"IDAT", b"not zlib at all") + chunk(b"IEND", b""),
    )
    yield "few-pixels.png", "refused", png(64, 64, pixels=b"\0" * 100)
    yield "depth-seven.png", "refused", png(8, 8, depth=7)
    yield "colour-nine.png", "refused", png(8, 8, colour=9)
    yield "palette-missing.png", "either", png(8, 8, colour=3, pixels=b"\0" * 72)
    yield "only-markers.jpg", "refused", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5000
    yield "no-tables.jpg", "refused", jpeg.replace(b"\xff\xdb", b"\xff\xee")
    yield "tiff-loop.tif", "either", tiff((256, 4, 1, 8), (257, 4, 1, 8))[:-4] + struct.pack("<I", 8)
    yield "tiff-count.tif", "refused", tiff((256, 4, 2**32 - 1, 8), (257, 4, 2**32 - 1, 2**32 - 1))
    yield (
        "tiff-strips.tif",
        "refused",
        tiff(
            (256, 4, 1, 8),
            (257, 4, 1, 8),
            (258, 3, 1, 8),
            (262, 3, 1, 1),
            (273, 4, 1, 2**32 - 1),
            (279, 4, 1, 2**32 - 1),
        ),
    )
    yield "tiff-far.tif", "refused", b"II*\0" + struct.pack("<I", 2**32 - 1)
    yield "bmp-palette.bmp", "either", bmp(8, 8, bits=8, colours=2**31)
    yield "bmp-run-length.bmp", "either", bmp(8, 8, bits=8, compression=1, colours=4)
    yield "bmp-bits.bmp", "refused", bmp(8, 8, bits=77)
    yield "riff-liar.webp", "refused", b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WEBPVP8 " + b"\xff" * 99

    # Not what the name says, or more than one thing at once.
    yield "png-named.jpg", "taken", photo
    yield "jpeg-named.png", "taken", jpeg
    yield "web-page.jpg", "refused", b"<!DOCTYPE html><script>alert(1)</script>"
    yield "script.png", "refused", b"#!/bin/sh\ntouch TRAP\n"
    yield "program.jpg", "refused", b"\x7fELF" + b"\0" * 2000
    yield "windows.jpg", "refused", b"MZ" + b"\0" * 2000
    yield "archive.png", "refused", b"PK\x03\x04" + b"\0" * 200
    yield "jpeg-then-zip.jpg", "taken", jpeg + b"PK\x03\x04" + b"\0" * 200
    yield "png-then-script.png", "taken", photo + b"\n<?php system('touch TRAP'); ?>"
    yield "gif-then-jpeg.jpg", "refused", b"GIF89a/*" + jpeg
    yield "postscript.jpg", "refused", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(TRAP) (w) file closefile\n"
    yield "postscript.tiff", "refused", b"\xc5\xd0\xd3\xc6" + b"\0" * 99
    yield "document.png", "refused", b"%PDF-1.7\n1 0 obj<</OpenAction<</S/Launch/F(touch TRAP)>>>>"
    yield "lines.png", "refused", b"P6 99999 99999 255\n"
    yield "magick.png", "refused", b"push graphic-context\nimage over 0,0 0,0 'ephemeral:TRAP'\npop graphic-context\n"
    yield "drawing.svg", "refused", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield "drawing.png", "refused", b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    entities = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;"><!ENTITY d SYSTEM "file:///etc/passwd">]>'
    yield "laughs.png", "refused", b'<?xml version="1.0"?>' + entities + b"<svg>&c;&d;</svg>"
    yield "picture.heic", "refused", b"\0\0\0\x18ftypheic" + b"\0" * 64
    yield "picture.avif", "refused", b"\0\0\0\x18ftypavif" + b"\0" * 64
    yield "picture.ico", "refused", b"\0\0\1\0\1\0" + b"\0" * 64
    yield "film.jpg", "refused", b"\0\0\0\x18ftypmp42" + b"\0" * 64
    yield "pointer.png", "refused", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"

    # Strange but real pictures.
    yield "one.png", "taken", saved(noise(1, 1), "PNG")
    yield "line-across.png", "taken", saved(noise(20_000, 20), "PNG")
    yield "line-down.png", "taken", saved(noise(20, 20_000), "PNG")
    yield "print.jpg", "taken", saved(noise(16, 16, "CMYK"), "JPEG")
    yield "print.tiff", "taken", saved(noise(16, 16, "CMYK"), "TIFF")
    yield "lab.tiff", "either", saved(Image.new("LAB", (16, 16), (128, 0, 255)), "TIFF")
    yield "bit.png", "taken", saved(noise(16, 16, "1"), "PNG")
    yield "palette.png", "taken", saved(noise(16, 16, "P"), "PNG", transparency=0)
    yield "clear.png", "taken", saved(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "PNG")
    yield "grey-clear.png", "taken", saved(noise(16, 16, "LA"), "PNG")
    yield "deep.png", "taken", saved(Image.fromarray(np.full((16, 16), 65_535, np.uint16)), "PNG")
    yield "deep-colours.png", "taken", png(4, 4, depth=16, pixels=(b"\0" + b"\x12\x34" * 12) * 4)
    yield "deep.tiff", "taken", saved(Image.fromarray(np.full((16, 16), 2**31 - 1, np.int32)), "TIFF")
    yield "not-numbers.tiff", "taken", saved(Image.fromarray(np.full((16, 16), np.nan, np.float32)), "TIFF")
    yield "endless.tiff", "taken", saved(Image.fromarray(np.full((16, 16), np.inf, np.float32)), "TIFF")
    yield "farthest.tiff", "taken", saved(Image.fromarray(np.array([[3.4e38, -3.4e38]] * 2, np.float32)), "TIFF")
    yield "animated.png", "taken", saved(still, "PNG", save_all=True, append_images=[moved] * 3)
    yield "animated.webp", "taken", saved(still, "WEBP", save_all=True, append_images=[moved] * 3)
    yield "animated.gif", "refused", saved(still, "GIF", save_all=True, append_images=[moved] * 3)
    yield "animated-gif.jpg", "refused", saved(still, "GIF", save_all=True, append_images=[moved] * 3)
    yield "pages.tiff", "taken", saved(still, "TIFF", save_all=True, append_images=[moved] * 50)
    frames = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield "announced-frames.png", "either", png(8, 8, pixels=b"\0" * 200, more=frames)

    # Metadata.
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    yield "long-exif.jpg", "taken", saved(still, "JPEG", exif=exif)
    yield "huge-exif.png", "either", png(8, 8, pixels=b"\0" * 200, more=chunk(b"eXIf", b"II*\0" + b"\xff" * 30_000_000))
    for value in (0, 9, 65_535):
        exif = Image.Exif()
        exif[0x0112] = value
        yield f"turned-{value}.jpg", "taken", saved(still, "JPEG", exif=exif)
    loop = b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    yield "exif-loop.png", "either", png(8, 8, pixels=b"\0" * 200, more=chunk(b"eXIf", loop))
    yield "exif-offset.jpg", "either", saved(still, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    yield "profile-noise.jpg", "either", saved(still, "JPEG", icc_profile=b"\xff" * 500)
    yield "profile-empty.png", "either", saved(still, "PNG", icc_profile=b"a")
    yield "profile-long.jpg", "either", saved(still, "JPEG", icc_profile=b"acsp" * 200_000)
    yield "comment.jpg", "taken", jpeg[:2] + b"\xff\xfe\xff\xff" + b"\x1b[2J" * 16_383 + b"\0" + jpeg[2:]
    yield (
        "mpf-liar.jpg",
        "either",
        jpeg[:2] + b"\xff\xe2\0\x20MPF\0II*\0\x08\0\0\0\x01\0\x01\xb0\x04\0\xff\xff\xff\xff\x08\0\0\0" + jpeg[2:],
    )


NAMES = (
    "-rf.png",
    "--help.png",
    " .png",
    "new\nline.png",
    "\x1b[31mred\x1b[0m\x07.png",
    "right\u202egnp.exe.png",
    "[bold]rich[red].png",
    "%s%n{0.__class__}{.png",
    "$(touch TRAP).png",
    "`touch TRAP`;'\".png",
    "é" * 120 + ".png",
    "9" * 200 + ".png",
    "<script>alert(1)<",
)
"""Names of a good photo."""


def things() -> Iterator[tuple[str, Expect, Make]]:
    """What lies on a disk and is no file, or is one that nobody should open whole."""

    def at(name: str, act: Callable[[Path], object]) -> Make:
        return lambda place: act(place.photos / name)

    def raw_name(place: Place) -> None:
        path = os.fsencode(place.photos) + b"/\xff\xfe\x80.png"
        with open(path, "wb") as file:
            file.write(saved(noise(16, 16), "PNG"))

    def sparse(path: Path) -> None:
        with open(path, "wb") as file:
            file.truncate(40 * 2**30)

    def loop(path: Path) -> None:
        path.symlink_to(path.name)

    def ring(place: Place) -> None:
        (place.photos / "a.png").symlink_to("b.png")
        (place.photos / "b.png").symlink_to("a.png")

    def deep(place: Place) -> None:
        (place.photos / "inner").symlink_to(place.photos)

    def many(place: Place) -> None:
        for number in range(1000):
            (place.photos / f"{number}.png").write_bytes(b"no picture")

    yield "a folder named x.png", "refused", at("x.png", lambda path: path.mkdir())
    yield "a link to itself", "refused", at("x.png", loop)
    yield "a ring of links", "refused", ring
    yield "a link to nothing", "refused", at("x.png", lambda path: path.symlink_to("nothing"))
    yield "a link to /etc/passwd", "refused", at("x.png", lambda path: path.symlink_to("/etc/passwd"))
    yield "a link to /dev/zero", "refused", at("x.png", lambda path: path.symlink_to("/dev/zero"))
    yield "a link to /dev/tty", "refused", at("x.png", lambda path: path.symlink_to("/dev/tty"))
    yield "a link to /proc/self/mem", "refused", at("x.png", lambda path: path.symlink_to("/proc/self/mem"))
    yield "a link to standard input", "refused", at("x.png", lambda path: path.symlink_to("/dev/stdin"))
    yield "a folder inside that is a link to its parent", "refused", deep
    yield "a pipe", "refused", at("x.png", lambda path: os.mkfifo(path))
    yield "a sparse file of 40 GB", "refused", at("x.png", sparse)
    yield "a pickle named x.png", "refused", lambda place: (place.photos / "x.png").write_bytes(pickled(place))
    yield "a name that is no text", "taken", raw_name
    yield "a thousand bad photos", "refused", many
    yield "an empty folder", "refused", lambda place: None
    for name in NAMES:
        data = saved(noise(16, 16), "PNG")
        path = name if name.endswith(".png") else f"{name}.png"
        yield f"a photo named {path!r}", "taken", at(path, lambda path, data=data: path.write_bytes(data))


def library(place: Place) -> None:
    """The library's door: look, collect, and open each for training."""
    from stamina_diffusion.photos import collect, examine

    examine(place.photos, resolution=8)
    for photo in collect(place.photos, resolution=8):
        assert photo.load(8).size == (8, 8)


def _written(place: Place, name: str, data: bytes | Callable[[], bytes]) -> None:
    (place.photos / name).write_bytes(data if isinstance(data, bytes) else data())


LESSONS = ("one.png", "print.tiff", "grey-clear.png", "png-then-script.png")
"""Photos that the page teaches to the end; of the others it begins a teaching and stops it."""


def upload(page: Page, place: Place, name: str, data: bytes | Callable[[], bytes]) -> dict[str, Any]:
    photo = [(name, data if isinstance(data, bytes) else data())]
    return visits.taught(page, place, photo, "tom") if name in LESSONS else visits.dropped(page, place, photo)


def cases() -> Iterator[Case]:
    ways = (lambda place: ["doctor", str(place.photos), "--resolution", "8"], lambda place: learn(place, "--no-report"))
    for name, expect, data in images():
        visit = partial(upload, name=name, data=data)
        yield Case("images", name, partial(_written, name=name, data=data), ways, (library,), expect, (visit,))
    for name, expect, make in things():
        yield Case("images", name, make, ways, (library,), expect=expect)
    for name in NAMES:
        path = name if name.endswith(".png") else f"{name}.png"
        visit = partial(upload, name=path, data=saved(noise(16, 16), "PNG"))
        yield Case("images", f"an upload named {path!r}", visits=(visit,), expect="taken")
