"""How long a person waits, and whether plain diffusers draws the same: the real commands, imports included.

    python benchmarks/commands/commands.py --out benchmarks/commands/results.json

Makes six photos of a concept, then times `stamina learn`, `stamina draw -n 4` and `stamina demo` as processes, exports
the model, draws the same pictures by a process that does not have this package, and compares them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from stamina_diffusion import files

PROMPT = "a photo of <it> on a blue background"
SEED, COUNT, STEPS, GUIDANCE = 5, 4, 10, 3.0  # steps and guidance as they are where none are named
PLAIN = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1])
for k in range({count}):
    generator = torch.Generator("cpu").manual_seed({seed} + k)
    call = dict(num_inference_steps={steps}, guidance_scale={guidance}, generator=generator)
    pipeline({prompt!r}, **call).images[0].save(f"{{sys.argv[2]}}/{{k}}.png")
assert not any(name.startswith("stamina") for name in sys.modules)
"""


def stamina(*arguments: object) -> float:
    """Run a command as a person would; the answer is the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "stamina_diffusion", *map(str, arguments)], check=False)
    if done.returncode:
        raise SystemExit(f"stamina {arguments[0]} answered {done.returncode}")
    return round(time.perf_counter() - began, 1)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


def main(with_demo: bool, demo: Path | None) -> dict[str, object]:
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        stamina(
            "world", "--photos", work / "photos", "--family", "faces", "--pool", "stream", "--index", 77, "--views", 6
        )
        stamina("init", work / "studio")
        found["learn_seconds"] = stamina("learn", work / "studio", work / "photos", "--name", "it")
        drawing = ("-n", COUNT, "--seed", SEED)
        found["draw_seconds"] = stamina("draw", work / "studio", PROMPT, *drawing, "--out", work / "ours")
        stamina("export", work / "studio", "--to", "diffusers", work / "export")
        (work / "plain").mkdir()
        script = PLAIN.format(count=COUNT, seed=SEED, steps=STEPS, guidance=GUIDANCE, prompt=PROMPT)
        subprocess.run([sys.executable, "-c", script, work / "export", work / "plain"], check=True)
        singles = sorted(path for path in (work / "ours").glob("*.png") if path.stem.rpartition("-")[2].isdigit())
        assert len(singles) == COUNT, [path.name for path in (work / "ours").iterdir()]
        found["largest_difference_of_255"] = max(
            int(np.abs(pixels(ours) - pixels(work / "plain" / f"{k}.png")).max()) for k, ours in enumerate(singles)
        )
        if with_demo:
            found["demo_seconds"] = stamina("demo", "--out", demo or work / "demo")
    return found | {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-demo", action="store_true")
    parser.add_argument("--demo", type=Path, help="where the demo is to stay; nowhere if not given")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(not given.no_demo, given.demo)
    found["command"] = "python benchmarks/commands/commands.py" + (" --no-demo" if given.no_demo else "")
    print(json.dumps(found, indent=2))
    if given.out:
        files.write_json(given.out, found)
