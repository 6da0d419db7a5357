"""A run's settings as a commented TOML: every number that a run would take, and what it means, ready to be changed."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

from .held import as_toml
from .settings import VERSION, Resolved

_WIDTH = 110


def toml(resolved: Resolved) -> str:
    """A preset, as text, that resolves to `resolved`; above each key what it means, where its field says so."""
    tables = {
        "plan": (resolved.plan, resolved.plan.settings()),
        "draw": (resolved.draw, vars(resolved.draw)),
        "report": (resolved.report, vars(resolved.report)),
        f"method.{resolved.method.name}": (resolved.method, resolved.method.settings()),
    }
    parts = [f"# The settings of {resolved.preset!r} for {resolved.method.name}.", f"version = {VERSION}"]
    for title, (holder, values) in tables.items():
        parts += ["", f"[{title}]", *_lines(type(holder), values)]
    return "\n".join(parts) + "\n"


def _lines(cls: type, values: dict[str, Any]) -> list[str]:
    lines, told = [], meanings(cls)
    for key, value in values.items():
        lines += textwrap.wrap(told.get(key, ""), _WIDTH, initial_indent="# ", subsequent_indent="# ")
        # What is None is left out of TOML; the key stays, so that one sees that it exists.
        lines.append(f"# {key} =" if value is None else f"{key} = {as_toml(value)}")
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
