"""Does bad input do harm? Every case of the corpus by the command line and by the library, each in its own process.

    python -m benchmarks.hostile --out benchmarks/hostile/results.json

No case may end in a traceback, hang, die, fill the memory, start a process, ask the network, run code, or write outside
the studio. What is refused is refused with a message and exit code 2, and leaves the studio as it was; what is taken
adds to the studio and changes nothing in it. Routes run in forked children; a sample of them runs again as real
processes. The last line counts every case by every route.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from .. import forks
from . import archives, bases, guard, images, presets, studios, tensors, words
from .cases import PRESET, Case, Place

LIMIT = 30.0
"""Seconds that a route may take, and more for a process that must first import everything."""
LIMIT_OF_PROCESS = 240.0
MEMORY = 4096
"""Mebibytes that a route may hold."""


@dataclass(frozen=True)
class Route:
    """A case by one way: a place in its list of commands or calls; or a command as a real process."""

    case: Case
    way: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.case.kind} / {self.case.name} / {self.way} {self.number}"


def corpus() -> list[Case]:
    """Every case, always in the same order."""
    return [case for part in (images, words, presets, studios, tensors, bases, archives) for case in part.cases()]


def routes(cases: list[Case]) -> Iterator[Route]:
    for case in cases:
        yield from (Route(case, "command", number) for number in range(len(case.commands)))
        yield from (Route(case, "library", number) for number in range(len(case.calls)))


def prepare_templates(work: Path) -> None:
    """The good things that cases spoil: a base, photos, a studio that knows <rex>, an unfinished run."""
    from importlib import import_module

    from diffusers.utils import logging

    from stamina_diffusion import testing
    from stamina_diffusion.methods import build
    from stamina_diffusion.photos import collect
    from stamina_diffusion.settings import resolve
    from stamina_diffusion.studio import Studio

    logging.set_verbosity_error()
    (work / "good").mkdir()
    for number, picture in enumerate(testing.noise_pictures(2, 16)):
        picture.save(work / "good" / f"{number}.png")
    (work / "tiny.toml").write_text(PRESET)
    testing.tiny_pipeline().save_pretrained(work / "base")
    studio = Studio.create(work / "studio", str(work / "base"))
    resolved = resolve(work / "tiny.toml", "stamina")
    good = collect(work / "good", resolution=8)
    studio.learn(good, "rex", method=resolved.method, plan=resolved.plan)
    # Stopped after the first of two steps; not through `learn`'s own interruption, which would be another test.
    import_module("stamina_diffusion.learn").CHECKPOINT_SECONDS = -1.0

    def stop(step: Any) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    try:
        plan = replace(resolved.plan, steps=2)
        studio.learn(good, "tom", method=build("stamina", {"rank": 2}), plan=plan, watch=stop)
    except KeyboardInterrupt:
        shutil.move(work / "studio" / "unfinished", work / "unfinished")


def contents(folder: Path) -> dict[str, str]:
    """Every path below a folder, and what it holds; links are not followed."""
    found = {}
    for where, folders, names in os.walk(folder):
        for name in [*names, *folders]:
            path = Path(where, name)
            key = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
            if path.is_symlink():
                found[key] = f"link to {os.readlink(path)}"
            elif path.is_file() and path.stat().st_size < 2**30:
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[key] = "folder" if path.is_dir() else f"thing of {path.stat().st_size} bytes"
    return found


def play(route: Route, work: Path, number: int) -> dict[str, Any]:
    """One route in a place of its own, inside a forked child: what it answered, and what it did."""
    place = Place(work / f"case-{number}", work / "base", work / "good")
    try:
        for folder in (place.photos, place.out, place.root / "tmp"):
            folder.mkdir(parents=True)
        shutil.copytree(work / "studio", place.studio)
        shutil.copy(work / "tiny.toml", place.preset)
        route.case.prepare(place)
        tempfile.tempdir = str(place.root / "tmp")
        os.chdir(place.out)
        before = contents(place.root)
        seen: list[str] = []
        if route.way == "process":
            answer = _as_process(route.case.commands[route.number](place))
        elif route.way == "command":
            given = route.case.commands[route.number](place)
            seen = guard.watch(place.root)
            answer = _as_command(given)
        else:
            seen = guard.watch(place.root)
            answer = _as_call(lambda: route.case.calls[route.number](place))
        done = list(seen)
        return answer | {"seen": done[:5], "wrong": _judged(route, place, answer, before, contents(place.root))}
    finally:
        os.chdir(work)
        shutil.rmtree(place.root, ignore_errors=True)


def _as_command(arguments: list[str]) -> dict[str, Any]:
    """Through the command line's own entry, in this process."""
    from typer.testing import CliRunner

    from stamina_diffusion.cli import app

    result = CliRunner().invoke(app, arguments)
    strange = result.exception is not None and not isinstance(result.exception, SystemExit)
    if strange:
        import traceback

        said = "".join(traceback.format_exception(result.exception))
        return {"code": 1, "said": said[-1500:], "out": ""}
    return {"code": result.exit_code, "said": _ends(result.stderr), "out": _ends(result.stdout)}


