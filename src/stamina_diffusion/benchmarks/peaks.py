"""How much memory a piece of work took at its most: of the GPU where there is one, else of this process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def restart() -> None:
    """Begin anew, where the system can; else a later `peak` tells of the process's whole life."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        _RESET.write_text("5")
    except OSError:
        return


def peak() -> float:
    """MiB at the most since `restart`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (2**20 if sys.platform == "darwin" else 1024)
