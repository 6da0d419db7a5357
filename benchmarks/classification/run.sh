#!/bin/sh
# The committed run of the classification benchmark: about an hour of one core. Interrupted, it goes on.
# Settings were chosen before, on other identities:
#   stamina bench tune --benchmark classification --out out/tuning --preset benchmarks/classification/negative.toml \
#     --methods frozen,lora,c-lora,inflora,stamina --tasks 5 --trials 5 --set classes=30 --set test=12
set -e
here=benchmarks/classification
run() {
  stamina bench classification --stream atlas --preset $here/negative.toml --tuned $here/tuned.toml "$@"
}
run --out out/negative --tasks 10 --methods joint,frozen,ft,ft++,lora,c-lora,inflora,stamina --seeds 0
run --out out/negative --tasks 20 --methods frozen,lora,c-lora,inflora,stamina --seeds 0
run --out out/negative --tasks 10 --methods 'c-lora, averaged,stamina, averaged' --seeds 0
run --out out/negative --tasks 10 --methods c-lora,stamina --seeds 1,2
run --out out/negative --tasks 20 --methods c-lora,stamina --seeds 1,2
stamina bench report out/negative --to $here
python $here/folded.py --out $here/folded.json
python benchmarks/table.py
