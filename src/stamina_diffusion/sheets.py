"""Sheets: pictures of pictures, that show at a glance what was learned and what is still known."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

INK, SOFT, PAPER, CARD, LINE, ACCENT = "#1d2430", "#6b7484", "#f4f5f7", "#ffffff", "#dde1e7", "#2f6fde"
TILE_LIMIT = 192
"""Tiles are shown at most this wide, and small pictures are shown larger."""
GAP, MARGIN, LABELS = 6, 24, 66


@dataclass(frozen=True)
class Block:
    """One concept on a sheet: its photos above, what the model draws of it below."""

    title: str
    note: str
    photos: Sequence[Image.Image | None]
    """None stands for a photo that is no longer where it was."""
    samples: Sequence[Image.Image]
    new: bool = False
    labels: tuple[str, str] = ("photos", "drawn")
    """What the upper and the lower pictures are."""
    absent: str = "none"
    """What is written where there are no pictures."""


def tile_width(resolution: int) -> int:
    """How wide a picture is shown: twice its size when it is small.

    >>> tile_width(64), tile_width(512)
    (128, 192)
    """
    return min(2 * resolution, TILE_LIMIT) if resolution >= 32 else 64


def concept_sheet(header: str, detail: str, blocks: Sequence[Block], *, resolution: int) -> Image.Image:
    """The picture after a concept was learned: a card for it and for every other one."""
    tile = tile_width(resolution)
    across = max([1, *(max(len(block.photos), len(block.samples)) for block in blocks)])
    card = (LABELS + across * (tile + GAP) + MARGIN, 44 + 2 * (tile + GAP) + 14)
    # Cards stand side by side so that the sheet of many concepts is not a ribbon.
    columns = max(1, min(len(blocks), round((len(blocks) * card[1] / card[0]) ** 0.5)))
    rows = -(-len(blocks) // columns)
    width = max(MARGIN + columns * (card[0] + MARGIN), 520)
    sheet = Image.new("RGB", (width, 92 + rows * (card[1] + MARGIN)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 18), _fitted(header, 26, width - 2 * MARGIN), fill=INK, font=_font(26))
    pen.text((MARGIN, 54), _fitted(detail, 15, width - 2 * MARGIN), fill=SOFT, font=_font(15))
    for place, block in enumerate(blocks):
        corner = (MARGIN + place % columns * (card[0] + MARGIN), 86 + place // columns * (card[1] + MARGIN))
        _card(sheet, pen, corner, card, block, tile)
    return sheet


def _card(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    size: tuple[int, int],
    block: Block,
    tile: int,
) -> None:
    left, top = corner
    box = (left, top, left + size[0], top + size[1])
    pen.rounded_rectangle(box, 10, CARD, outline=ACCENT if block.new else LINE, width=2 if block.new else 1)
    title = _font(18)
    pen.text((left + 14, top + 11), block.title, fill=INK, font=title)
    after = left + 14 + int(title.getlength(block.title)) + 12
    if block.new:
        pen.rounded_rectangle((after, top + 12, after + 40, top + 32), 9, ACCENT)
        pen.text((after + 20, top + 22), "new", fill="white", font=_font(13), anchor="mm")
        after += 52
    pen.text((after, top + 15), _fitted(block.note, 13, box[2] - after - 12), fill=SOFT, font=_font(13))
    for line, (label, pictures) in enumerate(zip(block.labels, (block.photos, block.samples), strict=True)):
        y = top + 44 + line * (tile + GAP)
        pen.text((left + 14, y + tile // 2), label, fill=SOFT, font=_font(13), anchor="lm")
        if not pictures:
            pen.text((left + LABELS, y + tile // 2), block.absent, fill=SOFT, font=_font(13), anchor="lm")
        for place, picture in enumerate(pictures):
            sheet.paste(_tile(picture, tile), (left + LABELS + place * (tile + GAP), y))


def _tile(picture: Image.Image | None, width: int) -> Image.Image:
    if picture is None:
        gone = Image.new("RGB", (width, width), "#d4d7dc")
        words = "photo\nmoved"
        ImageDraw.Draw(gone).text((width / 2, width / 2), words, fill=SOFT, font=_font(13), anchor="mm", align="center")
        return gone
    return picture.convert("RGB").resize((width, width), Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitted(text: str, size: int, width: int) -> str:
    """The text, cut with an ellipsis where it would be wider than `width` pixels."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def grid(pictures: Sequence[Image.Image], columns: int | None = None, gap: int = 4) -> Image.Image:
    """Pictures of one size side by side on white, as square an arrangement as their number allows."""
    columns = columns or next(c for c in range(1, len(pictures) + 1) if c * c >= len(pictures))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    picture = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for place, one in enumerate(pictures):
        picture.paste(one, (place % columns * (width + gap), place // columns * (height + gap)))
    return picture


def source_photo(path: Path, sha256: str, resolution: int) -> Image.Image | None:
    """A concept's source photo as it was learned, or None when it is no longer there or no longer the same."""
    from .errors import PhotoError
    from .photos import Photo

    try:
        return Photo(path, sha256, (0, 0)).load(resolution)
    except (PhotoError, OSError):
        return None


def png(picture: Image.Image, **notes: str) -> bytes:
    """A picture as the bytes of a PNG file, with notes in its text fields."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in notes.items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def address(kind: str, data: bytes) -> str:
    """The bytes of a picture file as a data address, for pages that are one file.

    >>> address("png", b"...")
    'data:image/png;base64,Li4u'
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def addressed(picture: Image.Image, kind: Literal["jpeg", "webp"], quality: int, lossless: bool = False) -> str:
    """A picture as a data address; without loss only as WebP, where `quality` is then the effort to be small."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality, lossless=lossless)
    return address(kind, buffer.getvalue())
