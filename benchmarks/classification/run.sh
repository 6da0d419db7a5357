#!/bin/sh
# The committed run of the classification benchmark: over an hour of one core, half of it tuning. Interrupted, it goes on.
set -e
here=benchmarks/classification
whole=joint,frozen,ft,ft++,lwf,ewc,lora,o-lora,c-lora,inflora,sd-lora,slca,stamina
# Settings are chosen on other identities.
stamina bench tune --benchmark classification --out out/tuning --to $here/tuned.toml --preset $here/negative.toml \
  --methods $whole --tasks 5 --trials 5 --set classes=30 --set test=12
run() {
  stamina bench classification --stream atlas --preset $here/negative.toml --tuned $here/tuned.toml --out out/negative "$@"
}
run --tasks 10 --methods all --seeds 0
run --tasks 20 --methods $whole --seeds 0
run --tasks 10 --methods c-lora,stamina --seeds 1,2
run --tasks 20 --methods c-lora,stamina --seeds 1,2
stamina bench report out/negative --to $here
python $here/folded.py --out $here/folded.json
python benchmarks/table.py
