"""The tab *Teach*: drop photos, see them checked, name the thing, watch it being learned, stop it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from . import cards, history
from .desk import Desk, Refresh
from .lesson import Request
from .lessons import Lesson
from .uploads import PHOTO_LIMIT, Refusal, Tray
from .wording import number, words_of

PHOTO_HEIGHT = 168
SAMPLE_HEIGHT = 176
LONGEST_TERMS = 300
BUSY, IDLE = 1.0, 5.0
"""Seconds between looks at the lesson and at the ledger: while something is taught, and else."""


def build(desk: Desk, head: gr.State, pulse: gr.Timer) -> list[Refresh]:
    """Make the tab's components and wire them; the answer is what to refresh when the studio has changed."""
    from ..methods import METHODS
    from ..settings import presets

    tray, mine, seen = gr.State(None, delete_callback=_remove), gr.State(None), gr.State("")
    pace = gr.State(0.0)
    greeting = gr.HTML(elem_classes="st-slot")
    drop = gr.File(
        label=f"Photos of one thing, at most {PHOTO_LIMIT}",  # short: on a phone a second line would cover the icon
        file_count="multiple",
        file_types=["image"],
        height=150,
        elem_id="st-drop",
    )
    checked = gr.HTML(elem_classes="st-slot")
    with gr.Row():
        name = gr.Textbox(
            label="Name", info="'rex' makes the word <rex>", max_lines=1, max_length=40, elem_id="st-name"
        )
        class_word = gr.Textbox(label="What kind of thing it is (optional)", info="dog, face, tower", max_lines=1)
    with gr.Accordion("More settings", open=False):
        with gr.Row():
            method = gr.Dropdown([("by the preset", ""), *sorted(METHODS)], value="", label="Method")
            preset = gr.Dropdown([("by the base", ""), *presets()], value="", label="Preset")
        with gr.Row():
            # Text, not numbers: an empty number turns into its least value when the accordion is opened.
            steps = gr.Textbox(label="Steps", placeholder="by the preset", max_lines=1, max_length=8)
            seed = gr.Textbox(label="Seed", placeholder="0", max_lines=1, max_length=10)
        limit = gr.Textbox(
            label="Let it in only if no earlier concept falls by more than",
            info="0.1 is a tenth of its kept score; empty lets in whatever was learned",
            placeholder="no limit",
            max_lines=1,
            max_length=8,
            elem_id="st-limit",
        )
        with gr.Row():
            consent = gr.Textbox(
                label="Who agreed to its photos being learned",
                info="stays with the concept",
                max_lines=1,
                max_length=LONGEST_TERMS,
                elem_id="st-consent",
            )
            licence = gr.Textbox(
                label="What it may be used for",
                info="stays with the concept",
                max_lines=1,
                max_length=LONGEST_TERMS,
                elem_id="st-licence",
            )
    with gr.Row():
        teach = gr.Button("Teach", variant="primary", elem_id="st-teach")
        clear = gr.Button("Take the photos away", elem_id="st-clear")
    said = gr.HTML(elem_id="st-teach-said", elem_classes="st-slot")
    panel = gr.HTML(elem_id="st-lesson", elem_classes="st-slot")
    with gr.Row():
        stop = gr.Button("Stop teaching", visible=False, elem_id="st-stop")
        unqueue = gr.Button("Take the last one out of the queue", visible=False)

    def take(files: list[str] | None, tray: Tray | None) -> tuple[Any, ...]:
        tray = tray or Tray(desk.private)
        try:
            refused = tray.add([Path(file) for file in files or []])
            return None, tray, _shown(desk, tray, refused), ""
        except Exception as error:
            return None, tray, gr.skip(), cards.problem(words_of(error))

    def begin(tray: Tray | None, name: str, class_word: str, *settings: Any) -> tuple[Any, ...]:
        try:
            one = queue(desk, tray, (name or "").strip(), (class_word or "").strip() or None, *settings)
        except Exception as error:
            return gr.skip(), cards.problem(words_of(error)), gr.skip(), gr.skip()
        return one, "", BUSY, gr.Timer(BUSY)

    def empty_tray(tray: Tray | None) -> tuple[Any, ...]:
        _remove(tray)
        return None, "", ""

    def beat(tray: Tray | None, mine: Lesson | None, seen: str, pace: float) -> tuple[Any, ...]:
        one, waiting = shown_lesson(desk), desk.lessons.waiting
        text = lesson_card(desk, one, waiting) if one else ""
        done = mine is not None and mine.version is not None and mine.over
        wanted = BUSY if desk.lessons.running else IDLE
        if text == seen and not done and pace == wanted:
            return (gr.skip(),) * 10
        timing = (gr.skip(), gr.skip()) if pace == wanted else (wanted, gr.Timer(wanted))
        stoppable = one is not None and one.stage in ("waiting", "loading", "learning")
        cleared: tuple[Any, ...] = (gr.skip(),) * 4
        if mine is not None and done:
            cleared = (gr.skip(), None, gr.skip(), gr.skip())
            if holds(tray, mine):  # they have been learned: room for the next ones
                _remove(tray)
                cleared = (None, None, "", "")
        buttons = gr.update(visible=stoppable), gr.update(visible=bool(waiting))
        return text, text, *buttons, *cleared, *timing

    def halt() -> None:
        if desk.lessons.running is not None:
            desk.lessons.stop(desk.lessons.running)

    def halt_last() -> None:
        if desk.lessons.waiting:
            desk.lessons.stop(desk.lessons.waiting[-1])

    drop.upload(take, [drop, tray], [drop, tray, checked, said])
    asked = [tray, name, class_word, method, preset, steps, seed, limit, consent, licence]
    teach.click(begin, asked, [mine, said, pace, pulse])
    clear.click(empty_tray, [tray], [tray, checked, said])
    stop.click(halt, None, None)
    unqueue.click(halt_last, None, None)
    pulse.tick(
        beat,
        [tray, mine, seen, pace],
        [panel, seen, stop, unqueue, tray, mine, name, checked, pace, pulse],
        queue=False,
        show_progress="hidden",
    )
    return [Refresh(lambda: greet(desk), greeting)]


