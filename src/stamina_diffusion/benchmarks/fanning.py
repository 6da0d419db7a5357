"""Cells run one by one, in several processes of this machine, or on a cluster; the results are the same."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from .grid import Benchmark, Cell, committed, is_done, place, run_cell

GLANCE = 1.0
"""Seconds between two looks at what other processes have committed."""
GPU_SHARE = 0.1
"""Of a cluster's GPU for one cell: a small network leaves room for others."""
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

Watch = Callable[[int], None]
"""Called with how many tasks of all cells are done; a cell's end counts as one."""


def run(
    benchmark: Benchmark,
    cells: Sequence[Cell],
    folder: Path,
    *,
    jobs: int = 1,
    ray: str | None = None,
    watch: Watch = lambda done: None,
) -> None:
    """Run every cell that is not done, all of them prepared (`grid.prepare`), in `jobs` processes, or on Ray.

    `ray` is the address of a cluster that sees `folder` at the same path, or "local" for one that is started here.
    Raises SettingsError where Ray is not installed or not reached, and what a cell raises.
    """
    left = [cell for cell in cells if not is_done(place(folder, cell))]

    def look() -> None:
        watch(tasks_done(cells, folder))

    look()
    if ray is not None:
        _on_ray(benchmark, left, folder, ray, look)
    elif jobs > 1 and len(left) > 1:
        _in_processes(benchmark, left, folder, min(jobs, len(left)), look)
    else:
        for cell in left:
            run_cell(benchmark, cell, folder, look)
    look()


def tasks_done(cells: Iterable[Cell], folder: Path) -> int:
    """How much of the work is on the disk."""
    places = [place(folder, cell) for cell in cells]
    return sum(len(committed(where)) + is_done(where) for where in places)


def _end_with_parent() -> None:
    """Let a worker end at once when its command is killed: its processor is free, and so are its cells.

    What is committed stays, as if the worker itself were killed. It cannot merely raise: the pool would keep what it
    raised for a command that is gone, and wait for work without end.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker has a command to end with"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_processes(
    benchmark: Benchmark, cells: Sequence[Cell], folder: Path, jobs: int, look: Callable[[], None]
) -> None:
    # Spawned, not forked: a forked torch with threads hangs, and CUDA cannot be forked at all.
    context = multiprocessing.get_context("spawn")
    with _environment(benchmark.threads), ProcessPoolExecutor(jobs, context, _end_with_parent) as pool:
        futures = [pool.submit(run_cell, benchmark, cell, folder.absolute()) for cell in cells]
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(pending, timeout=GLANCE, return_when=FIRST_EXCEPTION)
                look()
                for future in done:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _on_ray(benchmark: Benchmark, cells: Sequence[Cell], folder: Path, address: str, look: Callable[[], None]) -> None:
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        do = "Run: pip install 'stamina-diffusion[ray]', or take --jobs."
        raise SettingsError("--ray needs the package ray", do=do) from error
    with _environment(benchmark.threads):
        options: dict[str, Any] = {} if address == "local" else {"address": address}
        try:
            ray.init(**options, include_dashboard=False, log_to_driver=False, logging_level="error")
        except Exception as error:  # of many kinds: a start that takes long on a busy machine is a bare Exception
            ray.shutdown()
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            do = "Give the address of a running cluster, or 'local'; on a busy machine try again."
            raise SettingsError(f"Ray cannot be reached: {said}", where=f"--ray {address}", do=do) from error
        try:
            share = GPU_SHARE if ray.cluster_resources().get("GPU") else 0
            remote = ray.remote(num_cpus=benchmark.threads, num_gpus=share, max_retries=0)(run_cell)
            pending = [remote.remote(benchmark, cell, folder.absolute()) for cell in cells]
            while pending:
                done, pending = ray.wait(pending, timeout=GLANCE)
                look()
                ray.get(done)
        finally:
            ray.shutdown()


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Inside, processes that are started have this many threads from their first import on."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
