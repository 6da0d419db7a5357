"""Drawn pictures are kept as one PNG: a row a concept, its pictures side by side, without loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .. import files, sheets

SIDE = "side"


def write(path: Path, rows: Sequence[Sequence[Image.Image]]) -> None:
    """Keep rows of square pictures of one size, as many in each."""
    across = len(rows[0])
    if not across:
        return
    picture = sheets.grid([one for row in rows for one in row], across, gap=0)
    files.write_bytes(path, sheets.png(picture, **{SIDE: str(rows[0][0].width)}))


def read(path: Path) -> list[list[Image.Image]]:
    """What `write` kept; a row without pictures for each where there is no file."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
        side = int(file.info[SIDE])
    return [
        [picture.crop((x, y, x + side, y + side)) for x in range(0, picture.width, side)]
        for y in range(0, picture.height, side)
    ]
