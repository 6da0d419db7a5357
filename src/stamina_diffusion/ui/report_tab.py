"""The tab *Report*: the page that `stamina report` writes, shut in a frame; until it is written, the newest sheet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import StaminaError
from . import cards, history
from .desk import Desk, Refresh
from .wording import words_of

SHEET_HEIGHT = 1400
FILE = "report.html"
"""What `stamina report DIR` writes into the studio."""


def build(desk: Desk, head: gr.State) -> list[Refresh]:
    """Make the tab's components and wire them; the answer is what to refresh when the studio has changed."""
    write = gr.Button("Write the full report", visible=can_report(), elem_id="st-write")
    said = gr.HTML(elem_id="st-report-said", elem_classes="st-slot")
    page = gr.HTML(elem_id="st-report", elem_classes="st-slot")

    def make() -> tuple[Any, ...]:
        try:
            desk.refuse_while_teaching()
            write_report(desk.folder)
        except Exception as error:
            return cards.problem(words_of(error)), gr.skip()
        return "", report_html(desk)

    write.click(make, None, [said, page], concurrency_id="model", concurrency_limit=1)
    return [Refresh(lambda: report_html(desk), page)]


def can_report() -> bool:
    """Whether this version has `stamina report`."""
    from ..cli import app

    names = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    return "report" in names


def write_report(folder: Path) -> None:
    """Measure what was not measured, and write the page. Raises StaminaError with what the command said."""
    command = [sys.executable, "-m", "stamina_diffusion", "report", str(folder)]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8")
    if ran.returncode:
        told = [line for line in ran.stderr.splitlines() if line.strip()]
        start = next((place for place, line in enumerate(told) if line.startswith("error: ")), len(told) - 1)
        raise StaminaError("\n".join(told[start:]).removeprefix("error: ") or "the report could not be written")


def report_html(desk: Desk) -> str:
    """The report's page if it is as new as the studio; else the kept table and the newest sheet."""
    found = desk.history()
    if not found.concepts:
        return cards.empty("There is nothing to report yet", "After each concept that you teach, all are drawn again.")
    page = desk.folder / FILE
    if page.is_file() and page.stat().st_mtime >= (desk.folder / "ledger.json").stat().st_mtime:
        return cards.fragment("framed", page.read_text(encoding="utf-8"))
    newest = found.concepts[-1]
    sheet = history.shrunk(desk.folder / "samples" / f"{newest.version}-{newest.name}.png", SHEET_HEIGHT)
    shown = cards.fragment("kept_table", found.table(), [one.version for one in found.concepts])
    if sheet:
        shown += cards.fragment("sheet", sheet, f"every concept, drawn after {newest.word} was learned")
    return shown
