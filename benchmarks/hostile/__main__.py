"""Does bad input do harm? Every case of the corpus by the command line, the library and the web page.

    python -m benchmarks.hostile --out benchmarks/hostile/results.json

No case may end in a traceback, hang, die, fill the memory, start a process, ask the network, run code, or write outside
the studio. What is refused is refused with a message and exit code 2, and leaves the studio as it was; what is taken
adds to the studio and changes nothing in it. Commands and calls run in forked children, each in its own; a sample of
the commands runs again as real processes; the page is one real server, spoken to over HTTP. The last line counts every
case by every route.
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
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import forks
from . import archives, bases, guard, images, presets, studios, tensors, visits, words
from .cases import PRESET, Case, Place, draw, learn
from .judging import Route, contents, judged

LIMIT = 30.0
"""Seconds that a route may compute: other jobs of the machine do not count."""
PATIENCE = 240.0
"""Seconds after which a route that waits for something counts as hanging, too; and a process, which must import."""
MEMORY = 4096
"""Mebibytes that a route may hold."""


Played = tuple[Route, list[str], str, float, float]


def corpus() -> list[Case]:
    """Every case, always in the same order."""
    return [
        case for part in (images, words, presets, studios, tensors, bases, archives, visits) for case in part.cases()
    ]


def routes(cases: list[Case]) -> Iterator[Route]:
    for case in cases:
        yield from (Route(case, "command", number) for number in range(len(case.commands)))
        yield from (Route(case, "library", number) for number in range(len(case.calls)))
        yield from (Route(case, "page", number) for number in range(len(case.visits)))


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


def rehearsal(work: Path) -> None:
    """Good input by every command, so that all that they import is known."""
    place = Place(work / "rehearsal", work / "base", work / "good")
    place.out.mkdir(parents=True)
    shutil.copytree(work / "studio", place.studio)
    shutil.copy(work / "tiny.toml", place.preset)
    pack = str(place.root / archives.FILE)
    for arguments in (
        ["doctor", str(place.good), "--resolution", "8"],
        learn(place, photos=place.good),
        draw(place),
        ["log", str(place.studio)],
        ["export", str(place.studio), "--to", "diffusers", str(place.out / "exported")],
        ["pack", str(place.studio), pack],
        archives.open_it(place),
    ):
        answer = _as_command(arguments)
        if answer["code"]:
            raise SystemExit(f"{arguments[0]} fails with good input: {answer['said']}")
    shutil.rmtree(place.root)


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
        return answer | {"seen": done[:5], "wrong": judged(route, place, answer, before, contents(place.root))}
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
        ran = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
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
        return {"code": 2, "said": f"error: {_ends(str(error))}", "out": ""}
    except BaseException:
        return {"code": 1, "said": traceback.format_exc()[-1500:], "out": ""}
    return {"code": 0, "said": "", "out": ""}


def main(pick: str, workers: int, processes: int, every: int, journal: Path | None = None) -> dict[str, Any]:
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
    passed, ways, failures, began = Counter(), Counter(), [], time.monotonic()
    slowest, largest = ("", 0.0), ("", 0.0)
    try:
        _import_everything()
        for ready in (prepare_templates, rehearsal):
            made = forks.rehearse(partial(ready, work))
            if not made.fine:
                raise SystemExit(made.error)
        _load_once(work / "base")
        for way in ("page", "ordinary", "process"):
            part = [route for route in todo if (route.way if route.way in ("process", "page") else "ordinary") == way]
            for route, wrong, said, cpu, mebibytes in _noted(journal, part, partial(play_way, way, work, workers)):
                ways[route.way] += 1
                slowest = max(slowest, (route.name, cpu), key=lambda pair: pair[1]) if way != "process" else slowest
                largest = max(largest, (route.name, mebibytes), key=lambda pair: pair[1])
                if not wrong:
                    passed[route.case.kind] += 1
                    continue
                failures.append({"route": route.name, "wrong": wrong, "said": said})
                text = f"FAILED {route.name}: {'; '.join(wrong)}\n    {said[-700:]}"
                print(text.encode("utf-8", "backslashreplace").decode(), flush=True)
            print(f"{way}: {len(part)} routes, {round(time.monotonic() - began)} s", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "cases": len(cases),
        "passed": sum(passed.values()),
        "failed": len(failures),
        "by_way": dict(ways),
        "seconds": round(time.monotonic() - began),
        "cases_by_kind": dict(Counter(case.kind for case in cases)),
        "passed_by_kind": dict(passed),
        "most_cpu_seconds": [slowest[0], round(slowest[1], 1)],
        "largest_mebibytes": [largest[0], round(largest[1])],
        "failures": failures,
    }


def _noted(
    journal: Path | None, part: list[Route], played: Callable[[list[Route]], Iterator[Played]]
) -> Iterator[Played]:
    """Play routes, but for those that passed by a journal of this very code, and note there what passes."""
    known: dict[str, list[Any]] = {}
    if journal is not None:
        if not journal.exists():
            journal.write_text(json.dumps({"code": _code()}) + "\n")
        first, *lines = (json.loads(line) for line in journal.read_text().splitlines())
        if first["code"] != _code():
            raise SystemExit(f"{journal} is of another state of the code: delete it, and all begins anew")
        known = {line["route"]: line["of"] for line in lines}
    for route in part:
        if route.name in known:
            yield (route, [], "", *known[route.name])
    for route, wrong, said, cpu, mebibytes in played([route for route in part if route.name not in known]):
        if journal is not None and not wrong:
            with open(journal, "a", encoding="utf-8") as file:
                file.write(json.dumps({"route": route.name, "of": [round(cpu, 2), round(mebibytes)]}) + "\n")
        yield route, wrong, said, cpu, mebibytes


def _code() -> str:
    """A hash of everything that the answer depends on."""
    root, whole = Path(__file__).parents[2], hashlib.sha256()
    for folder in (root / "src", Path(__file__).parent):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".toml", ".html"):
                whole.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def play_way(way: str, work: Path, workers: int, part: list[Route]) -> Iterator[Played]:
    """Routes of one kind of way: each with all that is wrong, what was said, its CPU seconds and its memory."""
    if way == "page":
        for route, found, cpu, mebibytes in visits.play_all(part, work):
            wrong = found["wrong"] + (["it hangs"] if cpu > LIMIT else [])
            yield route, wrong + _too_much(mebibytes), found["said"], cpu, mebibytes
        return
    works = ((route, partial(play, route, work, number)) for number, route in enumerate(part))
    limit = LIMIT if way == "ordinary" else None  # a process must first import everything
    for route, ended in forks.run_all(works, workers=workers, limit=PATIENCE + 10, cpu_limit=limit):
        wrong = list(ended.value["wrong"]) + ended.value["seen"] if ended.value else []
        wrong += [f"killed by signal {ended.signal}"] if ended.signal and not ended.hung else []
        wrong += ["it hangs"] if ended.hung else []
        wrong += ["the case itself failed"] if ended.error else []
        said = ended.error or (ended.value or {}).get("said", "") or (ended.value or {}).get("out", "")
        yield route, wrong + _too_much(ended.mebibytes), said, ended.cpu, ended.mebibytes


def _too_much(mebibytes: float) -> list[str]:
    return [f"{mebibytes:.0f} MiB of memory"] if mebibytes > MEMORY else []


def _load_once(base: Path) -> None:
    """Fill the caches that loading a model fills; a child inherits them."""
    from stamina_diffusion.backbones.diffusion import families

    families.load(base)


def _import_everything() -> None:
    """What every child needs, once."""
    from stamina_diffusion.cli import app, console

    console.quiet()
    from PIL import Image

    from stamina_diffusion import bases, exports, kept, ledger, photos, report, settings, studio  # noqa: F401
    from stamina_diffusion.exports import diffusers_folder  # noqa: F401

    Image.init()
    assert app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--pick", default="", help="only cases whose kind and name contain this")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", type=int, default=12, help="how many command lines run again as real processes")
    parser.add_argument("--journal", type=Path, help="note what has passed, and go on from there when given again")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(given.pick, given.workers, given.processes, given.every, given.journal)
    found |= forks.facts("python -m benchmarks.hostile" + (f" --every {given.every}" if given.every > 1 else ""))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{found['passed']} passed, {found['failed']} failed")
    sys.exit(1 if found["failed"] else 0)
