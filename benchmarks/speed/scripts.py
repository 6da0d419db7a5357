"""diffusers' own training scripts, run as shipped beside this tree: seconds a step, peak of memory.

    python benchmarks/speed/scripts.py SCRIPT.py LIMIT [its arguments]

runs one, lets it take LIMIT steps of its optimizer, and prints the moments of those steps as JSON. The scripts load
their pictures through torchvision, which may not be installed here (its builds are tied to torch's); the six
transforms that they name are then stood in for by Pillow. No time that is measured depends on them by more than the
loading of one small picture.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ANSWER = "moments: "

SCRIPTS: dict[str, tuple[str, list[str]]] = {
    "train_custom_diffusion": (
        "examples/custom_diffusion/train_custom_diffusion.py",
        ["--modifier_token", "<rex>", "--initializer_token", "a", "--instance_prompt", "photo of a <rex>"],
    ),
    "train_dreambooth_lora": (
        "examples/dreambooth/train_dreambooth_lora.py",
        ["--instance_prompt", "a photo of a sks"],
    ),
}
"""Where each is in diffusers' repository, and what it must be told beside model, photos and steps."""


def stand_in() -> types.ModuleType:
    """A module torchvision with the transforms of the scripts, for pictures of Pillow."""

    class InterpolationMode(Enum):
        BILINEAR, LANCZOS, BICUBIC, NEAREST = (
            Image.Resampling.BILINEAR,
            Image.Resampling.LANCZOS,
            Image.Resampling.BICUBIC,
            Image.Resampling.NEAREST,
        )

    def resize(size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> Callable[..., Any]:
        def apply(image: Image.Image) -> Image.Image:
            scale = size / min(image.size)
            return image.resize([round(side * scale) for side in image.size], interpolation.value)  # type: ignore[arg-type]

        return apply

    def crop(size: int) -> Callable[..., Any]:
        def apply(image: Image.Image) -> Image.Image:
            left, top = ((side - size) // 2 for side in image.size)
            return image.crop((left, top, left + size, top + size))

        return apply

    def compose(steps: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
        def apply(image: Any) -> Any:
            for step in steps:
                image = step(image)
            return image

        return apply

    def flip(chance: float = 0.5) -> Callable[..., Any]:
        return lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < chance else image

    transforms: Any = types.ModuleType("torchvision.transforms")
    transforms.InterpolationMode, transforms.Resize, transforms.Compose = InterpolationMode, resize, compose
    transforms.CenterCrop = transforms.RandomCrop = crop
    transforms.RandomHorizontalFlip = flip
    transforms.ToTensor = lambda: lambda image: torch.from_numpy(np.asarray(image, np.float32) / 255).movedim(-1, 0)
    transforms.Normalize = lambda mean, std: lambda pixels: (pixels - mean[0]) / std[0]
    whole: Any = types.ModuleType("torchvision")
    whole.transforms = transforms
    return whole


def run(script: str, limit: int, arguments: list[str]) -> None:
    """Run a script in this process until its optimizer has made `limit` steps."""
    import resource

    import diffusers  # noqa: F401  before torchvision stands there, which it would look for
    import transformers  # noqa: F401
    from diffusers import DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel  # noqa: F401

    if find_spec("torchvision") is None:
        whole = stand_in()
        sys.modules |= {"torchvision": whole, "torchvision.transforms": whole.transforms}
    moments: list[float] = []
    plain = torch.optim.AdamW.step

    def step(self: Any, *rest: Any, **named: Any) -> Any:
        answer = plain(self, *rest, **named)
        moments.append(time.perf_counter())
        if len(moments) == limit:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(ANSWER + json.dumps([moments, peak]), flush=True)
            os._exit(0)
        return answer

    torch.optim.AdamW.step = step
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def measured(
    name: str, checkout: Path, model: Path, photos: Path, *, resolution: int, steps: int, threads: int
) -> tuple[list[float], int] | str:
    """Seconds a step without the first, and the peak of memory in bytes; or why there are none."""
    place, own = SCRIPTS[name]
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "pretrained_model_name_or_path": model,
            "instance_data_dir": photos,
            "output_dir": folder,
            "resolution": resolution,
            "train_batch_size": 1,
            "max_train_steps": steps + 2,
            "seed": 0,
        }
        command = [sys.executable, __file__, str(checkout / place), str(steps + 1), *own]
        command += [str(word) for key, value in arguments.items() for word in (f"--{key}", value)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    for line in ran.stdout.splitlines():
        if line.startswith(ANSWER):
            moments, peak = json.loads(line.removeprefix(ANSWER))
            return [after - before for before, after in itertools.pairwise(moments)], peak
    return (ran.stderr.strip().splitlines() or ["it printed nothing"])[-1]


def rows(
    checkout: Path | None, model: Path, photos: Path, ours: dict[str, Any], **options: int
) -> list[dict[str, object]]:
    """Each script against our step time, as the step benchmark measured it in the same run."""
    found: list[dict[str, object]] = []
    for name in SCRIPTS:
        row = {
            "measure": f"training step, time (s): {ours['name']}",
            "model": ours["model"],
            "peer_name": f"diffusers' {name}",
        }
        answer = (
            "no checkout of diffusers was given"
            if checkout is None
            else measured(name, checkout, model, photos, **options)
        )
        if isinstance(answer, str):
            found.append(
                row | {"ours": ours["seconds"], "peer": None, "ratio": None, "note": f"not measured: {answer}"}
            )
            continue
        peer = statistics.median(answer[0])
        ratio = round(ours["seconds"] / peer, 3)
        found.append(
            row | {"ours": ours["seconds"], "peer": round(peer, 4), "ratio": ratio, "peer_peak_bytes": answer[1]}
        )
    return found


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
