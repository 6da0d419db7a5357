"""The demo tells its whole story on any base, goes on where it stopped, and keeps off the folders of others."""

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from stamina_diffusion import demo, features, kept, testing
from stamina_diffusion.cli import app
from stamina_diffusion.studio import Studio
from stamina_diffusion.world import FAMILIES

PRESET = """version = 1
[plan]
steps = 2
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


class Colours(torch.nn.Module):
    """An encoder that sees nothing but where a picture is red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1) * self.weight


def run(out: Path, folder: Path):
    return CliRunner().invoke(
        app, ["demo", "--out", str(out), "--base", str(folder / "base"), "--preset", str(folder / "tiny.toml")]
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A demo that was stopped after its second concept and run again, with what the two runs said."""
    folder = tmp_path_factory.mktemp("demo")
    testing.tiny_pipeline().save_pretrained(folder / "base")
    (folder / "tiny.toml").write_text(PRESET, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "encoder_for", lambda base: (features.Encoder("colours", Colours()), ""))
        with pytest.MonkeyPatch.context() as shorter:
            shorter.setattr(demo, "STORIES", demo.STORIES[:2])
            first = run(folder / "out", folder)
        second = run(folder / "out", folder)
    for result in (first, second):
        assert result.exit_code == 0, result.output
    return folder / "out", second


def test_a_second_run_goes_on(told):
    _, second = told
    names = [story.name for story in demo.STORIES]
    assert [name for name in names if f"<{name}> is learned already" in second.stdout] == names[:2]
    assert [name for name in names if f"learning <{name}>: 100 %" in second.stderr] == names[2:]


def test_the_page_stands_alone_and_shows_everything(told):
    out, _ = told
    page = (out / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=\"(?!data:image/png;base64,)", page) == []
    samples = 2  # as the preset says; the last concept's are shown once
    assert page.count("<img") == 4 * (demo.PHOTOS + samples + 3) + 3 * samples
    for story in demo.STORIES:
        assert f"&lt;{story.name}&gt;" in page
    assert "prefers-color-scheme: dark" in page


def test_the_table_has_a_column_for_each_version(told):
    out, second = told
    studio = Studio.open(out / "studio")
    rows = demo.table(studio)
    assert [[row is not None for row in cells] for _, cells in rows] == [
        [version >= concept for version in range(4)] for concept in range(4)
    ]
    for place, (_, cells) in enumerate(rows):
        just_learned = cells[place]
        assert just_learned is not None
        assert just_learned.kept == pytest.approx(1)
        assert all(row is None or row.kept is not None for row in cells)
    assert "after 4" in second.stdout
    assert set(kept.read(studio.folder)) == {1, 2, 3, 4}


def test_features_are_kept_and_photos_are_not(told):
    out, _ = told
    studio = Studio.open(out / "studio")
    for entry in studio.entries:
        found = features.recall(studio.concept_folder(entry), features.Encoder("colours", Colours()))
        assert found is not None
        assert (len(found.photos), len(found.samples)) == (demo.PHOTOS, 2)
        assert features.recall(studio.concept_folder(entry), features.Encoder("another", Colours())) is None


@pytest.mark.parametrize("mark", [None, "{}", "not json"])
def test_a_folder_of_something_else_is_refused(tmp_path, mark):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    if mark is not None:
        (tmp_path / demo.MARK).write_text(mark, encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "is not the folder of a demo" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_stories_alternate_and_stay_in_the_stream():
    assert [story.family for story in demo.STORIES] == ["faces", "landmarks", "faces", "landmarks"]
    assert all(story.thing.pool == "stream" for story in demo.STORIES)
    assert set(demo.SCENES) == set(FAMILIES)
