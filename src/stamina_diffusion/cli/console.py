"""What the person sees while they wait: results on stdout, everything else on stderr."""

from __future__ import annotations

import gc
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from .. import quieting
from ..errors import printable

Advance = Callable[[float, str], None]
"""Called with how much is done, and a few words to show beside it."""


def say(text: str = "") -> None:
    """A line of the result."""
    print(printable(text), flush=True)


def warn(text: str) -> None:
    """A line about the work, or about what went wrong with it."""
    print(printable(text), file=sys.stderr, flush=True)


def quiet() -> None:
    """Keep the model libraries from writing to the terminal, and print what we notice ourselves as lines."""
    # The libraries make a million objects that stay: to look for garbage among them takes a tenth of their import.
    gc.set_threshold(100_000, 20, 100)
    quieting.quiet()
    gc.freeze()
    warnings.showwarning = lambda message, *_: warn(str(message))


def show(table: Any) -> None:
    """A rich table on stdout; not squeezed to 80 columns where there is no terminal."""
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=140)
    console.print(table)


@contextmanager
def progress(what: str, total: float) -> Iterator[Advance]:
    """A bar with the time left on a terminal; elsewhere a line for every tenth. Begins without knowing its speed."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, total)
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TextColumn("[dim]{task.fields[note]}"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("[dim]left"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda done, note="": bar.update(task, completed=done, note=note)


class _Lines:
    """Progress as lines for a log file: one for every tenth of the work."""

    def __init__(self, what: str, total: float) -> None:
        self.what, self.total = what, total
        self.began, self.first = time.monotonic(), 0.0
        self.tenth = -1

    def __call__(self, done: float, note: str = "") -> None:
        if self.tenth < 0:
            self.tenth = 0
            return
        if not self.first:  # a resumed run does not begin at nothing: the time left is told from its own speed
            self.first = max(done - 1, 1e-9)
        tenth = int(10 * done / self.total)
        if tenth <= self.tenth:
            return
        self.tenth = tenth
        spent = time.monotonic() - self.began
        left = spent * (self.total - done) / max(done - self.first, 1e-9)
        warn(f"{self.what}: {100 * done / self.total:.0f} %{f', {note}' if note else ''}, {clock(left)} left")


def clock(seconds: float) -> str:
    """
    >>> clock(75), clock(3700)
    ('1:15', '1:01:40')
    """
    if seconds != seconds:
        return "-"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def drawing(pipeline: Any, what: str, total: int) -> Iterator[None]:
    """Show the steps of the pictures that `pipeline` draws inside; `total` is the number of steps to come."""
    with progress(what, total) as advance:
        done = 0

        class Ticks:
            """Stands where diffusers puts its own bar, which draws over ours and knows one batch only."""

            def __enter__(self) -> Ticks:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def update(self, steps: int = 1) -> None:
                nonlocal done
                done += steps
                advance(min(done, total), "")

        advance(0, "")
        pipeline.progress_bar = lambda *_, **__: Ticks()
        try:
            yield
        finally:
            del pipeline.progress_bar


def overrides(changes: Sequence[str]) -> dict[str, str]:
    """What `--set KEY=VALUE ...` says, as text."""
    said = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{change!r} is no KEY=VALUE, such as rank=8", param_hint="--set")
        said[key.strip()] = value.strip()
    return said
