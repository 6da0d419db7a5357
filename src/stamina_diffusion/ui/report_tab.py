"""The tab *Report*: how well everything is kept, as the last report measured it, and its pictures."""

from __future__ import annotations

from typing import Any

import gradio as gr

from . import cards, history
from .desk import Desk

SHEET_HEIGHT = 1400


def build(desk: Desk, head: gr.State) -> list[tuple[Any, list[Any]]]:
    """Make the tab's components; the answer is what to refresh when the studio has changed."""
    page = gr.HTML(elem_id="st-report", elem_classes="st-slot")
    return [(lambda: report_html(desk), [page])]


def report_html(desk: Desk) -> str:
    """The kept table and the newest sheet."""
    found = desk.history()
    if not found.concepts:
        return cards.empty("There is nothing to report yet", "After each concept that you teach, all are drawn again.")
    newest = found.concepts[-1]
    sheet = history.shrunk(desk.folder / "samples" / f"{newest.version}-{newest.name}.png", SHEET_HEIGHT)
    shown = cards.fragment("kept_table", found.table(), [one.version for one in found.concepts])
    if sheet:
        shown += cards.fragment("sheet", sheet, f"every concept, drawn after {newest.word} was learned")
    return shown
