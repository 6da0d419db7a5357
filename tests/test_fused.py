"""The kernels are off unless asked for, tried before they are used, and equal to the plain version."""

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from stamina_diffusion import fused
from stamina_diffusion.errors import Notice, SettingsError
from stamina_diffusion.forming import at_once, mask_of, noise_of

HERE = Path(__file__).parent
LIKE = torch.zeros(1)

with_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: it comes with the CUDA builds of torch"
)


@pytest.fixture(autouse=True)
def _from_nothing(monkeypatch):
    for name in ("STAMINA_FUSED", "TRITON_INTERPRET"):
        monkeypatch.delenv(name, raising=False)
    fused._work.cache_clear()
    yield
    fused._work.cache_clear()


def test_without_being_asked_for_nothing_is_fused_and_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not mask_of(3, 1.0, LIKE).fused


def test_where_they_cannot_run_one_notice_says_so_and_the_plain_version_goes_on(monkeypatch):
    before = noise_of(3, 5, 7, LIKE)
    monkeypatch.setenv("STAMINA_FUSED", "1")
    with pytest.warns(Notice, match="going on with the plain version.*it is for a GPU"):
        assert not mask_of(3, 1.0, LIKE).fused
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(noise_of(3, 5, 7, LIKE), before)


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv("STAMINA_FUSED", "yes")
    with pytest.raises(SettingsError, match="STAMINA_FUSED=yes"):
        mask_of(3, 1.0, LIKE)


def test_who_counts_operations_gets_those_of_torch(monkeypatch):
    monkeypatch.setattr(fused, "chosen", lambda like: True)
    with at_once():
        assert not mask_of(3, 1.0, LIKE).fused
    assert mask_of(3, 1.0, LIKE).fused


def ran(*words: str | Path, **variables: str) -> str:
    """What a Python of its own says: Triton looks at its variables once."""
    given = os.environ | variables
    done = subprocess.run([sys.executable, *words], env=given, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@with_triton
@pytest.mark.slow
def test_in_tritons_interpreter_they_are_equal_to_the_plain_version():
    words = ("-m", "pytest", "-p", "no:cacheprovider", "-rA", HERE / "fused_interpreted.py")
    said = ran(*words, TRITON_INTERPRET="1", STAMINA_FUSED="1", OMP_NUM_THREADS="1")
    assert said.count("\nPASSED ") == 10


@with_triton
@pytest.mark.slow
def test_they_compile_for_gpus_that_are_not_here_without_spilling_registers(tmp_path):
    script = HERE.parent / "benchmarks" / "fused" / "compiled.py"
    rows = json.loads(ran(script, "80", TRITON_CACHE_DIR=str(tmp_path)))
    assert {row["kernel"] for row in rows} == {"noise", "form", "pull"}
    assert all(row["gpu"] == "sm_80" and 0 < row["registers"] <= 255 for row in rows)
    assert [row for row in rows if row["spilled_bytes"]] == []
    # To nearest, in both half precisions; nothing else is cast.
    assert [row["casts"] for row in rows if row["way"] in ("W + change, bf16", "W + change, fp16")] == [["rn"]] * 2
