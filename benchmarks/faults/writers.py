"""Two writers at once: one is refused in words and nothing of either is lost; readers see the old version meanwhile."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path

from .. import forks
from . import verbs
from .verbs import Verb

LIMIT = 300.0


def while_learning(home: Path, scratch: Path) -> list[str]:
    """Every command while another process learns: writers are refused, readers are served with what is committed."""
    studio = verbs.copied(home / "studio", scratch)
    before, wrong = verbs.state(studio), []
    drawn = verbs.picture(studio, scratch)[2]
    long = ["--steps", "100000", "--no-report"]
    learner = forks.Child(lambda: verbs.stamina(verbs.learn("ann", *long)(studio, home)))
    try:
        end = time.monotonic() + 60
        while not (studio / "unfinished" / "ann" / "request.json").exists() and time.monotonic() < end:
            time.sleep(0.05)
        for verb in verbs.known_verbs():
            code, said = verbs.stamina(verb.arguments(studio, home))
            if verb.locks and not (code == 2 and "another process" in said):
                wrong.append(f"{verb.name} beside a learner answers {code}: {said[-300:]}")
            if not verb.locks and code:
                wrong.append(f"{verb.name}, which only reads, answers {code} beside a learner: {said[-300:]}")
        if verbs.picture(studio, scratch)[2] != drawn or verbs.state(studio) != before:
            wrong.append("a reader saw something else than the committed version")
        if learner.done():
            wrong.append("the learner ended meanwhile, so nothing was shown")
    finally:
        learner.kill()
        learner.wait()
    code, said = verbs.stamina(verbs.learn("ann")(studio, home))
    return [*wrong, f"afterwards learn answers {code}: {said[-300:]}"] if code else wrong


def at_once(home: Path, scratch: Path, one: Verb, other: Verb) -> list[str]:
    """Two commands that begin in the same moment: at least one is done, the other done or refused."""
    studio = verbs.copied(home / "studio", scratch)
    before = verbs.state(studio)
    pair = [forks.Child(partial(verbs.stamina, verb.arguments(studio, home))) for verb in (one, other)]
    ends = [child.wait(LIMIT) for child in pair]
    if any(not ended.fine for ended in ends):
        return [f"a command did not come to its end: {[ended.error for ended in ends]}"]
    wrong = []
    codes = [ended.value[0] for ended in ends]
    if any(code not in (0, 2) for code in codes):
        wrong.append(f"they answer {codes}: {[ended.value[1][-500:] for ended in ends]}")
    if 0 not in codes:
        wrong.append(f"neither was done: {[ended.value[1][-300:] for ended in ends]}")
    now = verbs.state(studio)
    verbs.weights(studio)
    written = sum(code == 0 and verb.makes is None for code, verb in zip(codes, (one, other), strict=True))
    gained = int(now["version"]) - int(before["version"])
    # `branch --switch` and `forget` are more than one event; a command given twice may have nothing left to do.
    if written and not gained:
        wrong.append("it says that it is done, and the ledger is the old one")
    if not written and gained:
        wrong.append("both were refused, and the ledger is another one")
    return wrong


def run(home: Path, *, workers: int, every: int) -> Iterator[tuple[str, list[str]]]:
    """The name and what is wrong, of every trial."""
    works = [("every command beside a learner", partial(while_learning, home, home / "beside"))]
    for number, (one, other) in enumerate(combinations_with_replacement(verbs.known_verbs(), 2)):
        work = partial(at_once, home, home / f"pair-{number}", one, other)
        works.append((f"{one.name} and {other.name} at once", work))
    for name, ended in forks.run_all(works[::every], workers=workers, limit=LIMIT):
        yield name, ended.value if ended.fine else [f"the check itself failed: {ended.error}"]
    for folder in home.glob("pair-*"):
        shutil.rmtree(folder, ignore_errors=True)
