"""The customization benchmark: what each row learns, that it goes on where it stopped, and what is refused before."""

import dataclasses
import json
import shutil
import tomllib

import numpy as np
import pytest
from typer.testing import CliRunner

from stamina_diffusion import files
from stamina_diffusion.benchmarks import concept_streams, fanning, grid, recipes, results, rows, strips, tuning
from stamina_diffusion.benchmarks.customization import Customization
from stamina_diffusion.benchmarks.grid import Cell
from stamina_diffusion.benchmarks.manifest import read_manifest
from stamina_diffusion.benchmarks.protocol import Protocol, read_protocol
from stamina_diffusion.cli import app
from stamina_diffusion.errors import NameTakenError, PhotoError, SettingsError
from stamina_diffusion.metrics import continual
from stamina_diffusion.world import WorldConcept

TINY = read_protocol("cpu", {"steps": "2", "batch": "2", "samples": "2", "sampler_steps": "2", "generic_samples": "1",
                             "context_samples": "0", "test_views": "3", "heldout_views": "2"})  # fmt: skip
NAMES = ("c-lora", rows.JOINT, rows.SEPARATE, rows.FROZEN)
CELLS = [Cell(name, "mixed", 2, 0) for name in NAMES]
MADE = {"command": "stamina bench customization", "machine": "here", "date": "2026-01-01", "commit": "abc"}


@pytest.fixture(scope="module")
def benchmark():
    return Customization(TINY, tuple(rows.chosen(",".join(NAMES))))


