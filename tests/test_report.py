"""The report: measured once for each version, the same when measured later, and never another model's numbers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stamina_diffusion import backlog, columns, features, measure, page, summary, testing
from stamina_diffusion.cli import app
from stamina_diffusion.settings import Draw, Report
from stamina_diffusion.studio import Studio

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
rate = 0.05
"""
DRAW, REPORT = Draw(steps=2), Report(samples=2, steps=2)


class Colours(torch.nn.Module):
    """An encoder that sees nothing but where a picture is red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1) * self.weight


def stamina(*arguments: object):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def learn(folder: Path, studio: Path, name: str, *more: object):
    ran = stamina(
        "learn", studio, folder / "photos", "--name", name, "--class", "dog", "--preset", folder / "tiny.toml", *more
    )
    assert ran.exit_code == 0, ran.output
    return ran


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Few timesteps, pictures and prompts, the same for every test of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "TIMESTEPS", 2)
        patch.setattr(measure, "PICTURES", 2)
        patch.setattr(measure, "GENERIC", {"other": ("a photo of a person",)})
        yield


def prepare(folder: Path, preset: str) -> None:
    """Put a base, photos and a preset into a folder."""
    testing.tiny_pipeline().save_pretrained(folder / "base")
    (folder / "tiny.toml").write_text(preset, encoding="utf-8")
    (folder / "photos").mkdir()
    for k in range(3):
        Image.effect_noise((16, 16), 60 + 40 * k).convert("RGB").save(folder / "photos" / f"{k}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, photos, a preset, and two studios of three concepts: with an encoder, and without."""
    folder = tmp_path_factory.mktemp("report")
    prepare(folder, PRESET)
    Studio.create(folder / "blind", str(folder / "base"))
    for name in ("rex", "tom", "ann"):
        learn(folder, folder / "blind", name)
    shutil.copytree(folder / "blind", folder / "seen")
    with pytest.MonkeyPatch.context() as patch:
        # Columns without an encoder are no columns with one: all are measured anew.
        patch.setattr(features, "encoder_for", lambda base: (features.Encoder("colours", Colours()), ""))
        assert stamina("report", folder / "seen", "--preset", folder / "tiny.toml").exit_code == 0
    return folder


@pytest.fixture
def studio(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "blind", tmp_path / "studio"))


def plain(studio: Path) -> dict:
    return json.loads(stamina("report", studio, "--json", "--no-measure").stdout)


def without_clock(studio: Path) -> list[dict]:
    found = [columns.read(studio, head) for head in summary.heads(Studio.open(studio))]
    assert all(found)
    return [{key: value for key, value in vars(column).items() if key != "seconds"} for column in found]


def test_every_version_has_a_column_with_everything_in_it(made):
    found = plain(made / "seen")
    assert [one["measured"] for one in found["versions"]] == [True] * 3
    for key in ("kept", "like_photos", "loss"):
        shape = [[value is not None for value in row] for row in found[key]]
        assert shape == [[True, False, False], [True, True, False], [True, True, True]], key
    assert [found["kept"][k][k] for k in range(3)] == pytest.approx([1, 1, 1])
    assert found["kept"][2][0] < 1
    assert all(value is not None for row in found["bleed"] for value in row)
    assert [found["bleed"][k][k] for k in range(3)] == pytest.approx(found["like_photos"][2])
    assert "a photo of a dog" in found["drift"]
    assert all(len(values) == 3 and all(0 < value < 2 for value in values) for values in found["drift"].values())
    assert found["figures"]["like_photos"]["learned_when_learned"] == [found["like_photos"][k][k] for k in range(3)]
    assert {concept["loss_on"] for concept in found["concepts"]} == {"photos"}
    share = found["capacity"]["overlap_share"]
    assert (share[0], share[1][1:], share[2][2]) == ([None] * 3, [None] * 2, None)
    assert 0 <= share[2][0] <= 1
    assert found["forecast"]["by"] == "kept"
    assert found["forecast"]["earlier_fall"]["points"] == 2


def test_without_an_encoder_the_loss_speaks_and_what_is_missing_is_said(made):
    found = plain(made / "blind")
    assert found["encoder"] is None
    assert "no encoder is known for this base" in found["missing"]
    assert found["bleed"] is None
    assert found["kept"] == [[None] * 3] * 3
    assert found["figures"]["kept"]["average"] is None
    assert found["figures"]["loss"]["forgetting_max"] >= found["figures"]["loss"]["forgetting_since"]
    assert found["forecast"]["by"] == "loss"
    text = (made / "blind" / page.FILE).read_text(encoding="utf-8")
    assert "no encoder is known for this base" in text
    assert "Bleed" not in text


