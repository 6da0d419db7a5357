"""Is anything lost, or drawn wrongly without a word, when something goes wrong? Every fault with real processes.

    python -m benchmarks.faults --out benchmarks/faults/results.json

SIGKILL at random moments of every command that writes, every second one towards its end, and at every moment at which
it touches a file; a full disk and one that cannot be written; two writers; one bit flipped, or half gone, in every
file. After each the studio must open, be the old one or the new one to the bit, and the same command must come to its
end. The last line counts every fault.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .. import forks
from ..crash import crash
from . import disks, flips, verbs, writers

Found = Iterator[tuple[str, str, list[str], str]]
"""Of every fault: its kind, its name, what is wrong, and a word for the counts."""


def kills(home: Path, given: argparse.Namespace) -> Found:
    tried = crash.kill_all(
        home,
        given.kills,
        every_moment=given.every == 1,
        seed=given.seed,
        workers=given.workers,
        chosen=verbs.known_verbs(),
    )
    for verb, when, found, _ in tried:
        at = f"after {when:.3f} s" if isinstance(when, float) else f"at its moment {when}"
        kind = "killed at random" if isinstance(when, float) else "killed at every moment"
        word = "after the commit" if found.get("committed") else "before the commit"
        word = "when it was done" if found.get("finished") else word
        yield kind, f"{verb.name} {at}", [*found["lost"], *found["wrong"]], f"{verb.name}, {word}"


def disk(home: Path, given: argparse.Namespace) -> Found:
    for kind, name, wrong in disks.run(home, workers=given.workers, every=given.every):
        yield kind, name, wrong, name.split(",")[0]


def pairs(home: Path, given: argparse.Namespace) -> Found:
    for name, wrong in writers.run(home, workers=given.workers, every=given.every):
        yield "two writers", name, wrong, "pairs"


def damage(home: Path, given: argparse.Namespace) -> Found:
    for name, wrong, noticed in flips.run(home, seed=given.seed, workers=given.workers, every=given.every):
        kind = "a bit flipped" if name.endswith("flipped") else "cut in half"
        yield kind, name, wrong, "noticed" if noticed else "harmless"


PARTS: dict[str, Callable[[Path, argparse.Namespace], Found]] = {
    "kills": kills,
    "disks": disk,
    "writers": pairs,
    "damage": damage,
}


def main(given: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    home = Path(tempfile.mkdtemp())
    os.environ.update(HF_HUB_OFFLINE="1")
    verbs.quiet()
    tried: Counter[str] = Counter()
    words: dict[str, Counter[str]] = {}
    failures = []
    try:
        ready = forks.rehearse(partial(verbs.prepare, home))
        if not ready.fine:
            raise SystemExit(ready.error)
        for name, part in PARTS.items():
            if given.only and name not in given.only:
                continue
            for kind, what, wrong, word in part(home, given):
                tried[kind] += 1
                words.setdefault(kind, Counter())[word] += 1
                if wrong:
                    failures.append({"kind": kind, "fault": what, "wrong": wrong})
                    print(f"FAILED {kind}: {what}: {'; '.join(wrong)}", flush=True)
    finally:
        disks.unmount_all(home)
        shutil.rmtree(home, ignore_errors=True)
    return {
        "faults": sum(tried.values()),
        "survived": sum(tried.values()) - len(failures),
        "failed": len(failures),
        "by_kind": dict(tried),
        "detail": {kind: dict(sorted(counts.items())) for kind, counts in words.items()},
        "failures": failures,
        "seconds": round(time.monotonic() - began),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs at random moments, over all commands")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th fault of the other kinds")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="only these kinds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(given)
    command = f"python -m benchmarks.faults --kills {given.kills} --seed {given.seed}"
    command += (f" --every {given.every}" if given.every > 1 else "") + (
        f" --only {' '.join(given.only)}" if given.only else ""
    )
    found |= forks.facts(command)
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{found['survived']} passed, {found['failed']} failed")
    sys.exit(1 if found["failed"] else 0)
