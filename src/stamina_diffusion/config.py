"""A run's settings as a commented TOML: every number that a run would take, and what it means, ready to be changed."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from typing import Any

from .method import Method
from .settings import Learn, Resolved
from .toml_tables import VERSION

_WIDTH = 110


def toml(resolved: Resolved) -> str:
    """A preset, as text, that resolves to `resolved`; above each key what it means, where its field says so."""
    learn = Learn(resolved.method.name)
    tables = {
        "learn": (learn, vars(learn)),
        "plan": (resolved.plan, resolved.plan.settings()),
        "draw": (resolved.draw, vars(resolved.draw)),
        "report": (resolved.report, vars(resolved.report)),
        **_tables(f"method.{resolved.method.name}", resolved.method),
    }
    parts = [f"# The settings of {resolved.preset!r} for {resolved.method.name}.", f"version = {VERSION}"]
    for title, (holder, values) in tables.items():
        parts += ["", f"[{title}]", *_lines(type(holder), values)]
    return "\n".join(parts) + "\n"


def _tables(title: str, method: Method, **first: str) -> dict[str, tuple[Method, dict[str, Any]]]:
    """A method's table, and below it one for the method that it holds."""
    values = {**first, **method.settings()}
    held = getattr(method, "over", None)
    if held is None:
        return {title: (method, values)}
    del values["over"]
    return {title: (method, values), **_tables(f"{title}.over", held, name=held.name)}


def _lines(cls: type, values: dict[str, Any]) -> list[str]:
    lines, told = [], meanings(cls)
    for key, value in values.items():
        lines += textwrap.wrap(told.get(key, ""), _WIDTH, initial_indent="# ", subsequent_indent="# ")
        # What is None is left out of TOML; the key stays, so that one sees that it exists.
        lines.append(f"# {key} =" if value is None else f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return lines


def meanings(cls: type) -> dict[str, str]:
    """Field → the text that stands under it in the source, of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        except (OSError, TypeError):
            continue
        for field, text in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found
