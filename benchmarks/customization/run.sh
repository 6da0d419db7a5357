#!/bin/sh
# The committed run on two CPU cores; a concept takes about twenty seconds of one. Interrupted, it goes on.
# The numbers of the cells that are done are in cells.tar.gz, and are not made again; delete it to tune and start anew.
set -e
here=benchmarks/customization
cpu="--protocol cpu --set steps=100"
drawn="--set samples=12 --set generic_samples=8"
if [ ! -f $here/cells.tar.gz ]; then
  # Rates, and what they go with, by held-out loss; then strengths and masks by pictures. Put the choice of both into
  # tuned.toml before going on.
  stamina bench tune --out out/customization-tuning --to out/by_loss.toml $cpu --set heldout_every=10 \
    --methods stamina,c-lora,lora --trials 4 --concepts 5 --jobs 2
  stamina bench customization --out out/by_a_mmd --stream tuning --concepts 8 --seeds 0 \
    --tuned $here/by_a_mmd/rows.toml $cpu --set heldout_every=8 --set samples=12 --set context_samples=1 \
    --set generic_samples=4 --jobs 2 --methods "$(
      sed -n 's/^\[row\."\(.*\)"\]$/\1/p' $here/by_a_mmd/rows.toml | paste -sd, -)"
elif [ ! -d out/customization ]; then
  python benchmarks/cells.py unpack $here/cells.tar.gz out/customization
fi
run() {
  stamina bench customization --out out/customization $cpu $drawn --set heldout_every=10 --set context_samples=2 \
    --set pairs=6 --tuned $here/tuned.toml --jobs 2 "$@"
}
run --concepts 50 --seeds 0 --methods "c-lora,stamina,guard over lora, energy 0.999,joint training,frozen base"
stamina bench report out/customization --to $here
python benchmarks/cells.py pack out/customization $here/cells.tar.gz
python benchmarks/table.py
