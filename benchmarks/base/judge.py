"""How well the shipped base obeys its captions, measured again and put into its card.

    python benchmarks/base/judge.py [--weights FOLDER] [--captions 200]

Draws 4 samples of each held-out caption with the shipped sampler (25 steps, guidance 6) and lets the embedded encoder
name their attributes; about 15 minutes on two CPU cores. Rewrites `verdict.json`, `sheet.jpg` and the verdict in
`README.md` beside the weights: what the recipe's last stage does, for weights whose sampler has changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stamina_diffusion.embedded import WEIGHTS
from stamina_diffusion.embedded.recipe import card, judge, pack


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--captions", type=int, default=200)
    given = parser.parse_args()
    pipeline, encoder = pack.unpack(given.weights)
    verdict, shown = judge.judge(pipeline, encoder, captions=given.captions)
    card.judged_again(given.weights, verdict, shown)
    print(f"{verdict.generated:.3f} of {verdict.true_renders:.3f}: {verdict.ratio:.1%} of the true agreement")


if __name__ == "__main__":
    main()
