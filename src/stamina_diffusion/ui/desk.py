"""What all tabs share: the studio's folder, the model to draw with, the queue of teachings, a private place."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import StaminaError
from . import history
from .history import History
from .lessons import Lesson, Lessons
from .model import Model


class Refresh(NamedTuple):
    """How a component is filled in anew when the studio has changed."""

    fill: Callable[[], Any]
    output: Any
    only_for_history: bool = False
    """Leave it alone while nothing was learned or undone: a person may have chosen something in it."""


@dataclass(frozen=True)
class Desk:
    """Where the page works. `private` is a folder that only this user can enter and that is removed in the end."""

    folder: Path
    private: Path
    model: Model
    lessons: Lessons

    @classmethod
    def open(cls, folder: Path, private: Path) -> Desk:
        """A desk for a studio. Raises StudioError, LedgerError."""
        history.read(folder)
        return cls(folder, private, Model(folder), Lessons(private, lambda name: _saved_step(folder, name)))

    def history(self) -> History:
        return history.read(self.folder)

    def fresh(self, kind: str) -> Path:
        """A new empty folder under the private one; folders of the same kind made long before are removed."""
        made = sorted(self.private.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)
        for old in made[:-8]:
            shutil.rmtree(old, ignore_errors=True)
        folder = self.private / f"{kind}-{secrets.token_hex(8)}"
        folder.mkdir()
        return folder

    def refuse_taught(self, name: str) -> None:
        """Raise StaminaError for a concept whose teaching waits or runs."""
        if any(one.name.lower() == name.lower() for one in self._at_work()):
            raise StaminaError(f"<{name}> is in the queue already", do="Wait for it, or stop it first.")

    def refuse_while_teaching(self) -> None:
        """Raise StaminaError while something is taught: what was learned must not change under it."""
        if self.lessons.running is not None:
            raise StaminaError(
                f"<{self.lessons.running.name}> is being taught, and this would change what it is built on",
                do="Wait until it is done, or stop it under Teach.",
            )

    def _at_work(self) -> list[Lesson]:
        return [one for one in self.lessons.all if not one.over]


def _saved_step(folder: Path, name: str) -> int:
    from ..cli.lesson import saved_step
    from ..studio import Studio

    return saved_step(Studio.open(folder), name)
