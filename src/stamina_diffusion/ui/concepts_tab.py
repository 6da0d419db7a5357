"""The tab *Concepts*: what was learned in order, how well each is kept; go back, remove, rename."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from ..errors import StaminaError, UnknownWordError
from . import cards
from .desk import Desk
from .wording import words_of

# One listener on the element, which outlives what is drawn inside it; the buttons say what they do.
PRESSED = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (button) trigger('click', { act: button.dataset.do, name: button.dataset.name });
});"""


@dataclass(frozen=True)
class Asked:
    """What a person wants to do, before they have confirmed it."""

    act: Literal["rollback", "forget", "rename"]
    name: str
    """The concept; empty for the base."""
    head: str
    """The studio as they saw it."""


def build(desk: Desk, head: gr.State) -> list[tuple[Any, list[Any]]]:
    """Make the tab's components and wire them; the answer is what to refresh when the studio has changed."""
    asked = gr.State(None)
    said = gr.HTML(elem_id="st-concepts-said", elem_classes="st-slot")
    with gr.Group(visible=False, elem_id="st-confirm") as confirm:
        question = gr.HTML(padding=True)
        shown = gr.Textbox(label="Shown name", max_lines=1, max_length=80, visible=False, elem_id="st-shown")
        with gr.Row():
            yes = gr.Button("Yes", variant="stop", elem_id="st-yes")
            no = gr.Button("Leave it as it is", elem_id="st-no")
    timeline = gr.HTML(js_on_load=PRESSED, elem_id="st-timeline", elem_classes="st-slot")

    def ask(event: gr.EventData) -> tuple[Any, ...]:
        try:
            want = wanted(desk, str(event._data.get("act")), str(event._data.get("name")))
        except Exception as error:
            return None, cards.problem(words_of(error)), gr.update(visible=False), gr.skip(), gr.skip(), gr.skip()
        words, label = sentence(desk, want)
        concept = desk.history().named(want.name)
        field = gr.update(visible=want.act == "rename", value=concept.shown if concept else "")
        button = gr.update(value=label, variant="primary" if want.act == "rename" else "stop")
        return want, "", gr.update(visible=True), cards.note(words), field, button

    def carry_out(want: Asked | None, shown: str) -> tuple[Any, ...]:
        try:
            told = cards.note(do(desk, want, shown)) if want else ""
        except Exception as error:
            told = cards.problem(words_of(error))
        return None, told, gr.update(visible=False), history_html(desk)

    def leave() -> tuple[Any, ...]:
        return None, gr.update(visible=False)

    timeline.click(ask, None, [asked, said, confirm, question, shown, yes])
    yes.click(carry_out, [asked, shown], [asked, said, confirm, timeline], concurrency_id="model", concurrency_limit=1)
    no.click(leave, None, [asked, confirm])
    return [(lambda: history_html(desk), [timeline])]


def history_html(desk: Desk) -> str:
    """The timeline, newest first; what to do when it is empty."""
    found = desk.history()
    if not found.concepts:
        return cards.empty("Nothing has been learned yet", "What you teach will stand here, in order.")
    return cards.fragment("timeline", found.concepts)


def wanted(desk: Desk, act: str, name: str) -> Asked:
    """What a press of a button means. Raises StaminaError for what does not exist, and while something is taught."""
    found = desk.history()
    if act not in ("rollback", "forget", "rename"):
        raise StaminaError(f"there is nothing called {act!r} to do")
    if found.named(name) is None and not (act == "rollback" and name == ""):
        raise UnknownWordError(f"there is no concept {name!r} any more", do="Load the page again.")
    if act != "rename":
        desk.refuse_while_teaching()
    return Asked(act, name, found.head)  # type: ignore[arg-type]


def sentence(desk: Desk, want: Asked) -> tuple[str, str]:
    """The question that is asked before anything happens, and what the button says that does it."""
    found = desk.history()
    concept = found.named(want.name)
    if want.act == "rename":
        return f"How should <{want.name}> be shown? Its word in prompts stays <{want.name}>.", "Rename"
    if want.act == "forget":
        later = [one.word for one in found.concepts if concept and one.version > concept.version]
        told = f"Remove <{want.name}>? Its change, its samples and what was kept of its photos are deleted."
        if later:
            told += f" The model is built anew without it; {', '.join(later)} stay{'s' if len(later) == 1 else ''}."
        return told, f"Yes, remove <{want.name}>"
    target = concept.version if concept else 0
    undone = [one.word for one in found.concepts if one.version > target]
    where = f"version {target}, after <{want.name}>" if concept else "the base, before anything was learned"
    return f"Go back to {where}? This undoes {', '.join(undone)}.", f"Yes, undo {', '.join(undone)}"


def do(desk: Desk, want: Asked, shown: str) -> str:
    """Do it; the answer says what was done. Raises what the studio raises, and StaminaError where it has moved on."""
    found = desk.history()
    if found.head != want.head:
        raise StaminaError("the studio has changed meanwhile", do="Look again, then decide.")
    studio = desk.model.studio()
    if want.act == "rename":
        studio.rename(want.name, shown.strip())
        return f"<{want.name}> is now shown as {shown.strip()!r}."
    desk.refuse_while_teaching()
    if want.act == "forget":
        studio.forget(want.name)
        return f"<{want.name}> is removed. The studio is at version {desk.history().version}."
    concept = found.named(want.name)
    number = studio.rollback(concept.version if concept else 0)
    return f"The studio is back at version {number}."
