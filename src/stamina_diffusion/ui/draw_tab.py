"""The tab *Draw*: a prompt with the learned words at hand, seeds, a grid, and the same by an earlier version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..errors import SettingsError, UnknownWordError
from . import cards
from .desk import Desk, Refresh
from .wording import number, words_of

if TYPE_CHECKING:
    from PIL import Image

    from .history import History

MOST, LONGEST, MOST_STEPS = 9, 500, 200
NOW = -1


def build(desk: Desk, head: gr.State) -> list[Refresh]:
    """Make the tab's components and wire them; the answer is what to refresh when the studio has changed."""
    words = gr.HTML(elem_classes="st-slot")
    prompt = gr.Textbox(
        label="Prompt",
        value="a photo of ",
        placeholder="a photo of <rex> at sunset",
        max_lines=3,
        max_length=LONGEST,
        elem_id="st-prompt",
    )
    with gr.Row():
        count = gr.Slider(1, MOST, value=4, step=1, label="How many")
        seed = gr.Number(label="Seed (picture k comes from seed + k)", value=0, precision=0, minimum=0)
        compare = gr.Dropdown([("no", NOW)], value=NOW, label="Beside an earlier version", elem_id="st-compare")
    with gr.Accordion("More settings", open=False), gr.Row():
        # Text, not numbers: an empty number turns into its least value when the accordion is opened.
        steps = gr.Textbox(label="Denoising steps", placeholder="by the base", max_lines=1, max_length=8)
        guidance = gr.Textbox(label="How closely to follow it", placeholder="by the base", max_lines=1, max_length=8)
    draw = gr.Button("Draw", variant="primary", elem_id="st-draw")
    said = gr.HTML(elem_id="st-draw-said", elem_classes="st-slot")
    with gr.Row():
        with gr.Column(min_width=280):
            now = gr.Gallery(
                visible=False, columns=2, height="auto", format="png", elem_id="st-now", buttons=["download"]
            )
        with gr.Column(min_width=280, visible=False) as beside:
            before = gr.Gallery(columns=2, height="auto", format="png", elem_id="st-before", buttons=["download"])
    grid = gr.DownloadButton("Save all as one picture", visible=False)

    def make(prompt: str, *settings: Any) -> tuple[Any, ...]:
        try:
            return pictures(desk, prompt, *settings)
        except Exception as error:
            hidden = gr.update(visible=False)
            return cards.problem(words_of(error)), hidden, hidden, None, hidden

    made = [prompt, count, seed, compare, steps, guidance], [said, now, beside, before, grid]
    draw.click(make, *made, concurrency_id="model", concurrency_limit=1)
    prompt.submit(make, *made, concurrency_id="model", concurrency_limit=1)
    return [Refresh(lambda: known_words(desk), words), Refresh(lambda: choices(desk), compare, only_for_history=True)]


def pictures(
    desk: Desk,
    prompt: str,
    count: float,
    seed: float | None,
    compare: int | None,
    steps: str,
    guidance: str,
) -> tuple[Any, ...]:
    """Draw by the newest version, and by an earlier one if asked; every picture carries how it was made."""
    prompt = (prompt or "").strip()
    if not prompt:
        raise SettingsError("the prompt is empty", do="Write what to draw, such as: a photo of a tower at sunset.")
    if len(prompt) > LONGEST:
        raise SettingsError(f"the prompt has {len(prompt)} characters", do=f"Take {LONGEST} at most.")
    defaults = desk.model.defaults()
    first = int(_within("seed", seed or 0, 0, 2**32))
    how = {
        "steps": int(_within("number of steps", number("steps", steps, defaults.steps), 1, MOST_STEPS)),
        "guidance": float(_within("guidance", number("guidance", guidance, defaults.guidance), 0, 50)),
    }
    seeds = list(range(first, first + int(_within("number of pictures", count, 1, MOST))))
    found = desk.history()
    version, words = found.version, _words(found)
    folder = desk.fresh("pictures")
    notes = {"prompt": prompt, **how}
    ours = desk.model.draw(prompt, seeds, **how)
    files = _write(folder, "now", ours, notes | {"studio": version}, seeds)
    shown = gr.update(value=files, visible=True, label=f"version {version}, now")
    told, theirs, earlier = "", [], int(NOW if compare is None else compare)
    if earlier != NOW:
        try:
            theirs = desk.model.draw(prompt, seeds, **how, version=earlier)
        except UnknownWordError as error:
            told = cards.note(f"{_called(words, earlier)} cannot draw this, to compare: {error.what}.")
    beside = None
    if theirs:
        old = _write(folder, "before", theirs, notes | {"studio": earlier}, seeds)
        beside = gr.update(value=old, label=f"{_called(words, earlier)}, the same seeds")
    saved = _grid(folder, [*ours, *theirs], notes, columns=len(ours) if theirs else None)
    return told, shown, gr.update(visible=bool(theirs)), beside, gr.update(value=saved, visible=True)


def known_words(desk: Desk) -> str:
    """The learned words as buttons; what to do when there are none."""
    concepts = desk.history().concepts
    if concepts:
        return cards.fragment("words", concepts)
    what = "Teach something first, and its word will stand here. Until then the base draws what it knows by itself."
    return cards.empty("No words have been learned yet", what)


def choices(desk: Desk) -> Any:
    """The versions that can be drawn beside the newest."""
    found = desk.history()
    words = _words(found)
    numbers = [one.version for one in found.concepts[:-1]]
    earlier = [(_called(words, number), number) for number in (*reversed(numbers), *([0] if found.concepts else []))]
    return gr.update(choices=[("no", NOW), *earlier], value=NOW)


def _words(found: History) -> dict[int, str]:
    """By version the word that was learned last in it."""
    return {one.version: one.word for one in found.concepts}


def _called(words: Mapping[int, str], version: int) -> str:
    if version == 0:
        return "version 0, the base"
    return f"version {version}, after {words[version]}" if version in words else f"version {version}"


def _within(what: str, value: float, least: float, most: float) -> Any:
    if not least <= value <= most:
        raise SettingsError(f"the {what} is {value:g}", do=f"Take something from {least} to {most}.")
    return value


def _write(
    folder: Path, name: str, images: Sequence[Image.Image], notes: dict[str, Any], seeds: Sequence[int]
) -> list[tuple[str, str]]:
    from .. import sheets

    written = []
    for image, seed in zip(images, seeds, strict=True):
        path = folder / f"{name}-{seed}.png"
        path.write_bytes(sheets.png(image, stamina=json.dumps(notes | {"seed": seed})))
        written.append((str(path), f"seed {seed}"))
    return written


def _grid(folder: Path, images: Sequence[Image.Image], notes: dict[str, Any], columns: int | None = None) -> str:
    from .. import sheets

    path = folder / "grid.png"
    path.write_bytes(sheets.png(sheets.grid(images, columns), stamina=json.dumps(notes)))
    return str(path)
