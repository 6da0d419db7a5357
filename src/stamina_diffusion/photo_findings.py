"""What is found in a person's photos: each finding names the file, what it is and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing to know about a photo or a folder; `what` reads on from the path, `do` says how to mend it."""

    path: Path | None
    severity: Literal["error", "warning", "hint"]
    code: str
    what: str
    do: str


class Unfit(Exception):
    """A file that cannot be used, with the words for its finding."""

    def __init__(self, code: str, what: str, do: str) -> None:
        super().__init__(what)
        self.code, self.what, self.do = code, what, do
