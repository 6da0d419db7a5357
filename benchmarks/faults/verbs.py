"""What a fault can fall into: every command that writes, one small entry each, on a studio small enough for many."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

PRESET = """version = 1
[plan]
steps = {steps}
batch = 2
prior_images = 0
[draw]
steps = 2
[report]
samples = 1
steps = 2
[method.stamina]
rank = 2
"""
CONCEPTS = ("rex", "tom", "ann")


@dataclass(frozen=True)
class Verb:
    """A command that writes."""

    name: str
    arguments: Callable[[Path, Path], list[str]]
    """Of the studio's folder and of the folder with everything else: what is given to the command line."""
    makes: Callable[[Path], Path] | None = None
    """What it makes outside of the studio, of the same folder; None where it changes the studio."""
    locks: bool = True
    """Whether no other may write meanwhile."""


def learn(name: str, *more: str) -> Callable[[Path, Path], list[str]]:
    return lambda studio, home: [
        *("learn", str(studio), str(home / "photos" / name), "--name", name, "--preset", str(home / "tiny.toml"), *more)
    ]


def draw(studio: Path, out: Path, word: str = "<rex>") -> list[str]:
    return ["draw", str(studio), f"a photo of {word}", "-n", "1", "--steps", "2", "--out", str(out)]


VERBS = (
    Verb("learn", learn("ann")),
    Verb("rollback", lambda studio, home: ["rollback", str(studio), "--to", "rex"]),
    Verb("forget", lambda studio, home: ["forget", str(studio), "rex", "--yes"]),
    Verb("rename", lambda studio, home: ["rename", str(studio), "rex", "Rex the dog"]),
    Verb("branch", lambda studio, home: ["branch", str(studio), "try", "--switch"]),
    Verb(
        "export",
        lambda studio, home: ["export", str(studio), "--to", "diffusers", str(studio.parent / "made")],
        lambda studio: studio.parent / "made",
        locks=False,
    ),
    Verb(
        "pack",
        lambda studio, home: ["pack", str(studio), str(studio.parent / "made.stamina")],
        lambda studio: studio.parent / "made.stamina",
    ),
)


def known_verbs() -> list[Verb]:
    """Those that the command line has."""
    from stamina_diffusion.cli import app

    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    return [verb for verb in VERBS if verb.name in names]


def stamina(arguments: list[str]) -> tuple[int, str]:
    """A command in this process: its exit code and what it said; a traceback is exit code 1."""
    from typer.testing import CliRunner

    from stamina_diffusion.cli import app

    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        import traceback

        return 1, "".join(traceback.format_exception(result.exception))[-2000:]
    return result.exit_code, result.output[-2000:]


def prepare(home: Path, steps: int = 6, base: str | None = None) -> None:
    """A base, photos, and a studio that has learned two concepts, with their report."""
    from stamina_diffusion import testing

    if base is None:
        base = str(home / "base")
        testing.tiny_pipeline().save_pretrained(base)
    (home / "tiny.toml").write_text(PRESET.format(steps=steps))
    for number, name in enumerate(CONCEPTS):
        (home / "photos" / name).mkdir(parents=True)
        for place, picture in enumerate(testing.noise_pictures(6, 16)[2 * number : 2 * number + 2]):
            picture.save(home / "photos" / name / f"{place}.png")
    _must(["init", str(home / "studio"), "--base", base])
    for name in CONCEPTS[:2]:
        _must(learn(name)(home / "studio", home))


def _must(arguments: list[str]) -> None:
    code, said = stamina(arguments)
    if code:
        raise SystemExit(f"{arguments[0]} failed by itself: {said}")


def often_saved() -> None:
    """Checkpoints at every step, so that a kill finds some."""
    import_module("stamina_diffusion.learn").CHECKPOINT_SECONDS = -1.0


# -- what is compared ----------------------------------------------------------------------------------------------


def state(studio: Path) -> dict[str, str]:
    """What a studio holds: its model's hash by the ledger, and every file of every concept that can be rebuilt."""
    from stamina_diffusion import files
    from stamina_diffusion.studio import Studio

    opened = Studio.open(studio)
    found = {
        "model": opened.record.model,
        "branches": json.dumps(sorted(opened.branches.items())),
        "shown": json.dumps([entry.title for entry in opened.entries]),
        "version": str(opened.version),
    }
    for entry in opened.entries:
        for file in entry.files:
            found[f"{entry.folder}/{file}"] = files.sha256(opened.check_file(entry, file))
    return found


def weights(studio: Path) -> str:
    """One hash of the rebuilt model's bits."""
    from stamina_diffusion.studio import Studio

    pipeline = Studio.open(studio).backbone().pipeline
    whole = hashlib.sha256()
    for network in (pipeline.unet, pipeline.text_encoder):
        for value in network.state_dict().values():
            whole.update(value.numpy().tobytes())
    return whole.hexdigest()


def picture(studio: Path, scratch: Path, word: str = "<rex>") -> tuple[int, str, str]:
    """Draw: the exit code, what was said, and the picture's bytes as a hash."""
    out = scratch / "drawn.png"
    out.unlink(missing_ok=True)
    code, said = stamina(draw(studio, out, word))
    from PIL import Image

    drawn = hashlib.sha256(Image.open(out).tobytes()).hexdigest() if code == 0 else ""
    return code, said, drawn


def made(path: Path) -> dict[str, str]:
    """Every file of an export or a pack, and its hash."""
    inside = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in inside}


def leftovers(folder: Path) -> list[str]:
    """Half-written files that stayed where a person would see them."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.part"))


def copied(studio: Path, folder: Path) -> Path:
    """A copy of a studio in a folder of its own."""
    folder.mkdir(parents=True)
    target = folder / "studio"
    shutil.copytree(studio, target)
    return target


def quiet() -> None:
    """What every child inherits."""
    import sys

    import torch

    torch.set_num_threads(1)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    sys.dont_write_bytecode = True
    from stamina_diffusion.cli import console

    console.quiet()
    from stamina_diffusion import exports, report, settings, studio  # noqa: F401
    from stamina_diffusion.exports import diffusers_folder  # noqa: F401
