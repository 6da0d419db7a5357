"""Samples while a concept is learned: they are drawn when asked for, go where they should, and alter nothing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from stamina_diffusion import files, testing
from stamina_diffusion.cli import app
from stamina_diffusion.studio import Studio
from stamina_diffusion.validating import sampler


@pytest.fixture
def learned(tmp_path: Path) -> Any:
    testing.tiny_pipeline().save_pretrained(tmp_path / "base")
    (tmp_path / "photos").mkdir()
    for place, picture in enumerate(testing.noise_pictures(2, 16)):
        picture.save(tmp_path / "photos" / f"{place}.png")

    def learn(name: str, *more: object) -> Any:
        studio = tmp_path / name
        made = CliRunner().invoke(app, ["init", str(studio), "--base", str(tmp_path / "base")])
        assert made.exit_code == 0, made.output
        arguments = ["learn", studio, tmp_path / "photos", "--name", "rex", "--steps", 5, "--no-report", *more]
        ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert ran.exit_code == 0, ran.output
        return ran

    return learn


def change_of(studio: Path) -> str:
    return files.sha256(studio / "concepts" / "0001-rex" / "change.safetensors")


def test_samples_are_drawn_on_the_way_and_the_concept_is_the_same_to_the_bit(learned: Any, tmp_path: Path) -> None:
    ran = learned("watched", "--validate", 2)
    folder = tmp_path / "watched" / "logs" / "0001-rex"
    assert sorted(path.name for path in folder.glob("*.png")) == ["step-00002.png", "step-00004.png"]
    assert f"samples after 4 steps: {folder / 'step-00004.png'}" in ran.stderr
    (events,) = folder.glob("events.*")
    found = EventAccumulator(str(events), size_guidance={"images": 0})
    found.Reload()
    assert [event.step for event in found.Images("samples")] == [2, 4]
    learned("plain", "--tracker", "none")
    assert not (tmp_path / "plain" / "logs").exists()
    assert change_of(tmp_path / "plain") == change_of(tmp_path / "watched")
    Studio.open(tmp_path / "watched").forget("rex")
    assert not folder.exists()


def test_without_a_tracker_the_pictures_are_in_the_folder_alone(learned: Any, tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('version = 1\nextends = "paper"\n[plan]\nprior_images = 0\n[report]\nvalidation_every = 5\n')
    learned("quiet", "--tracker", "none", "--preset", preset)
    (path,) = (tmp_path / "quiet" / "logs" / "0001-rex").iterdir()
    assert path.name == "step-00005.png"
    assert Image.open(path).size[0] > 0


def test_a_full_memory_ends_the_samples_and_not_the_learning(tmp_path: Path) -> None:
    class Full:
        asked = 0

        def draw(self, *_: Any, **__: Any) -> list[Image.Image]:
            self.asked += 1
            raise torch.OutOfMemoryError("CUDA out of memory")

    full: Any = Full()
    peek = sampler("<rex>", 3.0, tmp_path, lambda step, pictures, path: pytest.fail("nothing was drawn"))
    with pytest.warns(UserWarning, match="no room for samples"):
        peek(1, full)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peek(2, full)
    assert full.asked == 1
    assert not list(tmp_path.iterdir())
