"""The gate: a concept that hurts an earlier one is really kept out, and the studio is as it was, to the byte."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from stamina_diffusion import features
from stamina_diffusion.cli import app
from stamina_diffusion.errors import RefusedError
from stamina_diffusion.gate import Gate
from stamina_diffusion.methods import build
from stamina_diffusion.photos import collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.settings import Draw, Report
from stamina_diffusion.studio import Studio
from test_report import prepare, quick  # noqa: F401 (a fixture of every test here)

PRESET = """version = 1
[plan]
steps = 3
batch = 2
prior_images = 0
[draw]
steps = 2
[report]
samples = 2
steps = 2
[method.stamina]
rank = 2
"""
HURTS = ("--method", "fine-tune", "--set", "weights=network", "--set", "rate=0.3", "--set", "prior=false", "--steps", 8)
"""The whole U-Net at a rate far too high: what was known is gone afterwards."""


class Colours(torch.nn.Module):
    """An encoder that sees nothing but where a picture is red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return (pictures.flatten(1) - 0.5) * self.weight


def stamina(*arguments: object):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def inside(folder: Path) -> dict[str, str]:
    """Every file of a studio with its hash; without the curves of trainings, which also show those that failed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.relative_to(folder).parts[0] != "logs"
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, photos, a preset and a studio that has learned <rex> and <tom>."""
    folder = tmp_path_factory.mktemp("gate")
    prepare(folder, PRESET)
    studio = Studio.create(folder / "studio", str(folder / "base"))
    for name in ("rex", "tom"):
        ran = stamina("learn", studio.folder, folder / "photos", "--name", name, "--preset", folder / "tiny.toml")
        assert ran.exit_code == 0, ran.output
    return folder


@pytest.fixture
def studio(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "studio", tmp_path / "studio"))


def learn(made: Path, studio: Path, limit: float, *more: object):
    known = ("--name", "ann", "--preset", made / "tiny.toml", "--max-forgetting", limit)
    return stamina("learn", studio, made / "photos", *known, *more)


def test_a_concept_that_hurts_is_refused_and_nothing_is_changed(made, studio):
    before = inside(studio)
    ran = learn(made, studio, 0.05, *HURTS)
    assert ran.exit_code == 2
    assert "<ann> was learned but not let in: <" in ran.stderr
    assert "% higher (the limit is 5 %)" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert inside(studio) == before
    assert Studio.open(studio).pending() is None
    # The way is free for the same name, learned more carefully.
    assert learn(made, studio, 0.5).exit_code == 0
    assert [entry.name for entry in Studio.open(studio).entries] == ["rex", "tom", "ann"]


def test_a_refused_concept_can_be_kept_on_a_branch(made, studio):
    before = Studio.open(studio)
    ran = learn(made, studio, 0.05, *HURTS, "--keep-branch", "rough")
    assert ran.exit_code == 2
    assert "it is kept on the branch rough, and this branch is as it was" in ran.stderr
    now = Studio.open(studio)
    assert now.branch == "main"
    assert [entry.hash for entry in now.entries] == [entry.hash for entry in before.entries]
    assert now.pending() is None
    assert "<ann>" not in now.backbone().words
    now.switch("rough")
    there = Studio.open(studio)
    assert [entry.name for entry in there.entries] == ["rex", "tom", "ann"]
    assert "<ann>" in there.backbone().words
    # A name that is taken is said at the door, before anything is learned.
    ran = learn(made, studio, 0.05, "--name", "lou", "--keep-branch", "rough")
    assert ran.exit_code == 2
    assert "there is a branch 'rough' already" in ran.stderr


def test_a_branch_without_a_gate_is_a_wrong_use(made, studio):
    ran = stamina("learn", studio, made / "photos", "--name", "ann", "--keep-branch", "rough")
    assert ran.exit_code == 2
    assert "--max-forgetting" in ran.stderr


def test_the_same_concept_comes_in_without_the_gate(made, studio):
    ran = stamina("learn", studio, made / "photos", "--name", "ann", "--preset", made / "tiny.toml", *HURTS)
    assert ran.exit_code == 0
    assert len(Studio.open(studio).entries) == 3


def test_a_harmless_concept_is_let_in_and_the_fall_is_said(made, studio):
    ran = learn(made, studio, 0.5, "--method", "textual-inversion")
    assert ran.exit_code == 0, ran.stderr
    assert "The gate let it in" in ran.stdout
    assert len(Studio.open(studio).entries) == 3


def test_with_an_encoder_the_kept_score_decides(made, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "encoder_for", lambda base: (features.Encoder("colours", Colours()), ""))
    folder = tmp_path / "studio"
    Studio.create(folder, str(made / "base"))
    assert stamina("learn", folder, made / "photos", "--name", "rex", "--preset", made / "tiny.toml").exit_code == 0
    before = inside(folder)
    ran = learn(made, folder, 0.1, *HURTS)
    assert ran.exit_code == 2
    assert "<rex> falls by" in ran.stderr
    assert "of its kept score" in ran.stderr
    assert inside(folder) == before
    # What only adds a word leaves the pictures of the others as they were, to the bit.
    assert learn(made, folder, 0.0001, "--method", "textual-inversion").exit_code == 0


def test_what_cannot_be_judged_is_said_before_anything_is_learned(made, studio):
    shutil.rmtree(studio / "samples")
    photos = shutil.copytree(made / "photos", studio.parent / "photos")
    alone = Studio.create(studio.parent / "alone", str(made / "base"))
    plan = Plan(steps=1, batch=1, prior_images=0)
    alone.learn(collect(photos, resolution=8), "rex", method=build("stamina"), plan=plan)
    shutil.rmtree(photos)
    gate = Gate(alone, 0.1, Draw(), Report())
    with pytest.raises(RefusedError, match="cannot judge <rex>"):
        gate.prepare()


def test_whoever_accepts_sees_the_model_and_may_refuse(made, studio):
    opened = Studio.open(studio)
    seen = []

    def accept(entry, backbone):
        seen.append((entry.name, entry.word in backbone.words))
        raise RefusedError("not today")

    plan = Plan(steps=1, batch=1, prior_images=0)
    with pytest.raises(RefusedError, match="not today"):
        opened.learn(collect(made / "photos"), "ann", method=build("stamina"), plan=plan, accept=accept)
    assert seen == [("ann", True)]
    assert (len(opened.entries), opened.pending()) == (2, None)
    assert "<ann>" not in opened.backbone().words