@pytest.fixture(scope="module")
def folder(benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "out"
    grid.prepare(benchmark, CELLS, folder, MADE)
    fanning.run(benchmark, CELLS, folder)
    return folder


def result(folder, name):
    return grid.result(grid.place(folder, CELLS[NAMES.index(name)]))


# -- what is run ---------------------------------------------------------------------------------------------------


def test_a_sequence_has_its_matrix_and_every_measure(folder):
    found = result(folder, "c-lora")
    assert found["concepts"] == [subject.name for subject in concept_streams.subjects("mixed", 2, 0)]
    matrix = np.array(found["matrix"], dtype=float)
    assert np.isnan(matrix[0, 1])
    assert found["forgetting"] == pytest.approx(continual.forgetting_since(matrix), abs=1e-5)
    assert found["gain"] == pytest.approx(matrix[-1].mean(), abs=1e-5)
    first = grid.committed(grid.place(folder, CELLS[0]))[0]
    assert found["each"]["gain_then"][0] == pytest.approx(
        1 - first["heldout"][found["concepts"][0]] / first["base_heldout"][0], abs=1e-5
    )
    assert all(len(found["each"][name]) == 2 for name in ("a_mmd", "f_mmd", "retrieval", "image_alignment"))
    assert found["f_mmd"] == found["each"]["f_mmd"][0]
    assert 0 < found["trained_percent"] < 5
    assert found["stored_percent"] > 100


def test_pictures_are_kept_so_that_they_can_be_measured_again(folder):
    where = grid.place(folder, CELLS[0])
    final = strips.read(where / grid.END / "final.png")
    own = strips.read(grid.task_folder(where, 1) / "own.png")
    assert [len(row) for row in final] == [2, 2]
    # Nothing was learned after the last concept, and the seeds are the same.
    assert [one.tobytes() for one in own[0]] == [one.tobytes() for one in final[1]]


def test_the_frozen_base_gains_nothing_and_trains_nothing(folder):
    found = result(folder, rows.FROZEN)
    assert found["each"]["gain"] == [0.0, 0.0]
    assert (found["trained_percent"], found["stored_percent"], found["steps"]) == (0.0, 100.0, 0)
    assert found["drift"] == pytest.approx(0, abs=1e-6)


def test_joint_training_learns_all_words_at_once(folder):
    found = result(folder, rows.JOINT)
    (row,) = grid.committed(grid.place(folder, CELLS[1]))
    assert sorted(row["concepts"]) == sorted(found["concepts"])
    assert found["forgetting"] is None
    assert all(gain != 0 for gain in found["each"]["gain"])


def test_one_lora_each_does_not_know_of_the_others(folder, benchmark, tmp_path):
    # The second concept's LoRA starts from the base: alone in a stream it would be the same, but for its word's noise,
    # whose size is that of all known words.
    found = result(folder, rows.SEPARATE)
    assert found["forgetting"] is None
    run = benchmark.open(CELLS[2], tmp_path)
    run.subjects = run.subjects[1:]
    (tmp_path / "task").mkdir()
    alone = run.learn(0, tmp_path / "task")
    name = found["concepts"][1]
    second = grid.committed(grid.place(folder, CELLS[2]))[1]
    assert alone["heldout"][name] == pytest.approx(second["heldout"][name], rel=1e-4)
    assert abs(second["heldout"][name] / alone["base_heldout"][0] - 1) > 1e-3


def test_a_cell_that_goes_on_after_a_kill_ends_in_the_same_numbers(folder, benchmark, tmp_path):
    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    grid.prepare(benchmark, CELLS[:1], tmp_path / "again", MADE)
    with pytest.raises(Stopped):
        grid.run_cell(benchmark, CELLS[0], tmp_path / "again", stop)
    grid.run_cell(benchmark, CELLS[0], tmp_path / "again")
    here, there = (grid.place(one, CELLS[0]) for one in (folder, tmp_path / "again"))
    for path in sorted(here.rglob("*")):
        other = there / path.relative_to(here)
        if path.name == grid.ROW:
            assert steady(path) == steady(other)
        elif path.suffix in (".png", ".safetensors"):
            assert path.read_bytes() == other.read_bytes(), path


def steady(path):
    return {key: value for key, value in files.read_json(path).items() if key not in grid.VARYING}


def test_results_have_exactly_the_fields_that_were_promised(folder, tmp_path):
    found = results.write(folder, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert [row["variant"] for row in found] == [rows.JOINT, rows.SEPARATE, rows.FROZEN, "c-lora"]
    assert all(list(row) == list(results.FIELDS) for row in found)
    last = found[-1]
    assert (last["method"], last["stream"], last["concepts"], last["seed"], last["steps"]) == (
        "c-lora",
        "mixed",
        2,
        0,
        2,
    )
    assert (last["command"], last["commit"]) == (MADE["command"], "abc")


def test_results_of_nothing_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="no folder of results"):
        results.rows(tmp_path)


# -- streams -------------------------------------------------------------------------------------------------------


def test_streams_are_ordered_by_their_seed_and_keep_their_pools_apart():
    names = [[subject.name for subject in concept_streams.subjects("mixed", 6, seed)] for seed in (0, 1, 0)]
    assert names[0] == names[2] != names[1]
    assert (
        sorted(names[0]) == sorted(names[1]) == [*(f"face-{k}" for k in range(3)), *(f"landmark-{k}" for k in range(3))]
    )
    pools = {name: {one.concept.pool for one in concept_streams.subjects(name, 4, 0)} for name in concept_streams.WORLD}
    assert pools.pop("tuning") == {"tuning"}
    assert set(map(frozenset, pools.values())) == {frozenset({"stream"})}
    similar = concept_streams.subjects("similar", 20, 0)
    assert {one.concept.similar for one in similar} == {concept_streams.SHARED}
    assert sorted(one.concept.index for one in similar if one.concept.family == "faces") == list(range(10))


def test_test_views_are_not_training_views():
    (subject, _) = concept_streams.subjects("faces", 2, 0)
    taught = {picture.tobytes() for picture in subject.training(4, 64)}
    assert len(taught) == 4
    assert not taught & {picture.tobytes() for picture in subject.test(4, 64)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    text = "version = 1\n"
    for name in ("ada", "bob"):
        WorldConcept("faces", "tuning", ord(name[0])).photograph(folder / name, 6)
        text += f'[[concept]]\nname = "{name}"\nphotos = "{name}"\nclass = "person"\n'
    (folder / "two.toml").write_text(text)
    return folder / "two.toml"


def test_a_manifest_divides_its_photos_always_in_the_same_way(manifest):
    concept_streams.check_stream(str(manifest), 2, training=4, test=2)
    first, again = (concept_streams.subjects(str(manifest), 2, 3) for _ in range(2))
    assert [one.name for one in first] == [one.name for one in again]
    taught, tested = first[0].training(4, 64), first[0].test(9, 64, training=4)
    assert (len(taught), len(tested)) == (4, 2)
    assert not {one.tobytes() for one in taught} & {one.tobytes() for one in tested}


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ('photos = "bob"', 'photos = "bib"', PhotoError, "bob: "),
        ('name = "bob"', 'name = "Ada"', NameTakenError, "'Ada' stands twice"),
        ('class = "person"', "", SettingsError, "has no class"),
        ('class = "person"', 'clas = "person"', SettingsError, "Did you mean 'class'"),
        ("version = 1", "", SettingsError, "version is missing"),
    ],
)
def test_a_bad_manifest_is_refused(manifest, old, new, error, said):
    path = manifest.with_name("bad.toml")
    path.write_text(manifest.read_text().replace(old, new))
    read_manifest.cache_clear()
    with pytest.raises(error, match=said):
        concept_streams.check_stream(str(path), 2, training=4, test=2)


