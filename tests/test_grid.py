"""A grid runs whole or in pieces, in one process or several, to the same bytes; wrong settings are refused first."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import psutil
import pytest
import torch

from stamina_diffusion import files
from stamina_diffusion.benchmarks import fanning, grid
from stamina_diffusion.benchmarks.grid import Cell
from stamina_diffusion.errors import SettingsError, StaminaError
from stamina_diffusion.testing_benchmark import Toys

CELLS = [Cell("lora", "noise", 3, 0), Cell("c-lora", "noise", 3, 0), Cell("lora", "noise", 3, 1)]
MADE = {"command": "pytest", "machine": "here", "date": "2026-01-01", "commit": None}


def run(folder, benchmark=Toys(), cells=CELLS, **how):  # noqa: B008 (it is frozen)
    grid.prepare(benchmark, cells, folder, MADE)
    fanning.run(benchmark, cells, folder, **how)
    return folder


def results(folder):
    """Everything below a folder that may not vary: rows without times, and the bytes of every tensor."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        elif path.name == grid.ROW:
            found[name] = {key: value for key, value in files.read_json(path).items() if key not in grid.VARYING}
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("grid") / "alone")


def test_every_task_and_the_end_are_kept(alone):
    where = grid.place(alone, CELLS[1])
    assert [row["concept"] for row in grid.committed(where)] == ["noise-0", "noise-1", "noise-2"]
    matrix = grid.result(where)["matrix"]
    assert [len(row) for row in matrix] == [1, 2, 3]
    assert files.read_json(where / grid.CELL)["made"] == MADE
    # The state of the newest task alone is kept.
    assert len(list(where.rglob(grid.STATE))) == 1
    assert results(alone) != {}


def test_two_processes_make_the_same_bytes(alone, tmp_path):
    seen = []
    both = run(tmp_path / "both", jobs=2, watch=seen.append)
    assert results(both) == results(alone)
    assert seen[0] == 0
    assert seen[-1] == sum(cell.length + 1 for cell in CELLS)


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'stamina-diffusion[ray]'")
def test_ray_makes_the_same_bytes(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        run(tmp_path / "ray", ray="local")
    except SettingsError as error:
        # Ray gives its own start 30 seconds, whatever else the machine does.
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("this machine is too busy to start Ray in 30 seconds")
    assert results(tmp_path / "ray") == results(alone)


def test_without_ray_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match="needs the package ray"):
        run(tmp_path / "ray", ray="local")


class Stopped(Exception):
    pass


@pytest.mark.parametrize("commits", range(1, 4))
def test_a_stopped_cell_goes_on_to_the_same_bytes(alone, tmp_path, commits):
    left = commits

    def stop():
        nonlocal left
        left -= 1
        if not left:
            raise Stopped

    grid.prepare(Toys(), CELLS, tmp_path / "out", MADE)
    with pytest.raises(Stopped):
        grid.run_cell(Toys(), CELLS[1], tmp_path / "out", stop)
    assert len(grid.committed(grid.place(tmp_path / "out", CELLS[1]))) == commits
    assert results(run(tmp_path / "out")) == results(alone)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_command_goes_on_to_the_same_bytes(alone, tmp_path, jobs):
    # Killed outright, between any two instructions.
    code = (
        "from pathlib import Path; from stamina_diffusion.benchmarks import fanning, grid\n"
        "from stamina_diffusion.benchmarks.grid import Cell; from stamina_diffusion.testing_benchmark import Toys\n"
        f"cells = [Cell(*c) for c in {[(c.variant, c.stream, c.length, c.seed) for c in CELLS]!r}]\n"
        f"if __name__ == '__main__':\n"
        f"    folder = Path({str(tmp_path / 'out')!r}); grid.prepare(Toys(), cells, folder, {MADE!r})\n"
        f"    fanning.run(Toys(), cells, folder, jobs={jobs})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    first = grid.task_folder(grid.place(tmp_path / "out", CELLS[0]), 0)
    while not first.exists() and child.poll() is None:
        time.sleep(0.005)
    workers = psutil.Process(child.pid).children(recursive=True)
    assert bool(workers) == (jobs > 1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    # None goes on computing for a command that is gone.
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert results(run(tmp_path / "out")) == results(alone)


def test_what_is_done_is_not_done_again(alone):
    before = {path: path.stat().st_mtime_ns for path in alone.rglob("*.safetensors")}
    run(alone)
    assert {path: path.stat().st_mtime_ns for path in alone.rglob("*.safetensors")} == before


def test_a_folder_of_other_settings_is_refused_before_anything_is_written(alone, tmp_path):
    with pytest.raises(SettingsError, match="steps is 3 there and 4 here"):
        run(alone, Toys(steps=4))
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(SettingsError, match="no folder of results"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_cell_of_other_settings_is_refused(alone, tmp_path):
    folder = run(tmp_path / "out", cells=CELLS[:1])
    path = grid.place(folder, CELLS[0]) / grid.CELL
    described = files.read_json(path)
    described["depends"]["method"]["rank"] = 5
    files.write_json(path, described)
    with pytest.raises(SettingsError, match=r"lora, noise 3, seed 0 with other settings: method.rank is 5 there"):
        run(folder)
    path.write_text("{")
    with pytest.raises(SettingsError, match="is damaged"):
        run(folder)


def test_unknown_names_and_nothing_at_all_are_refused(tmp_path):
    for cells, said in (([Cell("lroa", "noise", 1, 0)], "no method 'lroa'"), ([], "nothing to run")):
        with pytest.raises(SettingsError, match=said):
            run(tmp_path / "out", cells=cells)
    with pytest.raises(SettingsError, match="would share a folder"):
        run(tmp_path / "out", cells=[Cell("lora", "a b", 1, 0), Cell("lora", "a-b", 1, 0)])
    assert not (tmp_path / "out").exists()


def test_a_cell_that_fails_is_marked_and_the_others_go_on(tmp_path):
    cells = [Cell("lora", "noise", 1, 0), Cell("c-lora", "noise", 1, 0)]
    folder = run(tmp_path / "out", Toys(steps=1001), cells)
    for cell in cells:
        assert "no longer a number" in grid.failure(grid.place(folder, cell))
        assert grid.result(grid.place(folder, cell)) is None
    assert fanning.tasks_done(cells, folder) == 2


def test_a_cell_that_another_process_runs_is_left_alone(tmp_path):
    grid.prepare(Toys(), CELLS[:1], tmp_path, MADE)
    with (
        grid.FileLock(grid.place(tmp_path, CELLS[0]) / ".lock"),
        pytest.raises(StaminaError, match="another process is running this cell"),
    ):
        grid.run_cell(Toys(), CELLS[0], tmp_path, patience=0.1)


def test_threads_are_a_cells_own(tmp_path):
    before = torch.get_num_threads()
    assert json.loads((run(tmp_path / "out", cells=CELLS[:1]) / grid.SETTINGS).read_text())["settings"]["threads"] == 1
    assert torch.get_num_threads() == before
