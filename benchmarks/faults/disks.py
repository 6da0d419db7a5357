"""A disk that is full, and one that cannot be written: refused in words, nothing lost, and the same command completes.

As root these are real: a small tmpfs, filled up or mounted anew as read-only. Without the right to mount, a limit on
the size of files stands for the full disk and the read-only one is left out; the answer says which it was.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .. import forks
from . import verbs
from .verbs import Verb

LIMIT = 300.0
ROOM = 64 * 2**20
LEVELS = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
"""Shares of what a command writes that are free when it begins."""


def can_mount(home: Path) -> bool:
    place = home / "may-mount"
    place.mkdir()
    done = _mount(place, "1m")
    if done:
        _unmount(place)
    return done


def _mount(place: Path, size: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _unmount(place: Path) -> None:
    subprocess.run(["umount", "-l", str(place)], capture_output=True)


def unmount_all(home: Path) -> None:
    """Whatever a child that was killed has left mounted."""
    with open("/proc/mounts", encoding="utf-8") as file:
        places = [line.split()[1] for line in file]
    for place in places:
        if place.startswith(f"{home}{os.sep}"):
            _unmount(Path(place))


def _facts(studio: Path, verb: Verb) -> dict[str, Any]:
    target = verb.makes(studio) if verb.makes else None
    made = verbs.made(target) if target is not None and target.exists() else {}
    return {"state": verbs.state(studio), "weights": verbs.weights(studio), "made": made}


def expect(verb: Verb, home: Path, scratch: Path) -> dict[str, Any]:
    """Before, after, and how many bytes are written in between at most."""
    studio = verbs.copied(home / "studio", scratch)
    old, before = _facts(studio, verb), _bytes(scratch)
    code, said = verbs.stamina(verb.arguments(studio, home))
    if code:
        raise SystemExit(said)
    return {"old": old, "new": _facts(studio, verb), "bytes": max(_bytes(scratch) - before, 64 * 1024)}


def _bytes(folder: Path) -> int:
    page = resource.getpagesize()
    return sum(-(-p.stat().st_size // page) * page for p in folder.rglob("*") if p.is_file())


def full(verb: Verb, home: Path, scratch: Path, free: float, expected: dict[str, Any], real: bool) -> list[str]:
    """Give a command where only some of what it needs is free."""
    scratch.mkdir()
    try:
        if real and not _mount(scratch, str(ROOM)):
            return ["the tmpfs could not be mounted"]
        studio = verbs.copied(home / "studio", scratch / "disk")
        room, filler = int(free * expected["bytes"]), scratch / "filler"
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        if real:
            _fill(filler, room)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(room, 1), limit[1]))
        code, said = verbs.stamina(verb.arguments(studio, home))
        if real:
            filler.unlink()
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        wrong = _refused_or_done(code, said)
        if free == 0.0 and code == 0 and verb.name != "rollback":
            wrong.append("it says that it is done, and there was no room")
        return wrong + _completes(verb, studio, home, expected)
    finally:
        _unmount(scratch)
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(path: Path, free: int) -> None:
    """Fill the disk that holds `path`, but for some bytes."""
    facts = os.statvfs(path.parent)
    with open(path, "wb") as file:
        left = max(0, facts.f_bavail * facts.f_frsize - free)
        while left > 0:
            try:
                left -= file.write(b"\0" * min(left, 2**20))
                file.flush()
            except OSError:
                break


def _refused_or_done(code: int, said: str) -> list[str]:
    if code not in (0, 2):
        return [f"it answers {code}: {said[-500:]}"]
    return ["refused without a message"] if code == 2 and "error" not in said else []


def _completes(verb: Verb, studio: Path, home: Path, expected: dict[str, Any]) -> list[str]:
    """The studio is the old one or the new one, and the same command comes to its end."""
    now, wrong = _facts(studio, verb), []
    for key in ("state", "weights", "made"):
        if now[key] not in (expected["old"][key], expected["new"][key]):
            wrong.append(f"{key} is neither the old one nor the new one")
    code, said = verbs.stamina(verb.arguments(studio, home))
    done = now == expected["new"]
    if code and not (code == 2 and done):
        wrong.append(f"given again it answers {code}: {said[-500:]}")
    if _facts(studio, verb) != expected["new"]:
        wrong.append("given again it ends otherwise")
    return wrong


def read_only(verb: Verb, home: Path, scratch: Path, expected: dict[str, Any]) -> list[str]:
    """Give a command, and draw and look, on a studio that cannot be written."""
    scratch.mkdir()
    try:
        if not _mount(scratch, str(ROOM)):
            return ["the tmpfs could not be mounted"]
        studio = verbs.copied(home / "studio", scratch / "disk")
        _remount(scratch, "ro")
        before = verbs.made(studio)
        code, said = verbs.stamina(verb.arguments(studio, home))
        wrong = _refused_or_done(code, said)
        if code == 0:
            wrong.append("it says that it is done, and nothing can be written")
        out = home / f"out-{scratch.name}"
        out.mkdir()
        code, said, _ = verbs.picture(studio, out)
        if code:
            wrong.append(f"a studio that can only be read is not drawn with: {said[-500:]}")
        code, said = verbs.stamina(["log", str(studio)])
        if code:
            wrong.append(f"a studio that can only be read has no log: {said[-500:]}")
        if verbs.made(studio) != before:
            wrong.append("something was written")
        _remount(scratch, "rw")
        return wrong + _completes(verb, studio, home, expected)
    finally:
        _unmount(scratch)
        shutil.rmtree(scratch, ignore_errors=True)


def _remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True, capture_output=True)


def run(home: Path, *, workers: int, every: int) -> Iterator[tuple[str, str, list[str]]]:
    """The kind, the name, and what is wrong, of every trial."""
    real = can_mount(home)
    works = []
    for verb in verbs.known_verbs():
        ready = forks.run(partial(expect, verb, home, home / f"disk-{verb.name}"), LIMIT)
        if not ready.fine:
            raise SystemExit(ready.error)
        kind = "full disk (tmpfs)" if real else "full disk (limit on the size of files)"
        for number, free in enumerate(LEVELS):
            work = partial(full, verb, home, home / f"full-{verb.name}-{number}", free, ready.value, real)
            works.append(((kind, f"{verb.name}, {free:.0%} of the room"), work))
        if real:
            work = partial(read_only, verb, home, home / f"read-only-{verb.name}", ready.value)
            works.append((("read-only disk (tmpfs)", verb.name), work))
    for (kind, name), ended in forks.run_all(works[::every], workers=workers, limit=LIMIT):
        yield kind, name, ended.value if ended.fine else [f"the check itself failed: {ended.error}"]
    if not real:
        print("left out: a read-only disk needs the right to mount")
