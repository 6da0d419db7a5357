"""Is anything lost when `learn` is killed? SIGKILL at random moments, then open, compare, and learn again.

    python benchmarks/crash/crash.py --kills 20 --out benchmarks/crash/results.json

Each round starts from the same studio with one concept. A child process learns a second one and is killed at a random
moment, up to three times; after every kill the studio must open, hold either one or two whole concepts, and rebuild
to the right bits. The last child runs to its end; its files must equal those of a run that was never interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers.utils import logging

from stamina_diffusion import files
from stamina_diffusion import learn as learning
from stamina_diffusion.embedded import folder as embedded_folder
from stamina_diffusion.methods import build
from stamina_diffusion.photos import collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.studio import Studio
from stamina_diffusion.world import WorldConcept


def teach(studio: Path, photos: Path, name: str, steps: int) -> None:
    plan = Plan(steps=steps, batch=4, prior_images=0)
    Studio.open(studio).learn(collect(photos, resolution=64), name, method=build("stamina"), plan=plan)


def in_child(kill_after: float | None, work: tuple[Path, Path, str, int]) -> bool:
    """Teach in a child process, killed after some seconds; True when it came to its end."""
    child = os.fork()
    if child == 0:
        learning.CHECKPOINT_SECONDS = 0.2
        try:
            teach(*work)
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a child failed by itself")
    return os.WIFEXITED(status)


def contents(studio: Path) -> dict[str, str]:
    """Every concept file's hash, and the ledger's head."""
    found = {str(p.relative_to(studio)): files.sha256(p) for p in sorted((studio / "concepts").rglob("*.safetensors"))}
    return found | {"head": Studio.open(studio).entries[-1].hash}


def weights_hash(studio: Path) -> str:
    """One hash of the rebuilt model's bits."""
    state = Studio.open(studio).backbone().pipeline.unet.state_dict()
    whole = hashlib.sha256()
    for value in state.values():
        whole.update(value.numpy().tobytes())
    return whole.hexdigest()


def main(kills: int, steps: int, base: str, seed: int) -> dict[str, object]:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    rng, work = random.Random(seed), Path(tempfile.mkdtemp())
    try:
        one, two = (WorldConcept("faces", "tuning", i).photograph(work / name) for i, name in enumerate(("one", "two")))
        start = work / "start"
        Studio.create(start, base)
        in_child(None, (start, one, "one", steps))
        whole = work / "whole"
        shutil.copytree(start, whole)
        began = time.monotonic()
        in_child(None, (whole, two, "two", steps))
        length = time.monotonic() - began
        first, expected = contents(start), contents(whole)
        first_weights, expected_weights = weights_hash(start), weights_hash(whole)

        lost = wrong = done = committed = resumed = 0
        while done < kills:
            studio = work / "studio"
            shutil.copytree(start, studio)
            for _ in range(3):
                if done == kills:
                    break
                finished = in_child(rng.uniform(0.0, length * 1.05), (studio, two, "two", steps))
                if finished:
                    break
                done += 1
                now = contents(studio)
                version = Studio.open(studio).version
                committed += version == 2
                right = expected if version == 2 else first
                if {key: now[key] for key in right} != right:
                    lost += 1
                if weights_hash(studio) != (expected_weights if version == 2 else first_weights):
                    lost += 1
                resumed += (studio / "unfinished" / "two" / "checkpoint.safetensors").exists()
                if version == 2:
                    break
            if Studio.open(studio).version == 1:
                in_child(None, (studio, two, "two", steps))
            wrong += contents(studio) != expected or weights_hash(studio) != expected_weights
            shutil.rmtree(studio)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "kills": done,
        "killed_after_commit": committed,
        "resumed_from_checkpoint": resumed,
        "lost": lost,
        "ended_in_other_bytes": wrong,
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
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.base == "embedded":
        embedded_folder()
    found = main(given.kills, given.steps, given.base, given.seed)
    found["command"] = (
        f"python benchmarks/crash/crash.py --kills {given.kills} --steps {given.steps} --seed {given.seed}"
    )
    print(json.dumps(found, indent=2))
    if given.out:
        files.write_json(given.out, found)
    sys.exit(1 if found["lost"] or found["ended_in_other_bytes"] else 0)