def test_a_manifest_with_too_few_photos_or_concepts_is_refused(manifest):
    with pytest.raises(PhotoError, match="has 5 photos to learn from and 1 others"):
        concept_streams.check_stream(str(manifest), 2, training=5, test=2)
    with pytest.raises(SettingsError, match="has 2 concepts, not 3"):
        concept_streams.check_stream(str(manifest), 3, training=4, test=2)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for place in range(4):
        WorldConcept("landmarks", "tuning", place).photograph(root / f"{place}", 15 if place else 3)
    (root / "prompts_and_classes.txt").write_text("subject_name,class\n1,castle\n2,tower\n")
    return root


def test_a_recipe_chooses_by_its_seed_among_those_with_photos_enough(data_set, tmp_path):
    out = tmp_path / "m.toml"
    ran = run("select", "celeba-hq", data_set, "--concepts", 3, "--out", out)
    assert ran.exit_code == 0, ran.output
    names = [one["name"] for one in tomllib.loads(out.read_text())["concept"]]
    assert sorted(names) == ["id-1", "id-2", "id-3"]
    checked = run("check", out, "--set", "views=8")
    assert checked.exit_code == 0, checked.output
    assert "<id-1> person: 8 to learn from, 7 to test on" in checked.output
    again = [recipes.select("celeba-hq", data_set, 2, seed) for seed in (0, 0, 1, 2, 3)]
    assert again[0] == again[1]
    assert len(set(again)) > 1


