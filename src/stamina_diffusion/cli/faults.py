"""What went wrong, said to the person on stderr: exit code 2 for what they can mend, 130 when they stopped it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import StaminaError
from .console import warn

MENDABLE, STOPPED = 2, 130
MEMORY_WORDS = ("can't allocate memory", "out of memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Verbs(TyperGroup):
    """The group of all commands; it turns every error that a person can mend into a message."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except StaminaError as error:
            warn(f"error: {error}")
        except KeyboardInterrupt:
            warn("stopped; nothing was changed")
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            told = message(error)
            if told is None:
                raise
            warn(f"error: {told}")
        raise typer.Exit(MENDABLE)


def message(error: BaseException) -> str | None:
    """Words for a full disk, a lack of memory or a place that cannot be written; None for anything else."""
    text = str(error)
    if (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    ) or "No space left" in text:
        place = f"{_place(error)}: " if isinstance(error, OSError) and error.filename else ""
        return f"{place}the disk is full; nothing was changed\nMake room, then give the same command again."
    if is_memory(error):
        return (
            "there is not enough memory; nothing was changed\n"
            "Take a preset for less memory (--preset sd15-8gb, sdxl-12gb, sd35-24gb or flux-24gb: weights in 16 or 8 "
            "bits, small batches), or close other programs."
        )
    if isinstance(error, UnicodeEncodeError) or text == "embedded null byte":
        return "a path or a text holds a character that none may hold (a zero byte, or half of a surrogate pair)"
    if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):
        place = f"{_place(error)}: " if error.filename is not None else ""
        return f"{place}{error.strerror or text}\nCheck that the path is right and that you may write there."
    return None


def _place(error: OSError) -> str:
    """The path that failed; for the file beside it that `files` writes first, the path that was meant."""
    path = Path(os.fsdecode(error.filename))
    beside = re.fullmatch(r"\.(.+)\.\d+\.part", path.name)
    return str(path.with_name(beside[1]) if beside else path)


def is_memory(error: BaseException) -> bool:
    """Whether an error says that a memory is full, a GPU's or the computer's."""
    if isinstance(error, MemoryError):
        return True
    named = any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__)  # torch's, without importing torch
    return named or (isinstance(error, RuntimeError) and any(word in str(error) for word in MEMORY_WORDS))
