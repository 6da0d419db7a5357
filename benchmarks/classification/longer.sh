#!/bin/sh
# STAMINA and C-LoRA as in run.sh with three times the steps a task: three quarters of an hour of one core with its
# tuning. Interrupted, it goes on.
set -e
here=benchmarks/classification
stamina bench tune --benchmark classification --out out/tuning-longer --to $here/longer/tuned.toml \
  --preset $here/longer.toml --tasks 5 --set classes=30 --set test=12 --methods lora,c-lora,stamina --trials 3
run() {
  stamina bench classification --stream atlas --preset $here/longer.toml --tuned $here/longer/tuned.toml \
    --out out/longer "$@"
}
run --tasks 10 --methods c-lora,stamina --seeds 0
run --tasks 10 --methods c-lora,stamina --seeds 1,2
run --tasks 10 --methods joint,frozen --seeds 0
run --tasks 10 --methods lora --seeds 0
run --tasks 20 --methods c-lora,stamina --seeds 0
stamina bench report out/longer --to $here/longer
python benchmarks/table.py