def _ends(text: str) -> str:
    """The beginning and the end of what may be long."""
    return text if len(text) < 4000 else f"{text[:2000]} ... {text[-2000:]}"


def _as_process(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "stamina_diffusion", *arguments]
    try:
        ran = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=LIMIT_OF_PROCESS)
    except (ValueError, OSError) as error:  # a zero byte or too long a text is no argument of a process
        return {"code": 2, "said": f"error: not to be given to a process: {error}"[:300], "out": "", "kept": True}
    except subprocess.TimeoutExpired:
        return {"code": 1, "said": "it hangs", "out": ""}
    said, out = (_ends(text.decode("utf-8", "backslashreplace")) for text in (ran.stderr, ran.stdout))
    return {"code": ran.returncode, "said": said, "out": out}


def _as_call(call: Callable[[], object]) -> dict[str, Any]:
    """Through the library: its own errors are refusals, any other is a fault."""
    import traceback

    from stamina_diffusion.errors import StaminaError

    try:
        call()
    except StaminaError as error:
        return {"code": 2, "said": f"error: {error}"[-3000:], "out": ""}
    except BaseException:
        return {"code": 1, "said": traceback.format_exc()[-1500:], "out": ""}
    return {"code": 0, "said": "", "out": ""}


def _judged(
    route: Route, place: Place, answer: dict[str, Any], before: dict[str, str], after: dict[str, str]
) -> list[str]:
    """Everything that is wrong with an answer and with what the route left behind."""
    wrong = []
    code, said = answer["code"], answer["said"] + answer["out"]
    if code not in (0, 2):
        wrong.append(f"exit code {code}")
    if "Traceback (most recent call last)" in said:
        wrong.append("a traceback")
    if code == 2 and not any(word in said for word in ("error", "Usage", "Error")):
        wrong.append("refused without a message")
    if "\x1b[2J" in said or "\x07" in said:
        wrong.append("raw control characters are printed")
    if place.trap.exists() or (place.out / "TRAP").exists():
        wrong.append("something was executed")
    if route.case.expect == "taken" and code == 2 and answer["out"].find("can be used") < 0 and not answer.get("kept"):
        wrong.append("refused, though there is nothing wrong with it")
    if route.case.expect == "refused" and code == 0:
        wrong.append("taken, though it should be refused")
    # The lock is a file that stays, a refused drawing's folder may; samples and the list of what is kept are redrawn.
    volatile = ("studio/.lock", "tmp", "out") + (
        (
            "studio/samples",
            "studio/kept.json",
            "studio/ledger.json",
            "studio/logs",
            "studio/measured",
            "studio/report.html",
        )
        if code == 0
        else ()
    )
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    changed = {name for name in changed if not any(name == v or name.startswith(f"{v}/") for v in volatile)}
    if code == 0:
        # Taken: a new concept or a new studio may be there; an unfinished run of the same may be gone.
        changed = {
            name
            for name in changed
            if not (name.startswith("studio/unfinished") or (name.startswith("studio/concepts") and name not in before))
            and not (name.startswith("studio") and not any(b.startswith("studio/") for b in before))
            and not (name.startswith("new/") or name == "new")
        }
    elif not answer.get("kept"):
        changed = {name for name in changed if not _leftover(name, before)}
    if changed:
        wrong.append(f"changed {sorted(changed)[:4]}")
    return wrong


