"""Settings of a method that holds another: a name or a table, with the preset's own settings of that method below.

`[method.ewc] over = "c-lora"` holds C-LoRA as `[method.c-lora]` sets it, and `over = {name = "c-lora", rank = 4}`
changes that. On the command line `--set over=c-lora --set rank=4`: what a method does not have itself is the held
one's, and `over.strength` is the held one's where both have it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .method import Method
from .methods import method_class


def holds(method: str) -> str | None:
    """The name of the method that a method holds by default; None for one that holds none."""
    default = next((field.default for field in dataclasses.fields(method_class(method)) if field.name == "over"), None)
    return default.name if isinstance(default, Method) else None


def with_held(method: str, values: dict[str, Any], tables: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings of a method; those of the method that it holds are the preset's for that one, where not given."""
    default = holds(method)
    if default is None:
        return values
    given = values.get("over", default)
    given = {"name": given} if isinstance(given, str) else given
    return {**values, "over": with_held(given["name"], {**tables.get(given["name"], {}), **given}, tables)}


def in_order(overrides: Mapping[str, str]) -> list[tuple[str, str]]:
    """Overrides with a held method before its settings: `over`, `over.over`, `over.rank`."""
    return sorted(overrides.items(), key=lambda item: (item[0].split(".")[-1] != "over", item[0].count(".")))


def place_in_held(values: Mapping[str, Any], key: str) -> str | None:
    """`rank` → `over.rank`, or `over.over.rank`: where the methods that are held have a field; None where none has."""
    place, over = "over", values.get("over")
    while over is not None:
        if key in (field.name for field in dataclasses.fields(method_class(over["name"])) if field.init):
            return f"{place}.{key}"
        place, over = f"{place}.over", over.get("over")
    return None
