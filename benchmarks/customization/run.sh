#!/bin/sh
# The committed run on two CPU cores; a concept takes about twenty-five seconds of one. Interrupted, it goes on. On a GPU with
# room for many processes: STAMINA_GRAPHS=1, and --jobs 16.
# The numbers of the cells that are done are in cells.tar.gz, and are not made again; delete it to tune and start anew.
set -e
here=benchmarks/customization
cpu="--protocol cpu --set steps=100"
drawn="--set samples=12 --set generic_samples=8"
rows() {
  sed -n 's/^\[row\."\(.*\)"\]$/\1/p' "$1" | paste -sd, -
}
if [ ! -f $here/cells.tar.gz ]; then
  # Put what has the highest I of each method into tuned.toml before going on, first round, then second.
  stamina bench customization --out out/by_pictures --stream tuning --concepts 8 --seeds 0 \
    --tuned $here/by_pictures/rows.toml $cpu --set heldout_every=8 --set samples=12 --set context_samples=1 \
    --set generic_samples=4 --jobs 2 --methods "$(rows $here/by_pictures/rows.toml)"
  stamina bench customization --out out/by_pictures_20 --stream tuning --concepts 20 --seeds 0 \
    --tuned $here/by_pictures/twenty/rows.toml $cpu --set heldout_every=20 --set samples=12 --set context_samples=1 \
    --set generic_samples=4 --jobs 2 --methods "$(rows $here/by_pictures/twenty/rows.toml)"
elif [ ! -d out/customization ]; then
  python benchmarks/cells.py unpack $here/cells.tar.gz out/customization --page $here/report.html
fi
stamina bench customization --out out/customization $cpu $drawn --set heldout_every=10 --set context_samples=2 \
  --set pairs=6 --tuned $here/tuned.toml --runs $here/runs.toml --jobs 2
stamina bench report out/customization --to $here
python $here/inside.py out/customization --to $here/inside.json
python benchmarks/cells.py pack out/customization $here/cells.tar.gz
python benchmarks/table.py

# Every earlier concept is asked again after each, so that what each one took from them can be set beside its certificate.
stamina bench customization --out out/certificate --concepts 10 --seeds 0 --tuned $here/certificate/rows.toml $cpu \
  --set heldout_every=1 --set samples=12 --set context_samples=0 --set generic_samples=8 --jobs 2 \
  --methods "$(rows $here/certificate/rows.toml)"
stamina bench report out/certificate --to out/certificate/report
cp out/certificate/report/results.json $here/certificate
cp out/certificate/report/figures/certificates-mixed-10.png docs/images/certificates.png
