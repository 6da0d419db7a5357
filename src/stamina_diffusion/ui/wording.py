"""Errors as words on the page: what a person can mend is said, anything else is admitted and told to the terminal."""

from __future__ import annotations

import sys
import traceback

from ..cli.faults import message
from ..errors import StaminaError


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
