"""What CUDA graphs (STAMINA_GRAPHS=1) save of a step of learning the embedded base, and whether they learn the same.

    python benchmarks/graphs/graphs.py --out benchmarks/graphs/results.json

Needs a GPU. Every method learns two concepts without graphs and two with them, in turn, from the same base; a time is
the lowest of the rounds' medians, of the second concept's steps after the first four, in which libraries choose.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from stamina_diffusion import files, testing
from stamina_diffusion.benchmarks import making
from stamina_diffusion.benchmarks.customization import Customization
from stamina_diffusion.learn import learn
from stamina_diffusion.settings import resolve

METHODS = {"lora": {}, "c-lora": {}, "stamina": {}, "guard": {"over": "lora"}}
SETTLED = 4


def learned(method: str, settings: dict[str, str], graphs: bool, steps: int, batch: int) -> tuple[float, list[float]]:
    """Milliseconds of a step of the second concept, and the losses of both."""
    backbone = Customization().load_base().to(torch.device("cuda"))
    backbone.replayed.on = graphs
    resolved = resolve("embedded", method, overrides={"steps": str(steps), "batch": str(batch), **settings}, seed=0)
    first = learn(backbone, resolved.method, testing.noise_concept("rex"), {}, resolved.plan)
    moments: list[float] = []
    second = learn(
        backbone,
        resolved.method,
        testing.noise_concept("tom"),
        first.memory,
        resolved.plan,
        watch=lambda step: moments.append(time.perf_counter()),
    )
    took = [1000 * (b - a) for a, b in itertools.pairwise(moments)][SETTLED:]
    return statistics.median(took), [*first.losses, *second.losses]


def main(given: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        sys.exit("There is no GPU: nothing to measure.")
    rows: list[dict[str, Any]] = []
    for method, settings in METHODS.items():
        times: dict[bool, list[float]] = {False: [], True: []}
        losses: dict[bool, list[float]] = {}
        for _ in range(given.rounds):
            for graphs in (False, True):
                took, losses[graphs] = learned(method, settings, graphs, given.steps, given.batch)
                times[graphs].append(took)
        plain, recorded = (min(times[graphs]) for graphs in (False, True))
        apart = max(abs(a - b) / abs(a) for a, b in zip(losses[False], losses[True], strict=True))
        row = {"method": " over ".join([method, *settings.values()]), "plain_ms": plain, "graphs_ms": recorded}
        rows.append({**row, "ratio": recorded / plain, "largest_relative_difference_of_losses": apart})
        print(rows[-1], flush=True)
        command = f"python benchmarks/graphs/{making.shortened(' '.join(sys.argv))}"
        files.write_json(given.out, {**making.made(), "command": command, "rows": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    main(parser.parse_args())
