"""The model card beside every export: words, a picture of each, the base, how it was learned, licence and consent."""

from __future__ import annotations

from pathlib import Path

from .. import files, sheets
from . import hosts, pictures
from .headers import base_name
from .source import Source, Written

SAMPLES = "samples.png"
NOT_STATED = "not stated"

_CARD = """\
---
{front}---

# A model that learned {count}

Made by stamina-diffusion from `{base}`, one concept after another, each folded into the weights. Format: `{to}`.

| word | class | learned by | steps | photos |
|---|---|---|---|---|
{rows}
{picture}
## Use

{use}
## What these files leave out

{lost}

## Rights

| | |
|---|---|
| Licence | {licence} |
| Consent of the persons and owners shown | {consent} |
{terms}| Base | `{base}` (`{hash}`); its own licence holds for what is made from it |
"""


def write(source: Source, to: str, folder: Path, written: Written) -> None:
    """Put README.md, and the grid of samples when pictures are wanted, into `folder`."""
    picture = ""
    grid = pictures.samples(source) if source.wanted.pictures else None
    if grid is not None:
        files.write_bytes(folder / SAMPLES, sheets.png(grid))
        shown = ", ".join(f"`{word}`" for word in list(source.words.values())[-pictures.MOST :])
        picture = f"\n![samples]({SAMPLES})\n\nDrawn by the studio's newest version, one picture a word: {shown}.\n"
    entries = source.studio.entries
    text = _CARD.format(
        front=_front(source, to),
        count="1 concept" if len(entries) == 1 else f"{len(entries)} concepts",
        base=base_name(source.studio.base),
        hash=source.studio.base["hash"][:12],
        to=to,
        rows="\n".join(
            f"| `{e.word}` | {e.class_word or ''} | {e.method} | {e.steps} | {len(e.photos)} |" for e in entries
        ),
        picture=picture,
        use=written.use,
        lost="\n".join(f"- {line}" for line in written.lost) or "Nothing.",
        licence=source.wanted.licence or NOT_STATED,
        consent=source.wanted.consent or NOT_STATED,
        terms="".join(
            f"| `{entry.word}` | licence: {entry.licence or NOT_STATED}; consent: {entry.consent or NOT_STATED} |\n"
            for entry in entries
        ),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _front(source: Source, to: str) -> str:
    """What the hub reads of a card; a base that is no hub id cannot be linked."""
    base = source.studio.base
    tags = ["text-to-image", "diffusers", hosts.known(source.now).tag, "stamina-diffusion"]
    tags += ["lora", "template:sd-lora"] if to in ("lora", "kohya") else []
    words = list(source.words.values())
    lines = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": f"[{', '.join(tags)}]",
        "license": source.wanted.licence,
        "base_model": base_name(base) if base["kind"] == "hub" else None,
        "instance_prompt": f'"a photo of {words[-1]}"' if words else None,
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items() if value)
