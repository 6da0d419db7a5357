"""Who made a result: the command, the machine, the day and the commit."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def made(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """What stands beside results."""
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": shortened(shlex.join(["stamina", *given])),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def shortened(command: str) -> str:
    """A command without the folders of the machine that it ran on.

    >>> shortened("stamina bench report /home/ada/out --to report")
    'stamina bench report out --to report'
    """
    return shlex.join(Path(part).name if Path(part).is_absolute() else part for part in shlex.split(command))


def machine() -> str:
    """As a reader needs it to judge times: processor, cores, memory if known, GPU, torch."""
    import torch

    parts = [f"{platform.machine()}, {os.cpu_count()} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"torch {torch.__version__}"])


def commit() -> str | None:
    """The commit of the source that runs, '+' after it where files differ; None where it is installed."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
