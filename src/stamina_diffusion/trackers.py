"""Where the curves of a run go: TensorBoard if it is installed, or any other tracker of accelerate by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import SettingsError, nearest

FOLDER = "logs"
"""In a studio's folder, for trackers that write files."""
DEFAULT = "tensorboard"
NONE = "none"


def check(tracker: str | None) -> str:
    """The tracker to use: the one named, or the default if it can be had. Raises SettingsError for an unknown one."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = [str(getattr(name, "value", name)) for name in get_available_trackers()]
    if tracker is None:
        return DEFAULT if DEFAULT in available else NONE
    if tracker == NONE or tracker in available:
        return tracker
    if tracker in LOGGER_TYPE_TO_CLASS:
        do = f"Install it (pip install {tracker}), or leave --tracker out."
        raise SettingsError(f"the tracker {tracker!r} is not installed", do=do)
    known = [*LOGGER_TYPE_TO_CLASS, NONE]
    near = nearest(tracker, known)
    hint = f"Did you mean {near!r}? " if near else ""
    raise SettingsError(f"there is no tracker {tracker!r}", do=f"{hint}Trackers: {', '.join(known)}.")


@contextmanager
def tracking(
    tracker: str, studio: Path, run: str, settings: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """Inside, the answer takes named values and their step; `settings` are stored with the run.

    The tracker is started by the first values: a run that is refused leaves no trace.
    """
    if tracker == NONE:
        yield lambda values, step: None
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    cls: Any = LOGGER_TYPE_TO_CLASS[tracker]
    started: list[Any] = []

    def track(values: Mapping[str, float], step: int) -> None:
        if not started:
            PartialState()
            started.append(cls(run, studio / FOLDER) if cls.requires_logging_directory else cls(run))
            started[0].start()
            started[0].store_init_configuration(_plain(settings))
        started[0].log(dict(values), step=step)

    try:
        yield track
    finally:
        for made in started:
            made.finish()


def _plain(settings: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Settings as trackers take them: numbers and texts."""
    return {
        key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in settings.items()
    }
