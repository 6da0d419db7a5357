"""A stream in one file: checked whole before the first concept, and what is learned already is not learned again."""

import dataclasses
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from stamina_diffusion import testing
from stamina_diffusion.cli import app
from stamina_diffusion.errors import NameTakenError, SettingsError, StaminaError
from stamina_diffusion.streams import read, remaining
from stamina_diffusion.studio import Studio
from stamina_diffusion.world import WorldConcept

STREAM = """version = 1
steps = 2
set = { rank = 2, batch = 2, prior_images = 0 }

[[concept]]
name = "ada"
photos = "ada"
class = "person"

[[concept]]
name = "mill"
photos = "mill"
method = "lora"
set = { rank = 1 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    for place, (name, family) in enumerate((("ada", "faces"), ("mill", "landmarks"))):
        WorldConcept(family, "tuning", place).photograph(folder / name, 2)
    testing.tiny_pipeline().save_pretrained(folder / "base")
    return folder


def written(folder, text):
    path = folder / "stream.toml"
    path.write_text(text, encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_stream_says_for_each_concept_what_it_does_not_share(folder):
    ada, mill = read(written(folder, STREAM), "paper")
    assert (ada.name, ada.class_word, ada.resolved.method.name, len(ada.photos)) == ("ada", "person", "stamina", 2)
    assert (mill.class_word, mill.resolved.method.name) == (None, "lora")
    assert [lesson.resolved.method.settings()["rank"] for lesson in (ada, mill)] == [2, 1]
    assert {lesson.resolved.plan.steps for lesson in (ada, mill)} == {2}


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("version = 1", "version = 2", SettingsError, "version is 2"),
        ("steps = 2", "stps = 2", SettingsError, "Did you mean 'steps'?"),
        ("steps = 2", "steps = 'two'", SettingsError, "steps is 'two'"),
        ('photos = "mill"\n', "", SettingsError, "[[concept]] 2 has no photos"),
        ('name = "mill"', 'name = "Ada"', NameTakenError, "'ada' stands twice"),
        ('name = "mill"', 'nam = "mill"', SettingsError, "[[concept]] 2 has no field 'nam'"),
        ('name = "mill"', 'name = "../mill"', StaminaError, "mill"),
        ('photos = "mill"', 'photos = "mil"', StaminaError, "mil"),
        ("rank = 1", "rnk = 1", SettingsError, "Did you mean 'rank'?"),
        ("[[concept]]", "[[concepts]]", SettingsError, "there is no 'concepts'"),
    ],
)
def test_a_mistake_in_a_stream_is_found_before_the_first_concept(folder, old, new, error, said):
    assert old in STREAM
    with pytest.raises(error) as caught:
        read(written(folder, STREAM.replace(old, new)), "paper")
    assert said in str(caught.value)


def test_a_stream_is_learned_in_order_and_the_same_command_goes_on(folder, tmp_path):
    studio = tmp_path / "studio"
    assert run("init", studio, "--base", folder / "base").exit_code == 0
    stream = written(folder, STREAM)
    dry = run("learn", studio, "--stream", stream, "--dry-run")
    assert dry.exit_code == 0
    assert "would learn <mill> from 2 photos with lora, 2 steps, seed 0" in dry.output
    assert Studio.open(studio).version == 0

    first = run("learn", studio, folder / "ada", "--name", "ada", "--class", "person", "--steps", 2, "--no-report",
                "--set", "rank=2", "--set", "batch=2", "--set", "prior_images=0")  # fmt: skip
    assert first.exit_code == 0, first.output
    assert list((studio / "logs" / "0001-ada").glob("events.out.tfevents.*"))
    both = run("learn", studio, "--stream", stream, "--no-report", "--tracker", "none")
    assert both.exit_code == 0, both.output
    assert "1 of 2 concepts are learned already" in both.output
    assert [entry.name for entry in Studio.open(studio).entries] == ["ada", "mill"]
    assert "2 of 2 concepts" in run("learn", studio, "--stream", stream, "--no-report").output

    # A ledger that was written before there was a setting means its default.
    older = [dataclasses.replace(entry, settings=dict(entry.settings)) for entry in Studio.open(studio).entries]
    assert older[1].settings.pop("scaling") == "1"
    assert remaining(SimpleNamespace(entries=older), read(stream, "paper")) == []
    assert older[1].settings.pop("rank") == 1
    with pytest.raises(NameTakenError, match="with other settings"):
        remaining(SimpleNamespace(entries=older), read(stream, "paper"))

    other = run("learn", studio, "--stream", written(folder, STREAM.replace("steps = 2", "steps = 3")))
    assert other.exit_code == 2
    assert "from other photos or with other settings" in other.output
    assert "Did you mean 'wandb'?" in run("learn", studio, "--stream", stream, "--tracker", "wandbb").output
    assert not (studio / "logs" / "0002-mill").exists()
    mixed = run("learn", studio, folder / "ada", "--stream", stream)
    assert mixed.exit_code == 2
    assert run("learn", studio, "--name", "x").exit_code == 2
