"""What a process does that hostile input must not make it do: seen by Python's own audit events, and written down."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod", "os.truncate"}
)
FOLLOW = frozenset({"os.chmod", "os.truncate"})
"""Changes of what a link leads to; the others change the link itself."""
STARTS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn"})
NETWORK = frozenset({"socket.connect", "socket.getaddrinfo", "socket.bind"})
HARMLESS = ("/dev/null", "/dev/shm", "/proc/self")


def watch(allowed: Path, tell: Callable[[str], None] | None = None) -> list[str]:
    """Write down, from now on, what this process does outside of `allowed` or never should do at all.

    Where `tell` is given, each is told to it at once and the list stays empty.

    An audit hook cannot be taken away again: call it in a child that ends soon. Writes by compiled libraries are not
    seen; the runner compares the folders for those.
    """
    seen: list[str] = []
    note = tell or seen.append
    inside = os.path.realpath(allowed)

    def is_inside(path: Any, *, followed: bool = True) -> bool:
        """Whether it lies there; not `followed`, a link counts as what it is and not as what it leads to."""
        if isinstance(path, int) or path is None:
            return True
        text = os.fsdecode(path)
        above, name = os.path.split(text.rstrip(os.sep))
        real = os.path.realpath(text) if followed else os.path.join(os.path.realpath(above), name)
        return real == inside or real.startswith(inside + os.sep)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not is_inside(path):
                where = os.fsdecode(path)
                if not where.startswith(HARMLESS):
                    note(f"opens {where[:200]!r} for writing")
        elif event in CHANGES:
            places = [place for place in arguments if isinstance(place, str | bytes | os.PathLike)]
            # A symbolic link's text may lead anywhere; what counts is where the link itself is put.
            places = places[1:] if event == "os.symlink" else places
            for place in places:
                if not is_inside(place, followed=event in FOLLOW):
                    note(f"{event} {place!r}"[:200])
        elif event in STARTS or event in NETWORK or event == "pickle.find_class":
            note(f"{event} {arguments!r}"[:200])
        elif event == "exec":
            source = getattr(arguments[0], "co_filename", "")
            if source.startswith(os.sep) and is_inside(source):
                note(f"runs code of {source!r}")

    sys.addaudithook(hook)
    return seen
