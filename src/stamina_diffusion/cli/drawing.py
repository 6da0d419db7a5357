"""`stamina draw`: pictures of what was learned."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import StaminaError
from . import console
from .learning import Folder

if TYPE_CHECKING:
    from PIL import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def draw(
    folder: Folder,
    prompt: Annotated[
        str,
        typer.Argument(metavar="PROMPT", help='Such as "a photo of <rex> at sunset".', show_default=False),
    ],
    out: Annotated[
        Path, typer.Option(help="A picture (.png, .jpg, .webp), or a folder if it has no suffix.", show_default=False)
    ],
    count: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many pictures.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Picture k comes from seed + k.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps; by the base if not given.", show_default=False)
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="How closely to follow the prompt.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Whose settings of drawing to take: a preset's name or a TOML file.", show_default=False),
    ] = None,
) -> None:
    """Draw pictures of what the model has learned.

    Picture k is drawn from torch.Generator("cpu").manual_seed(seed + k), so that anyone can repeat it.
    """
    single, grid = places(out, count)
    console.quiet()
    from .. import settings, sheets
    from ..studio import Studio

    studio = Studio.open(folder)
    default = settings.draw_settings(preset or settings.preset_for(studio.base))
    steps = default.steps if steps is None else steps
    guidance = default.guidance if guidance is None else guidance
    studio.store(default.storage)
    backbone = studio.backbone()
    batches = -(-count // backbone.at_once)
    with console.drawing(backbone.pipeline, "drawing", batches * steps):
        pictures = backbone.draw([prompt] * count, list(range(seed, seed + count)), steps=steps, guidance=guidance)
    notes = {"prompt": prompt, "steps": steps, "guidance": guidance, "studio": studio.version}
    for k, (path, picture) in enumerate(zip(single, pictures, strict=True)):
        _write(path, picture, notes | {"seed": seed + k})
    if grid is not None:
        _write(grid, sheets.grid(pictures), notes | {"seed": seed, "pictures": count})
    console.say(str(grid or single[0]) if count > 1 or out == single[0] else "\n".join(map(str, single)))


def places(out: Path, count: int) -> tuple[Sequence[Path], Path | None]:
    """Where each picture goes, and the grid of all of them when there are several.

    >>> places(Path("a.png"), 2)
    ([PosixPath('a-0.png'), PosixPath('a-1.png')], PosixPath('a.png'))
    >>> places(Path("a"), 1)
    ([PosixPath('a/0.png')], None)
    """
    if out.is_dir() or not out.suffix:
        if out.exists() and not out.is_dir():
            raise StaminaError("is a file, not a folder", where=out, do="Give a folder, or a name that ends in .png.")
        return [out / f"{k}.png" for k in range(count)], (out / "grid.png" if count > 1 else None)
    if out.exists() and not out.is_file():  # a pipe or a device would be replaced by the picture
        raise StaminaError("is no plain file", where=out, do="Give another name.")
    if out.suffix.lower() not in FORMATS:
        do = f"Take one of {', '.join(FORMATS)}, or a name without a suffix for a folder."
        raise StaminaError(f"pictures cannot be written as {out.suffix}", where=out, do=do)
    if count == 1:
        return [out], None
    return [out.with_name(f"{out.stem}-{k}{out.suffix}") for k in range(count)], out


def _write(path: Path, picture: Image.Image, notes: Mapping[str, object]) -> None:
    from .. import files, sheets

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        data = sheets.png(picture, stamina=json.dumps(notes))
    else:
        buffer = io.BytesIO()
        picture.save(buffer, FORMATS[path.suffix.lower()], quality=95)
        data = buffer.getvalue()
    files.write_bytes(path, data)