def test_a_recipe_reads_the_sets_own_classes(data_set, tmp_path):
    text = recipes.select("dreambooth", data_set, 2, 0)
    assert {one["class"] for one in tomllib.loads(text)["concept"]} == {"castle", "tower"}
    labels = "landmark_id,category,supercategory,hierarchical_label,natural_or_human_made\n1,x,y,waterfall,natural\n"
    (data_set / recipes.HIERARCHY).write_text(labels + "2,x,y,castle,human-made\n3,x,y,waterfall,natural\n")
    found = tomllib.loads(recipes.select("google-landmarks", data_set, 2, 0))["concept"]
    assert [(one["name"], one["class"]) for one in sorted(found, key=lambda one: one["name"])] == [
        ("id-1", "waterfall"),
        ("id-3", "waterfall"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("celebahq", "."), "Did you mean 'celeba-hq'"),
        (("celeba-hq", "gone"), "no such folder"),
        (("celeba-hq", "."), "not 50"),
    ],
)
def test_a_recipe_that_cannot_be_followed_writes_nothing(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    ran = run("select", *arguments, "--out", tmp_path / "m.toml")
    assert ran.exit_code == 2
    assert said in ran.output
    assert list(tmp_path.iterdir()) == []


# -- rows, protocols, tuning ---------------------------------------------------------------------------------------


def test_names_of_rows_may_hold_commas():
    names = [row.name for row in rows.chosen("c-lora,lora, merged,lora,stamina, no mask,bounds")]
    assert names == [*rows.BOUNDS, "lora", "lora, merged", "c-lora", "stamina, no mask"]
    assert len(rows.chosen("all")) == len(rows.ROWS)


def test_what_was_tuned_for_a_row_also_sets_its_variations(tmp_path):
    path = tmp_path / "tuned.toml"
    path.write_text(
        'version = 1\n[row."c-lora"]\nrate = 7e-3\nstrength = 5.0\nscores = ["0: 0.1"]\n'
        '[row."c-lora, half the steps"]\nof = "c-lora"\nsteps = 20\n[row.lora]\nrate = 9e-3\n'
    )
    tuned = rows.read_tuned(path)
    names = "c-lora, no self-regularisation,c-lora, half the steps,guard over lora,one lora each"
    found = {row.name: row.resolve("embedded", {"steps": "40"}, 0) for row in rows.chosen(names, tuned)}
    free = found["c-lora, no self-regularisation"].method.settings()
    assert (free["rate"], free["strength"]) == (7e-3, 0.0)
    half = found["c-lora, half the steps"]
    assert (half.method.settings()["strength"], half.plan.steps) == (5.0, 20)
    assert found["guard over lora"].method.settings()["over"]["rate"] == 9e-3
    assert found["one lora each"].method.settings()["rate"] == 9e-3


def test_every_row_gets_as_many_trials_and_its_own_settings_first():
    tried, benchmark = tuning.of_concepts("textual inversion,lora,c-lora,stamina,ewc over lora", TINY, 4, 0)
    assert [trial.number for trial in tried] == list(range(4)) * 5
    assert {trial.row.name for trial in tried if trial.number == 0 and trial.values} == set()
    fields = {trial.row.name: [key for key, _ in trial.values] for trial in tried if trial.number == 1}
    assert fields["textual inversion"] == ["word_rate"]
    assert fields["lora"] == ["rate", "word_rate"]
    assert set(fields["stamina"]) == {"rate", "word_rate", "strength", "mask_rate"}
    assert "strength" in fields["ewc over lora"]
    assert not benchmark.draws
    cells = tuning.cells_of(tried, 3, 0)
    benchmark.check(cells)
    trial = next(t for t in tried if t.name == "ewc over lora #2")
    resolved = benchmark.resolve(Cell(trial.name, "tuning", 3, 0)).method.settings()
    assert resolved["over"]["rate"] == dict(trial.values)["rate"]


def test_the_best_trial_is_written_and_can_be_read(tmp_path):
    tried, _ = tuning.of_concepts("lora", TINY, 3, 0)
    scores = {"lora #0": 0.1, "lora #1": float("-inf"), "lora #2": 0.2}
    best = tuning.write_chosen(tmp_path / "tuned.toml", tried, scores, "how good it is", MADE)
    assert best["lora"].number == 2
    (row,) = rows.chosen("lora", rows.read_tuned(tmp_path / "tuned.toml"))
    assert row.resolve("embedded", {}, 0).method.settings()["rate"] == dict(tried[2].values)["rate"]
    assert "1: failed" in (tmp_path / "tuned.toml").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": "1"}, "need two samples"),
        ({"reference": "none"}, "Choose one of: test, training"),
        ({"heldout_views": "99"}, "there are 16 test views"),
        ({"encoder": "some/clip"}, "cannot judge pictures of base 'embedded'"),
        ({"sampels": "4"}, "Did you mean 'samples'"),
        ({"steps": "many"}, "steps"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(changes, said):
    with pytest.raises(SettingsError) as error:
        read_protocol("cpu", changes)
    assert said in str(error.value)


def test_protocols_are_typed_and_named():
    assert read_protocol("full") == dataclasses.replace(Protocol())
    with pytest.raises(SettingsError, match="there is no protocol 'cpo'"):
        read_protocol("cpo")


# -- the command line ----------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["bench", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "stamnia"), "Did you mean 'stamina'"),
        (("--stream", "facse"), "Did you mean 'faces'"),
        (("--stream", "gone.toml"), "gone.toml"),
        (("--concepts", "1"), "Take 2 to 500"),
        (("--protocol", "cpu", "--set", "samples=1"), "two samples"),
        (("--seeds", "0,0"), "twice"),
        (("--tuned", "gone.toml"), "gone.toml"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, arguments, said):
    ran = run("customization", "--out", tmp_path / "out", *arguments)
    assert ran.exit_code == 2
    assert said in ran.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("by", "field"), [("loss", "gain"), ("pictures", "image_alignment")])
def test_tuning_takes_the_trial_that_scores_highest(tmp_path, by, field):
    small = [f"{key}={value}" for key, value in {"steps": 2, "batch": 2, "samples": 2, "sampler_steps": 2}.items()]
    settings = [part for one in (*small, "test_views=3", "heldout_views=2") for part in ("--set", one)]
    out, to = tmp_path / "out", tmp_path / "best.toml"
    asked = ["--methods", "textual inversion", "--concepts", "2", "--trials", "2", "--by", by, "--protocol", "cpu"]
    ran = run("tune", "--out", out, "--to", to, *asked, *settings)
    assert ran.exit_code == 0, ran.output
    scores = [grid.result(grid.place(out, Cell(f"textual inversion #{n}", "tuning", 2, 0)))[field] for n in (0, 1)]
    chosen = tomllib.loads(to.read_text())["row"]["textual inversion"]
    said = [line.partition(",")[0] for line in chosen["scores"]]
    assert said == [f"0: {scores[0]:.4f}", f"1: {scores[1]:.4f}"]
    assert ("word_rate" in chosen) == (scores[1] > scores[0])
    assert bool(list(out.rglob("final.png"))) == (by == "pictures")


def test_tuning_of_classes_has_no_pictures_to_go_by(tmp_path):
    ran = run("tune", "--benchmark", "classification", "--by", "pictures", "--out", tmp_path / "out")
    assert ran.exit_code == 2
    assert "classification draws no pictures" in ran.output
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_would_run(folder, tmp_path):
    ran = run("customization", "--methods", "lora,bounds", "--seeds", "0,1", "--dry-run", "--out", tmp_path / "out")
    assert ran.exit_code == 0, ran.output
    assert "would run lora, mixed 50, seed 1: about" in ran.output
    assert "8 of 8 runs to do" in ran.output
    assert not (tmp_path / "out").exists()


def test_runs_of_several_lengths_are_one_pool(tmp_path):
    path = tmp_path / "runs.toml"
    path.write_text(
        "version = 1\n[[run]]\nmethods = ['lora', 'c-lora, class word']\nconcepts = 3\nseeds = [1, 0]\n"
        "[[run]]\nmethods = ['lora']\nstream = 'faces'\nconcepts = 2\nseeds = [0]\n"
        "[[run]]\nmethods = ['lora']\nconcepts = 3\nseeds = [0]\n"
    )
    ran = run("customization", "--runs", path, "--dry-run", "--out", tmp_path / "out")
    assert ran.exit_code == 0, ran.output
    told = [line.partition(":")[0].removeprefix("would run ") for line in ran.output.splitlines()[:-1]]
    assert told == [
        "lora, mixed 3, seed 1",
        "c-lora, class word, mixed 3, seed 1",
        "lora, mixed 3, seed 0",
        "c-lora, class word, mixed 3, seed 0",
        "lora, faces 2, seed 0",
    ]
    refused = run("customization", "--runs", path, "--seeds", "0", "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "Leave out --seeds, or --runs." in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no [[run]] in it"),
        ("[run]\nconcepts = 3\n", "there is no [[run]] in it"),
        ("[[run]]\nmethod = ['lora']\n", "Did you mean 'methods'?"),
        ("[[run]]\nmethods = 'lora'\n", "methods is 'lora'"),
        ("[[run]]\nmethods = ['loro']\n", "Did you mean 'lora'?"),
        ("[[run]]\nconcepts = 1\n", "concepts is 1"),
        ("[[run]]\nseeds = [0, 0]\n", "seeds is [0, 0]"),
    ],
)
def test_a_bad_file_of_runs_is_refused(tmp_path, text, said):
    path = tmp_path / "runs.toml"
    path.write_text(f"version = 1\n{text}")
    ran = run("customization", "--runs", path, "--out", tmp_path / "out")
    assert ran.exit_code == 2
    assert said in " ".join(ran.output.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_protocol_is_refused(folder):
    ran = run("customization", "--out", folder, "--methods", "lora", "--concepts", 2, "--protocol", "full")
    assert ran.exit_code == 2
    assert "holds results of other settings" in ran.output


def test_results_from_before_there_was_a_setting_have_its_default(folder, benchmark, tmp_path):
    older = shutil.copytree(folder, tmp_path / "older")
    path = grid.place(older, CELLS[0]) / grid.CELL
    described = files.read_json(path)
    rank, scaling = (described["depends"]["settings"].pop(name) for name in ("rank", "scaling"))
    files.write_json(path, described)
    assert scaling == "1"
    # The default rank is not that of the preset, so a file without it is one of other settings.
    with pytest.raises(SettingsError, match=f"rank is 16 there and {rank} here"):
        grid.prepare(benchmark, CELLS, older, MADE)
    described["depends"]["settings"]["rank"] = rank
    files.write_json(path, described)
    grid.prepare(benchmark, CELLS, older, MADE)
    described["depends"]["settings"]["colour"] = 1
    files.write_json(path, described)
    with pytest.raises(SettingsError, match="colour is 1 there and None here"):
        grid.prepare(benchmark, CELLS, older, MADE)
