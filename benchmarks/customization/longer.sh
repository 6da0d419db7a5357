#!/bin/sh
# Some rows with 100 steps a concept instead of 30: a quarter of an hour of one core each. Interrupted, it goes on.
set -e
here=benchmarks/customization/longer
stamina bench tune --out out/tuning-longer --protocol cpu --set steps=100 --set heldout_every=10 \
  --methods lora,c-lora,stamina --trials 3 --concepts 5 --to $here/tuned.toml
# The file then got the rows that are no methods of their own: "stamina, half the steps" and the guard's energy of 0.999.
run() {
  stamina bench customization --out out/longer --protocol cpu --set steps=100 --set heldout_every=5 \
    --tuned $here/tuned.toml --concepts 20 --seeds 0 --methods "$1"
}
run "c-lora,stamina,joint training,lora"
run "stamina, half the steps,guard over stamina, energy 0.999,guard over lora, energy 0.999,frozen base"
stamina bench report out/longer --to $here
python benchmarks/table.py
