"""Is anything lost when a command is killed? SIGKILL at random moments, then open, compare, and give it again.

    python benchmarks/crash/crash.py --kills 20 --out benchmarks/crash/results.json

Each round starts from the same studio with two concepts. A forked child gives a command that writes and is killed; once
more at every moment at which the command touches a file, where those are tried too. After every kill the studio must
open, be the old one or the new one, and rebuild to the bits of that one. Then the same command is given again and comes
to its end; what it leaves must equal what it leaves when it was never interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import forks
from benchmarks.faults import verbs
from benchmarks.faults.verbs import Verb
from benchmarks.hostile import guard

from stamina_diffusion import files

LIMIT = 300.0
OPERATIONS = guard.CHANGES | {"shutil.rmtree"}


@dataclass(frozen=True)
class Expected:
    """What a command leaves when nothing interrupts it, and what was there before."""

    old: dict[str, str]
    new: dict[str, str]
    old_weights: str
    new_weights: str
    made: dict[str, str]
    seconds: float
    moments: int
    """How often it touches a file."""


def give(verb: Verb, studio: Path, home: Path, stop_at: int | None = None) -> tuple[int, str, int]:
    """Give the command in this process, which kills itself at a moment; the answer ends with the number of moments."""
    verbs.often_saved()
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & guard.WRITING)
        if writes or event in OPERATIONS:
            place = arguments[0]
            if isinstance(place, str | bytes | os.PathLike) and os.fsdecode(place).startswith(str(studio.parent)):
                seen += 1
                if seen == stop_at:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    code, said = verbs.stamina(verb.arguments(studio, home))
    return code, said, seen


def expect(verb: Verb, start: Path, home: Path, scratch: Path) -> dict[str, Any]:
    """The fields of Expected, made in a child."""
    studio = verbs.copied(start, scratch)
    old, old_weights = verbs.state(studio), verbs.weights(studio)
    began = time.monotonic()
    code, said, moments = give(verb, studio, home)
    seconds = time.monotonic() - began
    if code:
        raise SystemExit(f"{verb.name} failed by itself: {said}")
    made = verbs.made(verb.makes(studio)) if verb.makes else {}
    new, new_weights = verbs.state(studio), verbs.weights(studio)
    return {
        "old": old,
        "new": new,
        "old_weights": old_weights,
        "new_weights": new_weights,
        "made": made,
        "seconds": seconds,
        "moments": moments,
    }


def kill(verb: Verb, expected: Expected, start: Path, home: Path, scratch: Path, when: float | int) -> dict[str, Any]:
    """One kill, after some seconds (float) or at some moment (int), and everything that must hold after it."""
    studio = verbs.copied(start, scratch)
    try:
        victim = forks.Child(lambda: give(verb, studio, home, when if isinstance(when, int) else None))
        if isinstance(when, float):
            time.sleep(when)
            victim.kill()
        ended = victim.wait(LIMIT)
        lost, wrong = [], []
        if ended.error or ended.hung:
            wrong.append(f"it did not come to its end: {ended.error}")
        now = verbs.state(studio)
        committed = now == expected.new and expected.new != expected.old
        if now not in (expected.old, expected.new):
            lost.append(f"the studio is neither the old one nor the new one: {_differing(now, expected)}")
        if verbs.weights(studio) != (expected.new_weights if committed else expected.old_weights):
            lost.append("the model is not the one of its ledger")
        target = verb.makes(studio) if verb.makes else None
        was_made = target is not None and target.exists()
        if target is not None and was_made and verbs.made(target) != expected.made:
            lost.append("what it made is there in part")
        resumed = next((studio / "unfinished").glob("*/checkpoint.safetensors"), None) is not None
        code, said = verbs.stamina(verb.arguments(studio, home))
        if code != 0 and not (code == 2 and (committed or was_made)):
            wrong.append(f"given again it answers {code}: {said[-500:]}")
        _clean(studio)
        if verbs.state(studio) != expected.new or verbs.weights(studio) != expected.new_weights:
            wrong.append(f"given again it ends in another studio: {_differing(verbs.state(studio), expected)}")
        if target is not None and verbs.made(target) != expected.made:
            wrong.append("given again it makes something else")
        if left := verbs.leftovers(studio):
            wrong.append(f"half-written files stay: {left[:3]}")
        if verb.name == "forget" and (names := [str(p.relative_to(studio)) for p in studio.rglob("*rex*")]):
            wrong.append(f"files of a forgotten concept stay: {names[:3]}")
        return {
            "lost": lost,
            "wrong": wrong,
            "committed": committed or was_made,
            "resumed": resumed,
            "finished": ended.signal is None,
        }
    finally:
        shutil.rmtree(studio.parent, ignore_errors=True)


def _clean(studio: Path) -> None:
    """What the next command that writes does first."""
    from stamina_diffusion.studio import Studio

    with Studio.open(studio).writing():
        pass


def _differing(now: dict[str, str], expected: Expected) -> list[str]:
    return [key for key in now.keys() | expected.new.keys() if now.get(key) != expected.new.get(key)][:5]


def kill_all(
    home: Path, kills: int, *, every_moment: bool, seed: int, workers: int, chosen: Sequence[Verb]
) -> Iterator[tuple[Verb, float | int, dict[str, Any], float]]:
    """Kills spread over the commands, and where asked at every moment of each; as they end, with a command's length."""
    rng, numbers = random.Random(seed), count()
    start = home / "studio"
    scratch: Callable[[], Path] = lambda: home / f"kill-{next(numbers)}"  # noqa: E731
    expected: dict[str, Expected] = {}
    for verb in chosen:
        # Twice: what it imports takes longer than what it does, and no later child has to import it.
        forks.rehearse(partial(expect, verb, start, home, scratch()))
        ended = forks.run(partial(expect, verb, start, home, scratch()))
        if not ended.fine:
            raise SystemExit(ended.error or "the command hangs")
        expected[verb.name] = Expected(**ended.value)
    todo: list[tuple[Verb, float | int]] = []
    for place in range(kills):
        verb = chosen[place % len(chosen)]
        # Every second one late, since most commands commit near their end: some must fall behind it.
        start_of = 0.7 if place // len(chosen) % 2 else 0.0
        todo.append((verb, rng.uniform(start_of, 1.15) * expected[verb.name].seconds))
    if every_moment:
        todo += [(verb, moment) for verb in chosen for moment in range(1, expected[verb.name].moments + 1)]
    works = (((v, when), partial(kill, v, expected[v.name], start, home, scratch(), when)) for v, when in todo)
    for (verb, when), ended in forks.run_all(works, workers=workers, limit=2 * LIMIT):
        found = ended.value or {"lost": [f"the check itself failed: {ended.error}"], "wrong": []}
        yield verb, when, found, expected[verb.name].seconds