def _leftover(name: str, before: dict[str, str]) -> bool:
    """A studio that was made on a base before the base was found out; and empty folders on the way to a picture."""
    return name.startswith("studio") and not any(key.startswith("studio/") for key in before)


def main(pick: str, workers: int, processes: int, every: int) -> dict[str, Any]:
    import torch

    import stamina_diffusion

    torch.set_num_threads(1)
    # Real processes begin in another folder and must run this very code.
    os.environ["PYTHONPATH"] = str(Path(stamina_diffusion.__file__).resolve().parents[1])
    os.environ.update(
        HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1"
    )
    sys.dont_write_bytecode = True
    work = Path(tempfile.mkdtemp())
    cases = [case for case in corpus() if pick in f"{case.kind} / {case.name}"][::every]
    todo = list(routes(cases))
    commands = [route for route in todo if route.way == "command"]
    step = max(1, len(commands) // max(1, processes))
    todo += [replace(route, way="process") for route in commands[step // 2 :: step][:processes]]
    passed, failures = Counter(), []
    slowest, largest = ("", 0.0), ("", 0.0)
    numbers = count()
    try:
        made = forks.run(lambda: prepare_templates(work))
        if not made.fine:
            raise SystemExit(made.error)
        _import_everything()
        limit = lambda route: LIMIT_OF_PROCESS if route.way == "process" else LIMIT  # noqa: E731
        for ordinary in (True, False):
            part = [route for route in todo if (route.way != "process") == ordinary]
            works = ((route, partial(play, route, work, next(numbers))) for route in part)
            for route, ended in forks.run_all(works, workers=workers, limit=limit(part[0]) + 10 if part else 1):
                wrong = list(ended.value["wrong"]) + ended.value["seen"] if ended.value else []
                wrong += [f"killed by signal {ended.signal}"] if ended.signal and not ended.hung else []
                wrong += ["it hangs"] if ended.hung or (ordinary and ended.seconds > LIMIT) else []
                wrong += ["the case itself failed"] if ended.error else []
                wrong += [f"{ended.mebibytes:.0f} MiB of memory"] if ended.mebibytes > MEMORY else []
                slowest = max(slowest, (route.name, ended.seconds), key=lambda pair: pair[1]) if ordinary else slowest
                largest = max(largest, (route.name, ended.mebibytes), key=lambda pair: pair[1])
                if wrong:
                    said = ended.error or (ended.value or {}).get("said", "") or (ended.value or {}).get("out", "")
                    failures.append({"route": route.name, "wrong": wrong, "said": said})
                    print(
                        f"FAILED {route.name}: {'; '.join(wrong)}\n    {said[-700:]}".encode(
                            "utf-8", "backslashreplace"
                        ).decode(),
                        flush=True,
                    )
                else:
                    passed[route.case.kind] += 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "cases": len(cases),
        "passed": sum(passed.values()),
        "failed": len(failures),
        "as_processes": min(processes, len(commands)),
        "cases_by_kind": dict(Counter(case.kind for case in cases)),
        "passed_by_kind": dict(passed),
        "slowest": [slowest[0], round(slowest[1], 1)],
        "largest_mebibytes": [largest[0], round(largest[1])],
        "failures": failures,
    }


def _import_everything() -> None:
    """What every child needs, once."""
    from stamina_diffusion.cli import app, console

    console.quiet()
    from stamina_diffusion import bases, exports, kept, ledger, photos, report, settings, studio  # noqa: F401
    from stamina_diffusion.exports import diffusers_folder  # noqa: F401

    assert app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--pick", default="", help="only cases whose kind and name contain this")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", type=int, default=12, help="how many command lines run again as real processes")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(given.pick, given.workers, given.processes, given.every)
    found |= forks.facts("python -m benchmarks.hostile" + (f" --every {given.every}" if given.every > 1 else ""))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{found['passed']} passed, {found['failed']} failed")
    sys.exit(1 if found["failed"] else 0)
