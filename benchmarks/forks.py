"""Work in forked children: the parent imports the model libraries once, a child begins at once and may come to any end.

A child can hang, be killed, or crash the interpreter; the parent sees how it ended and what it said. Fork before torch
has started threads: the parent computes nothing itself and keeps `torch.set_num_threads(1)`.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import math
import os
import platform
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    value: Any
    """What its function returned, passed through JSON; None when it did not come to its end."""
    error: str | None
    """The traceback of what its function raised."""
    signal: int | None
    """The signal that ended it."""
    hung: bool
    seconds: float
    cpu: float
    """Seconds of computing, its own and of the processes that it waited for; other jobs of the machine do not count."""
    mebibytes: float
    """The most memory that it held."""

    @property
    def fine(self) -> bool:
        return self.error is None and self.signal is None and not self.hung


class Child:
    """A running child; `wait` gives its end."""

    def __init__(self, work: Callable[[], Any], cpu_limit: float | None = None) -> None:
        self.began = time.monotonic()
        self._read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            if cpu_limit is not None:  # the kernel ends it with SIGXCPU
                resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu_limit), math.ceil(cpu_limit) + 5))
            _live(work, write)
        os.close(write)
        self._said = b""

    def kill(self) -> None:
        """SIGKILL, as a power cut or the kernel's own killer would be to it."""
        os.kill(self.pid, signal.SIGKILL)

    def done(self) -> bool:
        """Whether it has ended; takes in what it says, which must not fill its pipe."""
        while select.select([self._read], [], [], 0)[0]:
            some = os.read(self._read, 1 << 16)
            if not some:
                return True
            self._said += some
        return False

    def wait(self, limit: float | None = None) -> Ended:
        """Its end; it is killed when it takes longer than `limit` seconds."""
        hung = False
        while not self.done():
            if limit is not None and time.monotonic() - self.began > limit:
                self.kill()
                hung = True
                break
            select.select([self._read], [], [], 0.05)
        _, status, usage = os.wait4(self.pid, 0)
        os.close(self._read)
        said = json.loads(self._said) if self._said.endswith(b"\n") else {}
        return Ended(
            value=said.get("value"),
            error=said.get("error"),
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            hung=hung or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU),
            seconds=time.monotonic() - self.began,
            cpu=usage.ru_utime + usage.ru_stime,
            mebibytes=usage.ru_maxrss / 1024,
        )


def _live(work: Callable[[], Any], write: int) -> None:
    """The child's whole life. It never returns: what stands on the parent's stack is not its own."""
    try:
        try:
            said = {"value": work()}
        except BaseException:
            said = {"error": traceback.format_exc()[-4000:]}
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(said).encode() + b"\n")
    finally:
        os._exit(0)


def run(work: Callable[[], Any], limit: float | None = None) -> Ended:
    """Do `work` in a child."""
    return Child(work).wait(limit)


def rehearse(work: Callable[[], Any]) -> Ended:
    """Do `work` in a child, then import here all that it imported: later children begin with it and do not import."""

    def told() -> dict[str, Any]:
        before = set(sys.modules)
        value = work()
        return {"value": value, "modules": [name for name in sys.modules if name not in before]}

    ended = run(told)
    if ended.value is None:
        return ended
    for name in ended.value["modules"]:
        with contextlib.suppress(Exception):  # some are made by code and can only be imported by it
            importlib.import_module(name)
    return replace(ended, value=ended.value["value"])


def run_all(
    works: Iterable[tuple[Any, Callable[[], Any]]], *, workers: int, limit: float, cpu_limit: float | None = None
) -> Iterator[tuple[Any, Ended]]:
    """Do every work in a child of its own, some at a time; each answer is a work's key and its end, as they end.

    A child hangs that is not done after `limit` seconds, or that has computed for `cpu_limit`.
    """
    running: list[tuple[Any, Child]] = []

    def ended() -> Iterator[tuple[Any, Ended]]:
        for key, child in list(running):
            if child.done() or time.monotonic() - child.began > limit:
                running.remove((key, child))
                yield key, child.wait(limit)

    for key, work in works:
        while len(running) >= workers:
            yield from ended()
            time.sleep(0.005)
        running.append((key, Child(work, cpu_limit)))
    while running:
        yield from ended()
        time.sleep(0.005)


def facts(command: str) -> dict[str, str]:
    """What a results file says of its making."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain", "src"], cwd=ROOT, capture_output=True, text=True)
    commit = git.stdout.strip() + (" with changes" if changed.stdout.strip() else "")
    return {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit or "unknown",
    }