def test_columns_measured_later_are_those_of_after_each_learning(made, studio):
    then = without_clock(studio)
    shutil.rmtree(studio / columns.FOLDER)
    shutil.rmtree(studio / "samples")
    assert [one["measured"] for one in plain(studio)["versions"]] == [False] * 3
    ran = stamina("report", studio, "--preset", made / "tiny.toml")
    assert ran.exit_code == 0
    assert str(studio / "report.html") in ran.stdout
    assert without_clock(studio) == then
    assert backlog.missing(Studio.open(studio)) == []


def assert_close(found, wanted):
    """The same values; numbers to five digits, since a processor's sums depend on where in memory their terms lie."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_close(found[key], value)
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    else:
        assert found == wanted


def test_of_many_versions_that_were_not_measured_the_old_ones_are_sketched(made, studio, monkeypatch):
    then = without_clock(studio)
    shutil.rmtree(studio / columns.FOLDER)
    monkeypatch.setattr(backlog, "CELLS_AT_ONCE", 5)
    opened = Studio.open(studio)
    assert backlog.plan(opened) == {1: 0, 2: 0, 3: 3}
    assert stamina("report", studio, "--preset", made / "tiny.toml").exit_code == 0
    sketched = without_clock(studio)
    assert [list(column["cells"]) for column in sketched] == [["rex"], ["tom"], ["rex", "tom", "ann"]]
    for column, whole in zip(sketched, then, strict=True):  # what is there is what a whole one says
        only = {} if column is sketched[-1] else {"loss_samples": None}  # one loss is enough for a sketch
        assert column["cells"] == {name: replace(whole["cells"][name], **only) for name in column["cells"]}
    found = plain(studio)
    assert found["figures"]["loss"]["forgetting_since"] is not None
    text = (studio / "report.html").read_text(encoding="utf-8")
    assert "2 older versions (1 to 2) were measured by the concept that each had just learned" in text
    # What was sketched is not missing, until all is asked for or it is the newest.
    assert (backlog.missing(opened), backlog.missing(opened, every=True)) == ([], [1, 2])
    opened.rollback("tom")
    assert backlog.missing(opened) == [2]
    opened.rollback("ann")
    assert stamina("report", studio, "--every", "--preset", made / "tiny.toml").exit_code == 0
    assert_close(without_clock(studio), then)
    assert "older version" not in (studio / "report.html").read_text(encoding="utf-8")


def test_only_what_is_missing_is_measured(studio):
    opened = Studio.open(studio)
    head = summary.heads(opened)[1]
    stands = {path: path.stat().st_mtime_ns for path in (studio / columns.FOLDER).rglob("column.json")}
    (studio / columns.FOLDER / head / "column.json").write_text("{", encoding="utf-8")
    assert backlog.complete(opened, draw=DRAW, report=REPORT) == [2]
    now = {path: path.stat().st_mtime_ns for path in (studio / columns.FOLDER).rglob("column.json")}
    assert [path.parent.name for path in stands if now[path] != stands[path]] == [head]


def test_no_report_measures_nothing_and_the_page_says_so(made, studio):
    before = sorted(str(path) for path in (studio / columns.FOLDER).rglob("*"))
    learn(made, studio, "lou", "--no-report")
    assert sorted(str(path) for path in (studio / columns.FOLDER).rglob("*")) == before
    ran = stamina("report", studio, "--no-measure", "--html", studio / "deep" / "page.html")
    assert ran.exit_code == 0
    assert "Not measured: version 4." in (studio / "deep" / "page.html").read_text(encoding="utf-8")


def test_when_photos_are_gone_the_loss_is_measured_on_what_was_drawn(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "all"))
    studio = folder / "new"
    Studio.create(studio, str(folder / "base"))
    learn(folder, studio, "rex")
    shutil.move(folder / "photos", folder / "moved")
    for path in sorted((folder / "moved").iterdir()):
        (folder / "photos").mkdir(exist_ok=True)
        shutil.copy(path, folder / "photos" / f"other-{path.name}")
    learn(folder, studio, "tom")
    found = plain(studio)
    assert [concept["loss_on"] for concept in found["concepts"]] == ["samples", "photos"]
    first, second = (columns.read(studio, head) for head in summary.heads(Studio.open(studio)))
    assert first is not None
    assert second is not None
    assert second.cells["rex"].loss_photos is None
    assert [row[0] for row in found["loss"]] == [first.cells["rex"].loss_samples, second.cells["rex"].loss_samples]
    assert "not all of its photos are where they were" in (studio / page.FILE).read_text(encoding="utf-8")


def test_a_column_belongs_to_one_model(made, studio):
    opened = Studio.open(studio)
    entries = opened.entries
    heads = {columns.head_of(opened.base["hash"], entries[:k]) for k in range(4)}
    assert len(heads) == 4
    assert columns.head_of(opened.base["hash"], [entries[0], entries[2]]) not in heads
    assert columns.head_of("another", entries) not in heads
    assert columns.read(studio, columns.head_of("another", entries)) is None


def test_the_held_out_loss_is_the_same_every_time_and_tells_words_apart(made):
    backbone = Studio.open(made / "blind").backbone()
    pictures = testing.noise_pictures(2, 8)
    first, again = (measure.held_out_loss(backbone, "a photo of <rex>", pictures) for _ in range(2))
    assert first == again
    assert first != measure.held_out_loss(backbone, "a photo of <ann>", pictures)
    assert measure.held_out_loss(backbone, "a photo of <rex>", pictures[:1]) != first


def test_the_base_itself_has_not_drifted(studio):
    opened = Studio.open(studio)
    prompts = measure.generic_prompts(opened)
    base, now = opened.rebuilt(0), opened.backbone()
    reference = measure.base_reference(opened, now, prompts, DRAW, REPORT)
    # The same numbers from another place in memory may differ in their last digit.
    assert max(measure.drift(base, reference).values()) < 1e-5
    assert min(measure.drift(now, reference).values()) > 1e-3


def test_the_page_stands_alone_and_shows_every_concept(made):
    text = (made / "seen" / page.FILE).read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=\"(?!data:image/jpeg;base64,)", text) == []
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    assert '<meta name="viewport"' in text
    assert "<svg" in text
    # Three concepts over three versions, and the generic prompts of the base and of each version.
    assert text.count("<img") == 3 + 2 + 1 + 1 + 3
    for name in ("rex", "tom", "ann"):
        assert f"&lt;{name}&gt;" in text
        assert f"<{name}>" not in text


def test_what_a_studio_is_called_is_shown_and_not_obeyed(made, tmp_path):
    studio = Path(shutil.copytree(made / "seen", tmp_path / "<script>alert(1)<"))
    assert stamina("report", studio, "--no-measure").exit_code == 0
    text = (studio / page.FILE).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_an_empty_studio_has_a_page_too(made, tmp_path):
    studio = tmp_path / "empty"
    Studio.create(studio, str(made / "base"))
    assert stamina("report", studio).exit_code == 0
    assert "Nothing has been learned yet" in (studio / page.FILE).read_text(encoding="utf-8")
    assert json.loads(stamina("report", studio, "--json").stdout)["concepts"] == []


def test_a_forecast_that_crosses_its_limit_is_a_warning():
    from stamina_diffusion.forecast import Forecast

    bad = Forecast(0.2, 0.1, 0.3, 5, "mean so far")
    (said,) = summary.warnings("kept", bad, None, [])
    assert "lose 0.20 of their kept score" in said
    assert "0.10 to 0.30; limit 0.05" in said
    (said,) = summary.warnings("loss", bad, None, [])
    assert "rise by 20 %" in said
    assert summary.warnings("kept", Forecast(0.01, -1, 1, 5, "mean so far"), None, []) == []
    (said,) = summary.warnings("kept", None, Forecast(0.4, 0.3, 0.5, 5, "mean so far"), [0.8, 0.8, 0.8, 0.5])
    assert "0.40 when just learned, and the first ones had 0.80" in said


def test_rolled_back_forgotten_and_learned_again_each_model_has_its_own_column(made, studio):
    opened = Studio.open(studio)
    opened.rollback("tom")
    assert [one["version"] for one in plain(studio)["versions"]] == [1, 2]
    learn(made, studio, "lou")
    found = plain(studio)
    assert [(one["newest"], one["measured"]) for one in found["versions"]] == [
        ("rex", True),
        ("tom", True),
        ("lou", True),
    ]
    assert [one["version"] for one in found["versions"]] == [1, 2, 5]
    # Without <tom>, <lou> is in a model that was never measured; and nothing of <tom> is left to be seen.
    Studio.open(studio).forget("tom")
    assert [(one["newest"], one["measured"]) for one in plain(studio)["versions"]] == [("rex", True), ("lou", False)]
    assert not list((studio / columns.FOLDER).rglob("tom*"))
    assert stamina("report", studio, "--preset", made / "tiny.toml").exit_code == 0
    found = plain(studio)
    assert all(one["measured"] for one in found["versions"])
    assert [[value is not None for value in row] for row in found["loss"]] == [[True, False], [True, True]]
    assert "&lt;tom&gt;" not in (studio / page.FILE).read_text(encoding="utf-8")
    assert '"tom"' not in json.dumps(found)


def test_a_branch_has_its_own_columns_and_shares_what_came_before(made, studio):
    opened = Studio.open(studio)
    opened.create_branch("other", 1)
    opened.switch("other")
    assert [one["newest"] for one in plain(studio)["versions"]] == ["rex"]
    assert backlog.missing(Studio.open(studio)) == []
    learn(made, studio, "tom", "--seed", 7)
    assert [one["measured"] for one in plain(studio)["versions"]] == [True, True]
    Studio.open(studio).switch("main")
    assert backlog.missing(Studio.open(studio)) == []
