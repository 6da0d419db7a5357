"""Errors as words on the page: what a person can mend is said, anything else is admitted and told to the terminal."""

from __future__ import annotations

import math
import sys
import traceback

from ..cli.faults import message
from ..errors import SettingsError, StaminaError


def number(what: str, text: str | None, otherwise: float) -> float:
    """What a person typed into an optional field; `otherwise` when it is empty. Raises SettingsError.

    >>> number("steps", " 12 ", 25), number("steps", "", 25)
    (12.0, 25)
    """
    if not (text or "").strip():
        return otherwise
    try:
        value = float(str(text).replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(f"{what} is {text!r}", do="Type a number, or leave it empty.")
    return value


def words_of(error: BaseException) -> str:
    """What the page says to an error; never a traceback."""
    if isinstance(error, StaminaError):
        return str(error)
    told = message(error)
    if told is not None:
        return told
    traceback.print_exception(error, file=sys.stderr)
    return (
        f"Something went wrong inside the program ({type(error).__name__}). Nothing was changed.\n"
        "The details stand in the terminal where stamina ui runs; please report them."
    )
