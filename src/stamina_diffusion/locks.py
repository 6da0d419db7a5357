"""One writer at a time: the lock of a studio's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import StudioError, StudioLockedError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises StudioLockedError when another process does, StudioError if it cannot be."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise StudioLockedError(
            "another process is working in this studio", where=folder, do="Wait until it is done."
        ) from error
    except OSError as error:
        raise StudioError(f"cannot be written: {error.strerror}", where=folder, do="Mend its rights.") from error
    try:
        yield
    finally:
        lock.release()