def main(kills: int, steps: int, base: str, seed: int, names: Sequence[str]) -> dict[str, object]:
    home = Path(tempfile.mkdtemp())
    verbs.quiet()
    try:
        ready = forks.rehearse(lambda: verbs.prepare(home, steps, base))
        if not ready.fine:
            raise SystemExit(ready.error)
        chosen = [verb for verb in verbs.known_verbs() if verb.name in names]
        counts: Counter[str] = Counter()
        length = 0.0
        for verb, _, found, seconds in kill_all(home, kills, every_moment=False, seed=seed, workers=1, chosen=chosen):
            length = max(length, seconds)
            for fault in (*found["lost"], *found["wrong"]):
                print(f"{verb.name}: {fault}", file=sys.stderr)
            counts["lost"] += bool(found["lost"])
            counts["wrong"] += bool(found["wrong"])
            counts["committed"] += bool(found.get("committed"))
            counts["resumed"] += bool(found.get("resumed"))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    import torch

    return {
        "kills": kills,
        "killed_after_commit": counts["committed"],
        "resumed_from_checkpoint": counts["resumed"],
        "lost": counts["lost"],
        "ended_in_other_bytes": counts["wrong"],
        "seconds_uninterrupted": round(length, 2),
        "base": "embedded" if base == "embedded" else "folder",
        "machine": f"{platform.machine()}, torch {torch.__version__}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", default="embedded", help="'embedded' or a pipeline folder")
    parser.add_argument("--verbs", nargs="+", default=["learn"], help="the commands to kill")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(given.kills, given.steps, given.base, given.seed, given.verbs)
    found["command"] = (
        f"python benchmarks/crash/crash.py --kills {given.kills} --steps {given.steps} --seed {given.seed}"
        + ("" if given.verbs == ["learn"] else f" --verbs {' '.join(given.verbs)}")
    )
    print(json.dumps(found, indent=2))
    if given.out:
        files.write_json(given.out, found)
    sys.exit(1 if found["lost"] or found["ended_in_other_bytes"] else 0)
