"""Whether the values of a dataclass are of its fields' types: what was read from a file may hold anything."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any


def check(record: Any) -> None:
    """Raise ValueError for the first field of a dataclass that holds what is not of its type."""
    for name, hint in _hints(type(record)).items():
        value = getattr(record, name)
        if not fits(value, hint):
            raise ValueError(f"{name} is {value!r}"[:200])


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@functools.cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(hint), typing.get_args(hint)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of a type: plain types, Literal, unions, lists and dictionaries.

    >>> fits({"a": 1}, dict[str, int]), fits({"a": "1"}, dict[str, int]), fits(True, int), fits(1, float | None)
    (True, False, False, True)
    """
    origin, inner = _parts(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in inner and not isinstance(value, bool)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        key, held = inner
        return isinstance(value, dict) and all(fits(k, key) and fits(v, held) for k, v in value.items())
    if hint in (int, float):
        # As large as a computer counts: longer and infinite ones break whoever prints them. A loss may be no number.
        number = isinstance(value, int | float if hint is float else int) and not isinstance(value, bool)
        return number and (abs(value) < 2**63 or value != value)
    return isinstance(value, hint)
