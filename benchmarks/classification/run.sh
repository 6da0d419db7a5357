#!/bin/sh
# The committed run of the classification benchmark: about two hours of one core. Interrupted, it goes on.
# Settings were chosen before, on other identities:
#   stamina bench tune --benchmark classification --out out/tuning --preset benchmarks/classification/negative.toml \
#     --methods lora,c-lora,inflora,stamina --tasks 5 --trials 5 --set classes=30 --set test=12
set -e
here=benchmarks/classification
run() {
  stamina bench classification --stream atlas --preset $here/negative.toml --tuned $here/tuned.toml "$@"
}
