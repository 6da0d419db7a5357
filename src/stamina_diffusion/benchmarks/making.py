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
    """What stands beside results; paths below the current folder are told from there."""
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": shlex.join(["stamina", *(_short(argument) for argument in given)]),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def _short(argument: str) -> str:
    here = str(Path.cwd()) + os.sep
    return argument.removeprefix(here) or "."


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
