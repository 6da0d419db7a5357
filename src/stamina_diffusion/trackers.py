"""Where the curves of a run go: TensorBoard if it is installed, or any other tracker of accelerate by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from .errors import SettingsError, nearest

FOLDER = "logs"
"""In a studio's folder, for trackers that write files."""
DEFAULT = "tensorboard"
NONE = "none"
_TAKE_LISTS = ("wandb", "swanlab")
"""Trackers that take pictures as a list of them."""


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


class Track:
    """One run's curves and pictures; the tracker is started by the first: a run that is refused leaves no trace."""

    def __init__(self, tracker: str, studio: Path, run: str, settings: Mapping[str, Any]) -> None:
        self.name, self._studio, self._run, self._settings = tracker, studio, run, settings
        self._started: Any = None

    @property
    def folder(self) -> Path:
        """What belongs to this run alone, in the studio; a tracker that writes files has its own in it."""
        return self._studio / FOLDER / self._run

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Named values at a step."""
        if self.name != NONE:
            self._tracker().log(dict(values), step=step)

    def show(self, name: str, pictures: Sequence[Image.Image], step: int) -> None:
        """Pictures at a step, where the tracker takes some."""
        if self.name == DEFAULT:
            import numpy as np

            stacked = np.stack([np.asarray(picture) for picture in pictures])
            self._tracker().log_images({name: stacked}, step=step, dataformats="NHWC")
        elif self.name in _TAKE_LISTS:
            self._tracker().log_images({name: list(pictures)}, step=step)

    def finish(self) -> None:
        if self._started is not None:
            self._started.finish()

    def _tracker(self) -> Any:
        if self._started is None:
            from accelerate import PartialState
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS

            cls: Any = LOGGER_TYPE_TO_CLASS[self.name]
            PartialState()
            files = cls.requires_logging_directory
            self._started = cls(self._run, self._studio / FOLDER) if files else cls(self._run)
            self._started.start()
            self._started.store_init_configuration(_plain(self._settings))
        return self._started


@contextmanager
def tracking(tracker: str, studio: Path, run: str, settings: Mapping[str, Any]) -> Iterator[Track]:
    """Inside, the answer takes named values or pictures and their step; `settings` are stored with the run."""
    track = Track(tracker, studio, run, settings)
    try:
        yield track
    finally:
        track.finish()


def _plain(settings: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Settings as trackers take them: numbers and texts."""
    return {
        key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in settings.items()
    }
