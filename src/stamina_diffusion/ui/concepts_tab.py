"""The tab *Concepts*: what was learned in order, how well each is kept; go back, remove, rename."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from .. import ledger
from ..errors import StaminaError, UnknownWordError
from . import cards
from .desk import Desk, Refresh
from .wording import words_of

# One listener on the element, which outlives what is drawn inside it; the buttons say what they do.
PRESSED = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (button) trigger('click', { act: button.dataset.do, name: button.dataset.name, version: button.dataset.version });
});"""


@dataclass(frozen=True)
class Asked:
    """What a person wants to do, before they have confirmed it."""

    act: Literal["rollback", "forget", "rename"]
    name: str
    """The concept to forget or rename."""
    version: int
    """The version to go back to."""
    head: str
    """The studio as they saw it."""


def build(desk: Desk, head: gr.State) -> list[Refresh]:
    """Make the tab's components and wire them; the answer is what to refresh when the studio has changed."""
    asked = gr.State(None)
    said = gr.HTML(elem_id="st-concepts-said", elem_classes="st-slot")
    with gr.Group(visible=False) as confirm:
        question = gr.HTML(padding=True, elem_id="st-question")
        shown = gr.Textbox(label="Shown name", max_lines=1, max_length=80, visible=False, elem_id="st-shown")
        with gr.Row():
            yes = gr.Button("Yes", variant="stop", elem_id="st-yes")
            no = gr.Button("Leave it as it is", elem_id="st-no")
    timeline = gr.HTML(js_on_load=PRESSED, elem_id="st-timeline", elem_classes="st-slot")

    def ask(event: gr.EventData) -> tuple[Any, ...]:
        try:
            want = wanted(desk, event._data)
            words, label = sentence(desk, want)
        except Exception as error:
            return None, cards.problem(words_of(error)), gr.update(visible=False), gr.skip(), gr.skip(), gr.skip()
        concept = desk.history().named(want.name)
        field = gr.update(visible=want.act == "rename", value=concept.shown if concept else "")
        button = gr.update(value=label, variant="primary" if want.act == "rename" else "stop")
        return want, "", gr.update(visible=True), cards.note(words), field, button

    def carry_out(want: Asked | None, shown: str | None) -> tuple[Any, ...]:
        try:
            told = cards.note(do(desk, want, shown or "")) if want else ""
        except Exception as error:
            told = cards.problem(words_of(error))
        return None, told, gr.update(visible=False), history_html(desk)

    def leave() -> tuple[Any, ...]:
        return None, gr.update(visible=False)

    timeline.click(ask, None, [asked, said, confirm, question, shown, yes])
    yes.click(carry_out, [asked, shown], [asked, said, confirm, timeline], concurrency_id="model", concurrency_limit=1)
    no.click(leave, None, [asked, confirm])
    return [Refresh(lambda: history_html(desk), timeline)]


def history_html(desk: Desk) -> str:
    """The timeline, newest first; what to do when it is empty."""
    found = desk.history()
    told = ""
    if not found.concepts:
        told = cards.empty("Nothing has been learned yet", "What you teach will stand here, in order.")
    return told + (cards.fragment("timeline", found.concepts, found.undo) if found.version else "")


def wanted(desk: Desk, pressed: Any) -> Asked:
    """What a press of a button means. Raises StaminaError for what does not exist, and while something is taught."""
    found = desk.history()
    pressed = pressed if isinstance(pressed, dict) else {}
    act, name, version = pressed.get("act"), str(pressed.get("name") or ""), str(pressed.get("version") or "0")
    if act not in ("rollback", "forget", "rename") or not re.fullmatch("[0-9]{1,9}", version):
        raise StaminaError("there is no such thing to do", do="Load the page again.")
    if act != "rollback" and found.named(name) is None:
        raise UnknownWordError(f"there is no concept {name!r} any more", do="Load the page again.")
    if act != "rename":
        desk.refuse_while_teaching()
    return Asked(act, name, int(version), found.head)


def sentence(desk: Desk, want: Asked) -> tuple[str, str]:
    """The question that is asked before anything happens, and what the button says that does it."""
    found = desk.history()
    if want.act == "rename":
        return f"How should <{want.name}> be shown? Its word in prompts stays <{want.name}>.", "Rename"
    if want.act == "forget":
        told = (
            f"Remove <{want.name}> for good? Its change, its samples and what was kept of its photos are deleted, the "
            "model is folded anew without it, and versions that held it cannot be gone back to. This cannot be undone."
        )
        return told, f"Yes, remove <{want.name}>"
    there = [entry.word for entry in ledger.read(desk.folder).entries_at(want.version)]
    undone = [one.word for one in found.concepts if one.word not in there]
    returns = [word for word in there if word not in found.words]
    told = f"Go back to version {want.version}, which knows {', '.join(there) or 'what the base knows'}?"
    told += f" This undoes {', '.join(undone)}." if undone else ""
    told += f" {', '.join(returns)} will be known again." if returns else ""
    return f"{told} Nothing is deleted: you can return.", f"Yes, go back to version {want.version}"


def do(desk: Desk, want: Asked, shown: str) -> str:
    """Do it; the answer says what was done. Raises what the studio raises, and StaminaError where it has moved on."""
    if desk.history().head != want.head:
        raise StaminaError("the studio has changed meanwhile", do="Look again, then decide.")
    studio = desk.model.studio()
    if want.act == "rename":
        studio.rename(want.name, shown)
        return f"<{want.name}> is now shown as {shown.strip()}."
    desk.refuse_while_teaching()
    if want.act == "rollback":
        version = studio.rollback(want.version)
        words = ", ".join(entry.word for entry in studio.entries) or "what the base knows"
        return f"The model is as it was at version {want.version}. It is now version {version}, which knows {words}."
    gone = studio.forget(want.name)
    lines = [f"{gone.word} is removed, and checked: {gone.answer}."]
    for effect in gone.effects:
        if effect.before is not None and effect.after is not None:
            lines.append(f"{effect.word}: kept {effect.before:.2f} before, {effect.after:.2f} now.")
    if gone.approximate:
        lines.append(gone.approximate)
    if gone.unreachable:
        lines.append(f"Gone with it, since they stood on it: {', '.join(gone.unreachable)}.")
    lines.append("Exports and pictures outside the studio are yours to delete.")
    return "\n".join(lines)
