"""The numbers of a benchmark's finished cells as one small file, so that a later run adds rows and seeds to them.

    python benchmarks/cells.py pack out/customization benchmarks/customization/cells.tar.gz
    python benchmarks/cells.py unpack benchmarks/customization/cells.tar.gz out/customization \
      --page benchmarks/customization/report.html

Unpacked, the folder is one of results: `stamina bench` runs what it lacks, and `stamina bench report` makes the page.
Pictures are not in it; those that a page of the same cells shows are taken from there, to be shown again.
"""

from __future__ import annotations

import argparse
import gzip
import io
import sys
import tarfile
from pathlib import Path

from stamina_diffusion.benchmarks import grid, report_pictures


def pack(folder: Path, to: Path) -> int:
    """Write the JSON files of every finished cell; the answer is how many cells. The same cells give the same bytes."""
    done = [where for where in grid.places(folder) if grid.is_done(where)]
    files = [folder / grid.SETTINGS, *(file for where in done for file in sorted(where.rglob("*.json")))]
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for file in files:
            entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
            entry.size = file.stat().st_size
            with file.open("rb") as content:
                tar.addfile(entry, content)
    to.write_bytes(gzip.compress(plain.getvalue(), mtime=0))
    return len(done)


def unpack(file: Path, to: Path) -> int:
    """Into a folder that does not exist yet, or is empty; the answer is how many cells there are."""
    if to.exists() and any(to.iterdir()):
        sys.exit(f"{to} is not empty: its cells could be newer than those of {file}")
    with tarfile.open(file) as tar:
        tar.extractall(to, filter="data")
    return len(grid.places(to))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("source", type=Path)
    parser.add_argument("to", type=Path)
    parser.add_argument("--page", type=Path, help="of unpack: the page that has their pictures")
    given = parser.parse_args()
    count = (pack if given.what == "pack" else unpack)(given.source, given.to)
    print(f"{given.to}: {count} cells")
    if given.what == "unpack" and given.page is not None:
        print(f"{given.page}: pictures of {report_pictures.take_back(given.page, given.to)} of them")