def queue(
    desk: Desk,
    tray: Tray | None,
    name: str,
    class_word: str | None,
    method: str,
    preset: str,
    steps: str,
    seed: str,
    limit: str = "",
    consent: str = "",
    licence: str = "",
) -> Lesson:
    """Check everything that can be checked now, and put the teaching into the queue."""
    from ..errors import PhotoError, SettingsError, UnsafeNameError
    from ..settings import preset_for, presets, resolve

    if tray is None or not tray.names:
        raise PhotoError("there are no photos yet", do="Drop some above: four or more of the same thing are good.")
    if not name:
        raise UnsafeNameError("it has no name yet", do="Give it one, such as rex: it is then drawn as <rex>.")
    if preset and preset not in presets():
        raise SettingsError(f"there is no preset {preset!r}")
    studio = desk.model.studio()
    studio.check_name(name)
    desk.refuse_taught(name)
    whole = int(number("steps", steps, 0)) or None
    start = int(number("seed", seed, 0))
    if (whole or 1) < 1 or start < 0:
        raise SettingsError("steps or seed is below what is possible", do="Take 1 step or more, and a seed from 0.")
    most = number("the limit", limit, math.inf)
    if most < 0:
        raise SettingsError(f"the limit is {most:g}", do="Take 0 or more, such as 0.1; or leave it empty.")
    resolved = resolve(preset or preset_for(studio.base), method or None, steps=whole, seed=start)
    if resolved.method.word_start == "class" and not class_word:
        raise SettingsError("this preset begins from the kind of thing", do="Say what kind of thing it is.")
    tray.drop_unfit(tray.examine(desk.model.resolution()))
    if not tray.names:
        raise PhotoError("none of these photos can be used", do="Drop others.")
    folder = desk.lessons.new_folder()
    photos = tray.copy_to(folder / "photos")
    request = Request(
        studio=str(desk.folder.resolve()),
        photos=[str(photo) for photo in photos],
        name=name,
        class_word=class_word,
        method=resolved.method.name,
        preset=preset or None,
        steps=whole,
        seed=start,
        samples=str(folder / "samples"),
        max_forgetting=most if math.isfinite(most) else None,
        consent=(consent or "").strip()[:LONGEST_TERMS] or None,
        licence=(licence or "").strip()[:LONGEST_TERMS] or None,
    )
    return desk.lessons.add(request, folder)


def holds(tray: Tray | None, one: Lesson) -> bool:
    """Whether a tray still has a lesson's photos and no others: the next ones may have been dropped meanwhile."""
    return tray is not None and {path.name for path in tray.names} == {Path(path).name for path in one.request.photos}


def greet(desk: Desk) -> str:
    """What a newcomer is told, and what was left half done."""
    told = ""
    if not desk.history().concepts:
        what = "Drop four or more photos of one thing, give it a name and press Teach. Then draw it wherever you like."
        told = cards.empty("This studio has learned nothing yet", what)
    taught = {one.name for one in desk.lessons.all if not one.over}
    for name in (name for name in history.pending(desk.folder) if name not in taught):
        words = f"<{name}> is half learned. Drop the same photos, give the same name and settings, and it goes on."
        told += cards.note(words)
    return told


def shown_lesson(desk: Desk) -> Lesson | None:
    """The lesson at work, else the last one."""
    return desk.lessons.running or (desk.lessons.all[-1] if desk.lessons.all else None)


def lesson_card(desk: Desk, one: Lesson, waiting: list[Lesson]) -> str:
    """How far a lesson is."""
    from ..cli.console import clock

    left = one.seconds_left(time.monotonic())
    samples = [(at, history.shrunk(path, SAMPLE_HEIGHT)) for at, path in list(one.samples)]
    final = history.shrunk(desk.folder / "samples" / f"{one.name}.png", SAMPLE_HEIGHT) if one.stage == "done" else None
    return cards.fragment(
        "lesson",
        one,
        "" if left is None else clock(left),
        "" if one.loss is None else f"{one.loss:.3f}",
        [(at, picture) for at, picture in samples if picture],
        final,
        waiting,
    )


def _shown(desk: Desk, tray: Tray, refused: list[Refusal]) -> str:
    """The photos as they will be learned, and what was found in them."""
    seen = tray.examine(desk.model.resolution())
    photos = [
        {"name": tray.names[photo.path], "picture": history.inline(photo.load(PHOTO_HEIGHT), PHOTO_HEIGHT)}
        for photo in seen.photos
    ]
    findings = [
        {
            "severity": finding.severity,
            "name": tray.names.get(finding.path) if finding.path else None,
            "what": _renamed(finding.what, tray),
            "do": _renamed(finding.do, tray),
        }
        for finding in seen.findings
    ]
    tray.drop_unfit(seen)
    return cards.fragment("tray", photos, findings, [replace(one) for one in refused], PHOTO_LIMIT)


def _renamed(text: str, tray: Tray) -> str:
    """Findings name a file's neighbours: by the names that the person gave them."""
    for path, name in tray.names.items():
        text = text.replace(path.name, name)
    return text


def _remove(tray: Tray | None) -> None:
    if tray is not None:
        tray.remove()
