#!/bin/sh
# Some rows with 100 steps a concept instead of 30: a quarter of an hour of one core each. Interrupted, it goes on.
set -e
here=benchmarks/customization/longer
stamina bench tune --out out/tuning-longer --protocol cpu --set steps=100 --set heldout_every=10 \
  --methods lora,c-lora,stamina --trials 3 --concepts 5 --to $here/tuned.toml
# Rows that vary these.
cat >> $here/tuned.toml <<'END'

# Protects what holds 99.9 % of each earlier word's features, a third of the directions that the default does.
[row."guard over stamina, energy 0.999"]
of = "guard over stamina"
energy = 0.999

[row."stamina, half the steps"]
of = "stamina"
steps = 50

[row."guard over lora, energy 0.999"]
of = "guard over lora"
energy = 0.999
END
run() {
  stamina bench customization --out out/longer --protocol cpu --set steps=100 --set heldout_every=5 \
    --tuned $here/tuned.toml --concepts 20 --seeds 0 --methods "$1"
}
run "c-lora,stamina,joint training,lora"
run "stamina, half the steps,guard over stamina, energy 0.999,guard over lora, energy 0.999,frozen base"
stamina bench report out/longer --to $here
python benchmarks/table.py
