"""What is wrong with an answer and with what it left behind; the same for every way in."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import Case, Place


@dataclass(frozen=True)
class Route:
    """A case by one way: a place in its list of commands or calls; or a command as a real process."""

    case: Case
    way: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.case.kind} / {self.case.name} / {self.way} {self.number}"


def contents(folder: Path) -> dict[str, str]:
    """Every path below a folder, and what it holds; links are not followed."""
    found = {}
    for where, folders, names in os.walk(folder):
        for name in [*names, *folders]:
            path = Path(where, name)
            key = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
            if path.is_symlink():
                found[key] = f"link to {os.readlink(path)}"
            elif path.is_file() and path.stat().st_size < 2**30:
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[key] = "folder" if path.is_dir() else f"thing of {path.stat().st_size} bytes"
    return found


def judged(
    route: Route, place: Place, answer: dict[str, Any], before: dict[str, str], after: dict[str, str]
) -> list[str]:
    """Everything that is wrong with an answer and with what the route left behind."""
    wrong = []
    code, said = answer["code"], answer["said"] + answer["out"]
    if code not in (0, 2):
        wrong.append(f"exit code {code}")
    if "Traceback (most recent call last)" in said:
        wrong.append("a traceback")
    if code == 2 and not any(word in said for word in ("error", "Usage", "Error")):
        wrong.append("refused without a message")
    if "\x1b[2J" in said or "\x07" in said:
        wrong.append("raw control characters are printed")
    if place.trap.exists() or (place.out / "TRAP").exists():
        wrong.append("something was executed")
    if route.case.expect == "taken" and code == 2 and answer["out"].find("can be used") < 0 and not answer.get("kept"):
        wrong.append("refused, though there is nothing wrong with it")
    if route.case.expect == "refused" and code == 0:
        wrong.append("taken, though it should be refused")
    # The lock is a file that stays, a refused drawing's folder may; samples and the list of what is kept are redrawn.
    volatile = ("studio/.lock", "tmp", "out") + (
        (
            "studio/samples",
            "studio/kept.json",
            "studio/ledger.json",
            "studio/logs",
            "studio/measured",
            "studio/report.html",
        )
        if code == 0
        else ()
    )
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    changed = {name for name in changed if not any(name == v or name.startswith(f"{v}/") for v in volatile)}
    if code == 0:
        # Taken: a new concept or a new studio may be there; an unfinished run of the same may be gone.
        changed = {
            name
            for name in changed
            if not (name.startswith("studio/unfinished") or (name.startswith("studio/concepts") and name not in before))
            and not (name.startswith("studio") and not any(b.startswith("studio/") for b in before))
            and not (name.startswith("new/") or name == "new")
        }
    elif not answer.get("kept"):
        changed = {name for name in changed if not _leftover(name, before)}
    if changed:
        wrong.append(f"changed {sorted(changed)[:4]}")
    return wrong


def _leftover(name: str, before: dict[str, str]) -> bool:
    """A studio that was made on a base before the base was found out; and empty folders on the way to a picture."""
    return name.startswith("studio") and not any(key.startswith("studio/") for key in before)
