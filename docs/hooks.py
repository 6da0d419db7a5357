"""What the site says of commands, methods, decisions and results is read from where it stands: it cannot grow old."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

DECISIONS = Path(__file__).parent / "decisions"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WAYS = {"command": "the command line", "library": "the library", "page": "the web page", "process": "real processes"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a page asks for, such as `{{ commands }}`, by the function of that name here."""
    for made in (commands, methods, decisions, faults, hostile, recipes):
        if (place := f"{{{{ {made.__name__} }}}}") in markdown:
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


def faults() -> str:
    """How many faults of each kind were tried, and what was lost."""
    found = _results("faults")
    if found is None:
        return "No results are committed yet: `make faults` makes them."
    rows = [f"| {kind} | {count} |" for kind, count in found["by_kind"].items()]
    rows += [f"| all | {found['faults']} |", f"| survived | {found['survived']} |", f"| lost | {found['failed']} |"]
    random = found["detail"].get("killed at random", {})
    late = sum(count for word, count in random.items() if not word.endswith("before the commit"))
    said = f"Of the {sum(random.values())} kills at random moments {late} fell behind the commit. " if random else ""
    return "\n".join(["| fault | tried |", "|---|---|", *rows, "", said + _made_by(found)])


def hostile() -> str:
    """How many inputs of each kind were given, and what went wrong."""
    found = _results("hostile")
    if found is None:
        return "No results are committed yet: `make hostile` makes them."
    rows = [f"| {kind} | {count} | {found['passed_by_kind'].get(kind, 0)} |" for kind, count in
            found["cases_by_kind"].items()]  # fmt: skip
    rows += [f"| all | {found['cases']} | {found['passed']} |", f"| failed | | {found['failed']} |"]
    ways = ", ".join(f"{count} by {WAYS[way]}" for way, count in found["by_way"].items())
    said = f"Given {ways}. {_made_by(found)}"
    return "\n".join(["| input | cases | passed, by every way in |", "|---|---|---|", *rows, "", said])


def recipes() -> str:
    """The data sets that a manifest can be made of."""
    from stamina_diffusion.benchmarks.recipes import RECIPES

    rows = [
        f"| `{name}` | {one.title}: {one.source} | {one.layout}, {one.least} photos or more in each | {one.terms} |"
        for name, one in RECIPES.items()
    ]
    return "\n".join(["| recipe | data set | expected | terms |", "|---|---|---|---|", *rows])


def _results(name: str) -> dict[str, Any] | None:
    path = BENCHMARKS / name / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _made_by(found: dict[str, Any]) -> str:
    return f"Made by `{found['command']}` on {found['machine']}, {found['date']}."
