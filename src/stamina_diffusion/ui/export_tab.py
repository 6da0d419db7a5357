"""The tab *Export*: the model as one file to download, for other programs."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import ExportError
from . import cards
from .desk import Desk, Refresh
from .wording import words_of

KNOWN = {
    "diffusers": "diffusers: the whole model as a plain pipeline; one call of from_pretrained loads it",
    "checkpoint": "checkpoint: the whole model in one file for A1111, Forge and ComfyUI, its words beside it",
    "weights": "weights: the changed weights alone, exact, for load_state_dict",
    "kohya": "kohya: the changes, exact, with a strength slider in ComfyUI, A1111 and Forge",
    "lora": "lora: an ordinary LoRA; near, not exact, and it says how near",
    "embeddings": "embeddings: the words alone, as textual inversions",
}
"""Words for formats; one that is not here is shown by its name."""


def build(desk: Desk, head: gr.State) -> list[Refresh]:
    """Make the tab's components and wire them; the answer is what to refresh when the studio has changed."""
    from ..exports import FORMATS

    state = gr.HTML(elem_classes="st-slot")
    to = gr.Radio(
        [(KNOWN.get(name, name), name) for name in FORMATS], value=next(iter(FORMATS)), label="Format", elem_id="st-to"
    )
    make = gr.Button("Make the file", variant="primary", elem_id="st-make")
    said = gr.HTML(elem_id="st-export-said", elem_classes="st-slot")
    get = gr.DownloadButton("Download", visible=False, elem_id="st-get")

    def pack(to: str | None) -> tuple[Any, ...]:
        try:
            path, told = packed(desk, to)
        except Exception as error:
            return cards.problem(words_of(error)), gr.update(visible=False)
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        words = "\n".join([f"{path.name} is ready ({size}).", *told])
        return cards.note(words), gr.update(value=str(path), visible=True)

    make.click(pack, [to], [said, get], concurrency_id="model", concurrency_limit=1)
    return [Refresh(lambda: greet(desk), state)]


def greet(desk: Desk) -> str:
    """What would be exported."""
    found = desk.history()
    if not found.words:
        what = "You can export the base as it is; teach something first, and it will be in there with its word."
        return cards.empty("Nothing has been learned yet", what)
    return cards.note(f"The file will hold version {found.version}, which knows {', '.join(found.words)}.")


def packed(desk: Desk, to: str | None) -> tuple[Path, list[str]]:
    """The newest version in a format, as a zip of its folder, and what there is to say about it."""
    from .. import exports

    if to not in exports.FORMATS:
        raise ExportError(f"there is no format {to!r}", do="Choose one of those above.")
    folder = desk.fresh("export")
    name = f"{_safe(desk.folder.resolve().name)}-{desk.history().version}-{_safe(to)}"
    told: list[str] = []
    written = exports.export(desk.model.studio(), to, folder / name, tell=told.append)
    archive = folder / f"{name}.zip"
    # Stored, not deflated: weights do not get smaller, and compressing gigabytes takes minutes.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(written.rglob("*")):
            if path.is_file():
                file.write(path, Path(name) / path.relative_to(written))
                os.unlink(path)  # half the room on the disk
    return archive, told


def _safe(text: str) -> str:
    """
    >>> _safe("my <studio>")
    'my__studio_'
    """
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)
