"""How soon does the guard run out of room? Directions that it holds of the text width, by its energy.

    python benchmarks/guard/span.py --out benchmarks/guard/results.json

Words are learned one after another on the embedded base by textual inversion. The span of their prompts' features then
grows word by word as the guard would let it grow, at each energy. Written down are how many directions it holds after
each word, and what share of the next word's squared features lies outside it: what that word's change can act on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from torch import Tensor

from stamina_diffusion import files
from stamina_diffusion.methods.guard import extended
from stamina_diffusion.observe import TEMPLATES
from stamina_diffusion.photos import collect
from stamina_diffusion.settings import resolve
from stamina_diffusion.studio import Studio
from stamina_diffusion.world import FAMILIES, WorldConcept

ENERGIES = (0.999999, 0.99999, 0.9999, 0.999, 0.99)


def features(words: int, steps: int) -> list[Tensor]:
    """The features (prompts x positions, width) of each word's prompts."""
    settings = resolve("embedded", "textual-inversion", overrides={"batch": "4"}, steps=steps)
    names = []
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio.create(Path(folder) / "studio")
        for place in range(words):
            concept = WorldConcept(list(FAMILIES)[place % len(FAMILIES)], "tuning", place // len(FAMILIES))
            concept.photograph(Path(folder) / str(place))
            names.append(f"{concept.family}-{concept.index}")
            photos = collect(Path(folder) / str(place), resolution=64)
            studio.learn(photos, names[-1], method=settings.method, plan=settings.plan)
            print(f"learned {names[-1]}", flush=True)
        backbone = studio.backbone()
        with torch.no_grad():
            return [backbone.text_features([text.format(f"<{name}>") for text in TEMPLATES]).float() for name in names]


def grown(seen: list[Tensor], energy: float) -> dict[str, Any]:
    """The span at one energy, word by word."""
    span, directions, outside = seen[0].new_zeros(seen[0].shape[1], 0), [], []
    for rows in seen:
        left = rows - (rows @ span) @ span.T
        outside.append(float(f"{float(left.square().sum() / rows.square().sum()):.3g}"))
        span = extended(span, rows, energy)
        directions.append(span.shape[1])
    return {"energy": energy, "directions": directions, "outside": outside}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    seen = features(arguments.words, arguments.steps)
    result = {
        "width": seen[0].shape[1],
        "rows": [grown(seen, energy) for energy in ENERGIES],
        "words": arguments.words,
        "steps": arguments.steps,
        "command": f"python benchmarks/guard/span.py --words {arguments.words} --steps {arguments.steps}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "date": datetime.date.today().isoformat(),
    }
    for row in result["rows"]:
        print(row["energy"], row["directions"])
    if arguments.out:
        files.write_json(arguments.out, result)
    else:
        print(json.dumps(result, indent=1))
