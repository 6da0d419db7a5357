"""Does a long history stay cheap to open? Ledgers made by hand, read and checked, each ten times as long as the last.

    python benchmarks/ledger/ledger.py --out benchmarks/ledger/results.json

Every event is real: sealed, chained and written as the studio writes it; only the concepts' files are left out, which
reading a ledger does not open. Four histories: only learning; learning and going back; learning and forgetting; many
branches. Seconds are of one process' CPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import forks

from stamina_diffusion import events, ledger
from stamina_diffusion.bases import Base
from stamina_diffusion.ledger import Event, Ledger

SIZES = (100, 1000, 10_000)
Happening = tuple[str, str, dict[str, Any], dict[str, Any] | None]
"""Its kind, its branch, what it says, and its private part."""


def concept(number: int) -> dict[str, Any]:
    return {
        "name": f"c{number}",
        "word": f"<c{number}>",
        "class_word": None,
        "method": "stamina",
        "settings": {"rank": 8},
        "plan": {"steps": 1},
        "steps": 1,
        "seed": 0,
        "photos": [{"file": "a.png", "path": "a.png", "sha256": "0" * 64}],
        "density": 0.1,
        "final_loss": 0.1,
        "files": {"change.safetensors": "0" * 64},
        "seconds": 1.0,
        "learned": "2026-01-01T00:00:00+00:00",
        "versions": {},
        "weights": "",
        "consent": None,
        "licence": None,
    }


def learning(size: int) -> Iterator[Happening]:
    for place in range(1, size + 1):
        yield "learn", "main", {}, concept(place)


def going_back(size: int) -> Iterator[Happening]:
    """Every second event undoes the one before it and every fourth goes back half the way."""
    for place in range(1, size + 1):
        if place % 4 == 0:
            yield "rollback", "main", {"to": place // 2}, None
        elif place % 4 == 2:
            yield "rollback", "main", {"to": place - 2}, None
        else:
            yield "learn", "main", {}, concept(place)


def forgetting(size: int) -> Iterator[Happening]:
    """Half are learned, then each is forgotten, the oldest first."""
    half = size // 2
    for _ in range(half):
        yield "learn", "main", {}, None
    for gone in range(1, size - half + 1):
        yield "forget", "main", {"of": [gone], "name": "0" * 64, "reason": None, "files": {}}, None


def branching(size: int) -> Iterator[Happening]:
    """A branch, a switch to it, and something learned on it."""
    branch = "main"
    for place in range(1, size + 1):
        if place % 3 == 1:
            yield "branch", branch, {"name": f"b{place}", "at": place - 1}, None
        elif place % 3 == 2:
            before, branch = branch, f"b{place - 1}"
            yield "switch", branch, {"from": before}, None
        else:
            yield "learn", branch, {}, concept(place)


HISTORIES = {"learning": learning, "going back": going_back, "forgetting": forgetting, "branching": branching}


def written(folder: Path, happenings: Iterator[Happening]) -> None:
    """The ledger of these events, chained."""
    base = Base(kind="embedded", source="embedded", hash="0" * 64)
    chain, previous = [], base.hash
    for version, (kind, branch, what, private) in enumerate(happenings, start=1):
        sealed = events.seal(private) if private else "0" * 64 if kind == "learn" else None
        event = Event(kind, version, branch, "2026-01-01T00:00:00+00:00", what, private, sealed, "")
        event = replace(event, hash=events.event_hash(previous, event))
        chain.append(event)
        previous = event.hash
    folder.mkdir(exist_ok=True)
    Ledger(base, tuple(chain)).write(folder)


def measured(folder: Path) -> dict[str, float]:
    """CPU seconds of reading the ledger whole, and of asking which concepts can still be rebuilt."""
    start = time.process_time()
    record = ledger.read(folder)
    read = time.process_time()
    count = len(record.timeline.reachable)
    return {"read": round(read - start, 3), "reachable": round(time.process_time() - read, 3), "concepts": count}


def main() -> dict[str, Any]:
    found: dict[str, Any] = {}
    home = Path(tempfile.mkdtemp())
    try:
        for name, history in HISTORIES.items():
            found[name] = {}
            for size in SIZES:
                written(home / "studio", history(size))
                ended = forks.run(lambda: measured(home / "studio"))
                if not ended.fine:
                    raise SystemExit(ended.error)
                found[name][str(size)] = ended.value | {"mebibytes": round(ended.mebibytes)}
                print(name, size, found[name][str(size)], flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return {"cpu_seconds": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = main() | forks.facts("python benchmarks/ledger/ledger.py")
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")
