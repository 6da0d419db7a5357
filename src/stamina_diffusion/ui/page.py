"""The page: five tabs over one studio, refreshed when the studio changes, from whichever side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from . import cards, concepts_tab, draw_tab, export_tab, history, report_tab, teach_tab
from .desk import Desk, Refresh
from .wording import words_of

HERE = Path(__file__).parent
# Only fonts that a system has: Gradio's own would be fetched from elsewhere.
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def build(desk: Desk) -> gr.Blocks:
    """The whole page for a desk."""
    with gr.Blocks(title=f"{desk.folder.resolve().name} - stamina", delete_cache=(600, 3600)) as page:
        head = gr.State("")
        pulse = gr.Timer(teach_tab.BUSY)
        top = gr.HTML(elem_classes="st-slot")
        refreshers = [Refresh(lambda: _top(desk), top)]
        with gr.Tabs():
            with gr.Tab("Teach", id="teach"):
                refreshers += teach_tab.build(desk, head, pulse)
            with gr.Tab("Draw", id="draw"):
                refreshers += draw_tab.build(desk, head)
            with gr.Tab("Concepts", id="concepts"):
                refreshers += concepts_tab.build(desk, head)
            with gr.Tab("Report", id="report"):
                refreshers += report_tab.build(desk, head)
            with gr.Tab("Export", id="export"):
                refreshers += export_tab.build(desk, head)
        outputs = [one.output for one in refreshers]

        def look(seen: str) -> list[Any]:
            now = state(desk)
            if now == seen:
                return [gr.skip()] * (1 + len(outputs))
            try:
                same = now.split()[0] == seen.partition(" ")[0]  # the ledger's part
                return [now, *(gr.skip() if same and one.only_for_history else one.fill() for one in refreshers)]
            except Exception as error:
                return [now, cards.problem(words_of(error)), *[gr.skip()] * (len(outputs) - 1)]

        quietly = {"queue": False, "show_progress": "hidden"}
        page.load(look, [head], [head, *outputs], **quietly)
        pulse.tick(look, [head], [head, *outputs], **quietly)
    return page


def state(desk: Desk) -> str:
    """What changes when anything on the page but the lesson has to be filled in anew."""
    times = [_changed(desk.folder / name) for name in ("ledger.json", "kept.json")]
    return " ".join([*times, *history.pending(desk.folder)])


def _changed(path: Path) -> str:
    return str(path.stat().st_mtime_ns) if path.exists() else "-"


def looks() -> dict[str, Any]:
    """What `launch` needs to know of the page's looks."""
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO).set(
        # Darker than Gradio's own, for a contrast of at least 4.5 to 1 (WCAG AA).
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
        button_cancel_background_fill_dark="#b91c1c",
        button_cancel_background_fill_hover_dark="#991b1b",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
    script = (HERE / "page.js").read_text(encoding="utf-8")
    style = (HERE / "page.css").read_text(encoding="utf-8")
    # Twice: Gradio puts `css` below its own container, where it wins over Gradio's rules, but rules for the container
    # itself, its margins and the tabs, are lost there and must stand in the head.
    return {"theme": theme, "css": style, "head": f"<style>{style}</style><script>{script}</script>"}


def _top(desk: Desk) -> str:
    found = desk.history()
    return cards.fragment("top", desk.folder.resolve().name, found.base, found.version, len(found.concepts))
