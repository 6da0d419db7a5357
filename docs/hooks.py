"""What the site says about commands, methods and decisions is read from where it stands, so that it cannot grow old."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

DECISIONS = Path(__file__).parent / "decisions"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a page asks for by `{{ commands }}`, `{{ methods }}` or `{{ decisions }}`."""
    for name, made in {"commands": commands, "methods": methods, "decisions": decisions}.items():
        if (place := f"{{{{ {name} }}}}") in markdown:
            markdown = markdown.replace(place, made())
    return markdown


def commands() -> str:
    """Every command with its help, as typer describes it."""
    import typer.main
    from typer.cli import get_docs_for_click

    from stamina_diffusion.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="stamina")
    return text.split("\n", 1)[1]


def methods() -> str:
    """Every method with its equation, its paper and its settings."""
    import dataclasses

    from stamina_diffusion.methods import METHODS, method_class

    parts = []
    for name in METHODS:
        cls = method_class(name)
        module = inspect.getdoc(inspect.getmodule(cls)) or ""
        settings = ", ".join(f"`{field.name}={field.default!r}`" for field in dataclasses.fields(cls) if field.init)
        parts += [f"## {name}", module, f"```text\n{inspect.getdoc(cls)}\n```", f"Source: {cls.paper}."]
        parts += [f"Settings: {settings}."]
    return "\n\n".join(parts)


def decisions() -> str:
    """The decisions by their titles."""
    pages = sorted(DECISIONS.glob("0*.md"))
    return "\n".join(f"- [{page.read_text().splitlines()[0].lstrip('# ')}]({page.name})" for page in pages)
