"""The queue of teachings: one at a time, each a process of its own that can be stopped and may crash."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from . import lesson
from .lesson import MARK, Request

Stage = Literal["waiting", "loading", "learning", "drawing", "done", "stopped", "failed"]
OVER = ("done", "stopped", "failed")
COMMAND = [sys.executable, "-m", lesson.__name__]
PATIENCE = 20.0
"""Seconds that a process gets to stop by itself."""


@dataclass
class Lesson:
    """One teaching: what was asked, and how far it is. Written by the queue's thread only, read by the page."""

    request: Request
    folder: Path
    """Its photos and samples; private, and removed in the end."""
    stage: Stage = "waiting"
    step: int = 0
    steps: int = 0
    loss: float | None = None
    words: str = ""
    """What went wrong."""
    version: int | None = None
    """The studio's version that it made, once it is committed."""
    samples: list[tuple[int, Path]] = field(default_factory=list)
    """What was drawn on the way, each after so many steps."""
    first: tuple[float, int] | None = None
    """When the first step was heard of, and which it was: a resumed lesson does not begin at nothing."""
    saved: int = 0
    """After it was stopped: the step that the same teaching goes on from."""
    to_stop: bool = False
    heard: bool = False
    """Whether its process has said something; before that it has done nothing, and would not stop in good order."""

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def over(self) -> bool:
        return self.stage in OVER

    def seconds_left(self, now: float) -> float | None:
        """By the speed so far; None before it is known."""
        if self.stage != "learning" or self.first is None or self.step <= self.first[1]:
            return None
        return (now - self.first[0]) * (self.steps - self.step) / (self.step - self.first[1])

    def hear(self, event: dict) -> None:
        """Note what its process told."""
        self.heard = True
        if "sample" in event:
            # The folder is ours; the name is checked all the same, since it came through a pipe.
            self.samples.append((int(event["at"]), Path(self.request.samples) / Path(event["sample"]).name))
            return
        self.stage = event["stage"]
        if self.stage == "learning":
            self.step, self.steps, self.loss = event["step"], event["steps"], event["loss"]
            self.first = self.first or (time.monotonic(), self.step)
        self.words = event.get("words", self.words)
        self.version = event.get("version", self.version)


class Lessons:
    """Runs what is added, in order, in a thread."""

    def __init__(self, root: Path, saved_step: Callable[[str], int] = lambda name: 0) -> None:
        self.root, self._saved_step = root, saved_step
        self.all: list[Lesson] = []
        self._waiting: queue.Queue[Lesson | None] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="lessons", daemon=True)
        self._thread.start()

    @property
    def running(self) -> Lesson | None:
        """The first lesson that is not over."""
        return next((one for one in self.all if not one.over), None)

    @property
    def waiting(self) -> list[Lesson]:
        """Those behind the running one."""
        return [one for one in self.all if not one.over][1:]

    def new_folder(self) -> Path:
        """A folder for a lesson's photos and samples."""
        return self.root / f"lesson-{len(self.all)}-{time.monotonic_ns()}"

    def add(self, request: Request, folder: Path) -> Lesson:
        """Put a teaching at the end of the queue."""
        one = Lesson(request, folder)
        Path(request.samples).mkdir(parents=True, exist_ok=True)
        self.all.append(one)
        self._waiting.put(one)
        return one

    def stop(self, one: Lesson) -> None:
        """Stop a lesson, or take it out of the queue; the studio is as it was. Returns at once."""
        with self._lock:
            one.to_stop = True
            if one.stage == "waiting":
                one.stage = "stopped"
            elif one is self.running and self._process is not None and one.stage in ("loading", "learning"):
                self._interrupt(self._process, signal.SIGINT if one.heard else signal.SIGTERM)

    def close(self) -> None:
        """Stop everything and remove the folders; what was learned in part stays in the studio, to go on with."""
        self._closed = True
        for one in self.all:
            if not one.over:
                self.stop(one)
        self._waiting.put(None)
        self._thread.join(2 * PATIENCE)
        for one in self.all:
            shutil.rmtree(one.folder, ignore_errors=True)

    def _work(self) -> None:
        while (one := self._waiting.get()) is not None:
            if one.over or self._closed:
                continue
            try:
                self._run(one)
            except Exception as error:  # the thread must live for the next lesson
                one.stage, one.words = "failed", f"The teaching could not be started: {error}"
            finally:
                shutil.rmtree(one.folder / "photos", ignore_errors=True)

    def _run(self, one: Lesson) -> None:
        with self._lock:
            if one.to_stop:
                return
            one.stage = "loading"
            self._process = process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                # Ctrl-C in the server's terminal is for the server, which then stops its lessons itself.
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(lesson.encode(one.request) + "\n")
            process.stdin.close()
        except OSError:
            pass  # it ended before it read: told below
        for line in process.stdout:
            if line.startswith(MARK):
                one.hear(json.loads(line.removeprefix(MARK)))
        code = process.wait()
        self._process = None
        self._judge(one, code)

    def _judge(self, one: Lesson, code: int) -> None:
        """How a lesson ended, when its process did not say so."""
        if one.to_stop and one.stage not in ("done", "drawing"):
            one.stage, one.words = "stopped", ""
        elif not one.over:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            one.stage, one.words = "failed", f"The teaching ended without a word ({how})."
        if one.stage in ("stopped", "failed") and one.version is None:
            one.saved = self._saved_step(one.name)

    def _interrupt(self, process: subprocess.Popen[str], how: signal.Signals) -> None:
        process.send_signal(how)
        killer = threading.Timer(PATIENCE, _kill, [process])
        killer.daemon = True
        killer.start()


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and what it started: a child that lived on would hold the pipe that is read to its end."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
