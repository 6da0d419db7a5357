"""One flipped bit, or half of it gone, in every file of a studio and of its base: noticed, or harmless, never a lie."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stamina_diffusion import files

from .. import forks
from ..hostile.studios import rewrite
from . import verbs

LIMIT = 300.0
KINDS = ("flipped", "cut")


def interrupted(home: Path) -> None:
    """A studio beside the good one with a third concept half learned, its checkpoint among its files."""
    from stamina_diffusion.photos import collect
    from stamina_diffusion.settings import resolve
    from stamina_diffusion.studio import Studio

    verbs.often_saved()
    shutil.copytree(home / "studio", home / "interrupted")
    resolved = resolve(home / "tiny.toml", "stamina")

    def stop(step: Any) -> None:
        if step.step == 4:
            raise KeyboardInterrupt

    studio = Studio.open(home / "interrupted")
    try:
        found = collect(home / "photos" / "ann")
        studio.learn(found, "ann", method=resolved.method, plan=resolved.plan, watch=stop)
    except KeyboardInterrupt:
        return
    raise SystemExit("it was not interrupted")


def good(home: Path, scratch: Path) -> dict[str, Any]:
    """What the undamaged studio draws, and what it is after the next concept."""
    studio = verbs.copied(home / "interrupted", scratch)
    drawn = [verbs.picture(studio, scratch, word)[2] for word in ("<rex>", "<tom>")]
    code, said = verbs.stamina(verbs.learn("ann")(studio, home))
    if code:
        raise SystemExit(said)
    return {"drawn": drawn, "learned": learned(studio)}


def learned(studio: Path) -> dict[str, str]:
    """What the newest concept is made of. Old files are not asked: what was remembered long ago is for a rollback."""
    from stamina_diffusion.studio import Studio

    opened = Studio.open(studio)
    newest = opened.entries[-1]
    return {"model": opened.record.model} | {
        file: files.sha256(opened.check_file(newest, file)) for file in newest.files
    }


def damage(path: Path, kind: str, seed: int) -> None:
    data = bytearray(path.read_bytes())
    rng = random.Random(f"{seed} {path.name} {kind}")
    if kind == "cut":
        path.write_bytes(data[: len(data) // 2])
        return
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def trial(home: Path, scratch: Path, part: str, file: str, kind: str, seed: int, expected: dict[str, Any]) -> dict:
    """Damage one file, then draw, look and learn; every answer is the right one, or a refusal in words."""
    studio = verbs.copied(home / "interrupted", scratch)
    try:
        if part == "base":
            shutil.copytree(home / "base", scratch / "base")
            rewrite(studio, lambda body: body["base"].update(source=str(scratch / "base")))
        place = scratch / "base" if part == "base" else studio
        damage(place / file, kind, seed)
        wrong, noticed = [], False
        for number, word in enumerate(("<rex>", "<tom>")):
            code, said, drawn = verbs.picture(studio, scratch, word)
            noticed |= code == 2
            if code not in (0, 2) or (code == 2 and "error" not in said):
                wrong.append(f"draw answers {code}: {said[-300:]}")
            if code == 0 and drawn != expected["drawn"][number]:
                wrong.append(f"a wrong picture of {word}, and no message")
        code, said = verbs.stamina(["log", str(studio)])
        if code not in (0, 2):
            wrong.append(f"log answers {code}: {said[-300:]}")
        code, said = verbs.stamina(verbs.learn("ann")(studio, home))
        noticed |= code == 2
        if code not in (0, 2) or (code == 2 and "error" not in said):
            wrong.append(f"learn answers {code}: {said[-300:]}")
        if code == 0:
            now = learned(studio)
            # The base's path is in no hash of a concept, so a moved base does not matter.
            if now != expected["learned"]:
                keys = [key for key in now if now[key] != expected["learned"].get(key)]
                wrong.append(f"another concept was learned, and no message: {keys[:3]}")
        return {"wrong": wrong, "noticed": noticed}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run(home: Path, *, seed: int, workers: int, every: int) -> Iterator[tuple[str, list[str], bool]]:
    """Every file by every damage: its name, what is wrong, and whether it was noticed."""
    ready = forks.run(partial(interrupted, home), LIMIT)
    made = forks.run(partial(good, home, home / "good"), LIMIT)
    if not ready.fine or not made.fine:
        raise SystemExit(ready.error or made.error)
    found = [("studio", p.relative_to(home / "interrupted")) for p in sorted((home / "interrupted").rglob("*"))]
    found += [("base", p.relative_to(home / "base")) for p in sorted((home / "base").rglob("*"))]
    places = {"studio": home / "interrupted", "base": home / "base"}
    todo = [
        (part, str(file), kind)
        for part, file in found
        for kind in KINDS
        if (places[part] / file).is_file() and (places[part] / file).stat().st_size
    ][::every]
    works = (
        (
            f"{part}/{file} {kind}",
            partial(trial, home, home / f"flip-{number}", part, file, kind, seed, made.value),
        )
        for number, (part, file, kind) in enumerate(todo)
    )
    for name, ended in forks.run_all(works, workers=workers, limit=LIMIT):
        value = ended.value or {"wrong": [f"the check itself failed: {ended.error}"], "noticed": False}
        yield name, value["wrong"], value["noticed"]
