#!/bin/sh
# The committed run of the classification benchmark: three hours of one core with its tuning. Interrupted, it goes on.
# The numbers of the cells that are done are in cells.tar.gz, and are not made again; delete those files to tune and start anew.
set -e
here=benchmarks/classification
whole=joint,frozen,ft,ft++,lwf,ewc,lora,o-lora,c-lora,inflora,sd-lora,slca,stamina
# Settings are chosen on other identities; the cells that are done were made with those of tuned.toml.
[ -f $here/cells.tar.gz ] || stamina bench tune --benchmark classification --out out/tuning --to $here/tuned.toml --preset $here/negative.toml \
  --methods $whole --tasks 5 --trials 5 --set classes=30 --set test=12
begun() {
  [ ! -f $1/cells.tar.gz ] || [ -d $2 ] || python benchmarks/cells.py unpack $1/cells.tar.gz $2
}
run() {
  stamina bench classification --stream atlas --preset $here/negative.toml --tuned $here/tuned.toml --jobs 2 "$@"
}
published() {
  stamina bench report $1 --to $2
  python benchmarks/cells.py pack $1 $2/cells.tar.gz
}
begun $here out/negative
run --out out/negative --tasks 10 --methods all --seeds 0,1,2
run --out out/negative --tasks 20 --methods all --seeds 0,1,2
published out/negative $here
# Two classes a task.
begun $here/fifty out/fifty
run --out out/fifty --set classes=100 --tasks 50 --methods $whole --seeds 0
published out/fifty $here/fifty
python $here/folded.py --out $here/folded.json
python benchmarks/table.py
