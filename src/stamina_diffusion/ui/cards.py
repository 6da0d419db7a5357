"""Pieces of HTML for the page. Every value goes through Jinja's escaping: what a person typed is only ever text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def _module() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("fragments.html").module


def fragment(name: str, *args: object) -> str:
    """One piece of `fragments.html`, filled in.

    >>> fragment("note", "<b>rex</b>").strip()
    '<div class="st-note" role="status"><p>&lt;b&gt;rex&lt;/b&gt;</p></div>'
    """
    # StrictUndefined would only be met at rendering: a missing piece is asked for by name here.
    return str(getattr(_module(), name)(*args))


def problem(words: str) -> str:
    """What went wrong, read out at once by a screen reader."""
    return fragment("problem", words)


def note(words: str) -> str:
    """What was done."""
    return fragment("note", words)


def empty(title: str, what: str) -> str:
    """Nothing is here yet, and what to do about it."""
    return fragment("empty", title, what)
