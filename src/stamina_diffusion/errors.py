"""What a person can get wrong: each error says where, what was found, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class StaminaError(Exception):
    """The base of every error that a person can cause and mend; the command line prints it and exits with code 2."""

    def __init__(self, what: str, *, where: str | Path | None = None, do: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.do = do

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.do is not None:
            text = f"{text}\n{self.do}"
        return printable(shortened(text))


class Notice(UserWarning):
    """Something that a person should hear of while the work goes on; the command line prints it on stderr."""


class PhotoError(StaminaError):
    """A photo, or a folder of photos, cannot be used."""


class NameTakenError(StaminaError):
    """A concept of this name has been learned already."""


class UnsafeNameError(StaminaError):
    """A name cannot be used as a word of a prompt or as a name on disk."""


class UnknownWordError(StaminaError):
    """A prompt or a command names a concept that has not been learned."""


class BaseModelError(StaminaError):
    """The base model is missing, incomplete or of a family that is not supported."""


class BaseChangedError(StaminaError):
    """The base model is not the one that the studio was made with."""


class LedgerError(StaminaError):
    """The studio's ledger is damaged, or does not agree with the files beside it."""


class StudioLockedError(StaminaError):
    """Another process is working in the studio."""


class PackError(StaminaError):
    """A file is no packed studio, or what it holds is not what was packed."""


class DamagedError(StaminaError):
    """A studio is not what its ledger says, or an unfinished training not what was written."""


class StudioError(StaminaError):
    """The folder is not a studio."""


class OtherKindError(StudioError):
    """A studio is of the other kind of network: a classifier, or a text-to-image model."""


class SettingsError(StaminaError):
    """A method, a field or a value in the settings is not known."""


class TrainingError(StaminaError):
    """Training cannot go on: the loss is not a number, or the disk or the memory is full."""


class RefusedError(StaminaError):
    """A concept was learned but not let in: it would have cost the earlier ones too much."""


class ExportError(StaminaError):
    """The learned concepts cannot be written in the format asked for."""


class LoraError(StaminaError):
    """A LoRA file cannot be adopted: it is not one, or is not made for this base."""


def shortened(text: str, width: int = 500, lines: int = 40) -> str:
    """The text with its long lines cut in the middle, and so its lines where they are many: what to do stands last.

    >>> shortened("a" * 600, width=20)
    'aaaaaaaaaa ... aaaaaaaaaa'
    >>> shortened("1\n2\n3\n4\n5", lines=2)
    '1\n... 3 lines more ...\n5'
    """
    found = [
        line if len(line) <= width else f"{line[: width // 2]} ... {line[-width // 2 :]}" for line in text.split("\n")
    ]
    if len(found) > lines:
        found[-(-lines // 2) : -(lines // 2)] = [f"... {len(found) - lines} lines more ..."]
    return "\n".join(found)


def printable(text: str) -> str:
    """The text with a mark for each character that a terminal would obey, or that has no UTF-8.

    Names of files, and studios made by others, are not to be trusted with a terminal.

    >>> printable("two lines\\nand \\x1b[2J")
    'two lines\\nand \\\\u001b[2J'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """As JSON writes it, so that JSON which was printed stays JSON."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None.

    >>> nearest("rnak", ["rank", "strength"])
    'rank'
    >>> nearest("CLORA", ["clora", "ewc"])
    'clora'
    >>> nearest("zebra", ["rank", "strength"]) is None
    True
    """
    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), candidate)
    close = difflib.get_close_matches(word.casefold(), list(by_folded), n=1)
    return by_folded[close[0]] if close else None
