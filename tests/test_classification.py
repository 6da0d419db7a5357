"""The classification benchmark: rows, a small run of everything, resumption to the same bytes, what is refused."""

import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from stamina_diffusion import files
from stamina_diffusion.backbones import vit
from stamina_diffusion.benchmarks import grid, tuning
from stamina_diffusion.benchmarks.class_protocol import ClassProtocol, read_protocol
from stamina_diffusion.benchmarks.class_results import RESULT, write
from stamina_diffusion.benchmarks.class_rows import GROUPS, ROWS, chosen, flat, read_tuned
from stamina_diffusion.benchmarks.class_run import FOOTPRINT, PREDICTIONS, merged
from stamina_diffusion.benchmarks.classification import Classification, seen_as
from stamina_diffusion.benchmarks.grid import Cell
from stamina_diffusion.class_streams.atlas import Atlas, atlas
from stamina_diffusion.errors import SettingsError, StaminaError
from stamina_diffusion.heads import HEADS

MADE = {"command": "stamina bench", "machine": "a machine", "date": "2026-01-01", "commit": "abc"}
SMALL = {"classes": "8", "train": "4", "test": "4", "epochs": "2"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny ViT with random weights, of the atlas's resolution."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=32,
        num_labels=0,
    )
    vit.VisionTransformer(ViTForImageClassification(config)).save(folder / "vit")
    return folder


def benchmark(base, names: str, **more: str) -> Classification:
    protocol = read_protocol("classify", "atlas", {**SMALL, "base": str(base / "vit"), **more})
    return Classification(protocol, "classify", "atlas", tuple(chosen(names)), cache=str(base / "cache"))


def cells(made: Classification, tasks: int = 4, seed: int = 1) -> list[Cell]:
    return [Cell(row.name, "atlas", tasks, seed) for row in made.rows]


def run(made: Classification, folder, tasks: int = 4, seed: int = 1) -> list[dict]:
    todo = cells(made, tasks, seed)
    grid.prepare(made, todo, folder, MADE)
    for cell in todo:
        grid.run_cell(made, cell, folder)
        assert grid.failure(grid.place(folder, cell)) is None
    return write(folder)


def test_every_group_names_rows_and_every_row_has_settings_its_method_takes():
    for name, group in GROUPS.items():
        assert {row.name for row in chosen(name)} == set(group)
    for preset in ("classify", "coda"):
        for row in chosen("all"):
            assert row.resolve(preset, {}, 0, 10).method.name == row.method
    assert len(ROWS) == len(chosen("all"))


def test_an_adapter_under_a_merge_has_the_presets_settings():
    (row,) = chosen("stamina, averaged")
    assert (row.adapter, row.merge) == ("stamina", "averaged")
    method = row.resolve("classify", {}, 0, 10).method
    (plain,) = chosen("stamina")
    assert method.over == plain.resolve("classify", {}, 0, 10).method
    assert flat({"over": {"name": "lora", "rank": 8}, "decay": 0.5}) == {
        "over": "lora",
        "over.rank": "8",
        "decay": "0.5",
    }


def test_tuned_settings_go_to_the_row_and_to_its_merges(tmp_path):
    file = tmp_path / "tuned.toml"
    file.write_text('version = 1\n[row."c-lora"]\nstrength = 12.5\nbatch = 16\n')
    plain, merged_row = chosen("c-lora,c-lora, averaged", read_tuned(file))
    assert plain.resolve("classify", {}, 0, 10).method.strength == 12.5
    found = merged_row.resolve("classify", {}, 0, 10)
    assert (found.method.over.strength, found.plan.batch) == (12.5, 16)
    file.write_text('version = 1\n[row."c-lroa"]\nstrength = 12.5\n')
    with pytest.raises(SettingsError, match=r"no row 'c-lroa'(.|\n)*Did you mean 'c-lora'"):
        read_tuned(file)


def test_inflora_is_told_how_many_tasks_there_are_held_or_not(base):
    made = benchmark(base, "inflora,inflora, averaged,lora")
    found = {row.name: made.resolved(Cell(row.name, "atlas", 7, 0)).method for row in made.rows}
    assert "tasks" not in {field.name for field in dataclasses.fields(found["lora"])}
    assert (found["inflora"].tasks, found["inflora, averaged"].over.tasks) == (7, 7)
    said = dataclasses.replace(made, overrides=(("tasks", "3"),), rows=tuple(chosen("inflora")))
    assert said.resolved(Cell("inflora", "atlas", 7, 0)).method.tasks == 3


def test_every_row_gets_as_many_trials_and_a_trial_is_still_its_row(base):
    settings = {**SMALL, "base": str(base / "vit")}
    tried, made = tuning.of_classes("ft,c-lora,stamina,joint", "classify", settings, 3, 0, 4)
    told = [(trial.row.name, trial.number) for trial in tried]
    assert told[:4] == [("joint", 0), ("joint", 1), ("joint", 2), ("ft", 0)]
    rows = {row.name: row for row in made.rows}
    assert rows["ft #2"].softmax == "seen"
    assert rows["joint #1"].joint
    assert rows["c-lora #1"].adapter == "c-lora"
    assert not tried[0].values
    values = dict(next(trial for trial in tried if trial.name == "stamina #2").values)
    assert set(values) == {"rate", "word_rate", "strength", "mask_rate"}
    assert made.resolved(Cell("stamina #2", "tuning", 4, 0)).method.strength == values["strength"]
    made.check(tuning.cells_of(tried, 4, 0))


def test_a_misspelt_row_is_answered_with_the_nearest():
    with pytest.raises(SettingsError, match=r"no method 'stamnia'(.|\n)*Did you mean 'stamina'"):
        chosen("stamnia")


def test_a_preset_is_read_for_a_stream():
    coda = read_protocol("coda", "imagenet-r")
    assert coda.base == "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"
    assert (coda.epochs, coda.order, coda.sight["mean"], coda.sight["resize"]) == (50, "coda", [0.0, 0.0, 0.0], 256)
    assert read_protocol("coda", "cifar-100").epochs == 20
    assert "resize" not in read_protocol("coda", "cifar-100").sight
    assert read_protocol("coda", "atlas").base == "embedded"
    assert read_protocol("pilot", "imagenet-r").order == "pilot"
    assert "mean" not in read_protocol("modern", "imagenet-r").sight
    with pytest.raises(SettingsError, match="no setting 'epoch'"):
        read_protocol("coda", "atlas", {"epoch": "3"})
    with pytest.raises(SettingsError, match="classes is 0"):
        read_protocol("coda", "atlas", {"classes": "0"})


def test_a_presets_sight_is_over_the_checkpoints_own():
    from stamina_diffusion.backbones.seeing import Sight

    sight = seen_as(Sight(64, mean=(0.1, 0.1, 0.1)), {"resize": 72, "training": "crop"})
    assert (sight.side, sight.resize, sight.training, sight.mean) == (64, 72, "crop", (0.1, 0.1, 0.1))
    with pytest.raises(SettingsError, match="sight has no field 'crop'"):
        seen_as(Sight(64), {"crop": True})


def test_a_row_of_results_says_exactly_what_was_agreed(base, tmp_path):
    found = run(benchmark(base, "stamina"), tmp_path / "out")
    assert [row["head"] for row in found] == list(HEADS)
    agreed = {"adapter", "merge", "head", "stream", "tasks", "seed", "a_macro", "a_micro", "average_incremental"}
    agreed |= {"f_coda", "f_chaudhry", "bwt", "trained_percent", "added_parameters", "seconds"}
    assert set(RESULT) == agreed
    for row in found:
        assert set(row) == agreed | {"command", "machine", "date", "commit"}
        assert row["added_parameters"] == 0
        assert 0 < row["trained_percent"] < 100
        assert 0 <= row["a_macro"] <= 1
    assert len({row["head"]: row["trained_percent"] for row in found}) == 3


def test_what_a_run_does_not_define_keeps_its_reason(base, tmp_path):
    run(made := benchmark(base, "joint,lora"), tmp_path / "out")
    joint, lora = (grid.result(grid.place(tmp_path / "out", cell))["results"][0] for cell in cells(made))
    assert lora["fwt"] is None
    assert "no candidates" in lora["undefined"]["fwt"]
    assert set(lora["undefined"]) == {"fwt"}
    assert "at once" in joint["undefined"]["bwt"]
    assert joint["matrix"] is None
    assert [len(line) for line in lora["matrix"]] == [1, 2, 3, 4]
    assert np.mean(lora["matrix"][-1]) == pytest.approx(lora["a_macro"])
    assert np.mean(list(lora["by_class"].values())) == pytest.approx(lora["a_micro"])  # classes of equal size
    assert joint["task_incremental"] >= joint["a_macro"]
    assert 0 <= joint["task_inferred"] <= 1


def test_predictions_are_among_what_was_learned_and_agree_with_the_accuracy(base, tmp_path):
    made = benchmark(base, "lora")
    run(made, tmp_path / "out")
    (cell,) = cells(made)
    where = grid.place(tmp_path / "out", cell)
    rows = grid.committed(where)
    for task, row in enumerate(rows):
        said = files.read_tensors(grid.task_folder(where, task) / PREDICTIONS)
        for head in HEADS:
            assert said[f"said/{head}"].shape == (8 * (task + 1),)
            assert int(said[f"said/{head}"].max()) < 2 * (task + 1)
            inside = said[f"within/{head}"] // 2
            assert torch.equal(inside, torch.arange(task + 1, dtype=torch.int32).repeat_interleave(8))
        assert len(row["classes"]) == 2


def test_joint_training_is_the_stream_as_one_task(base, tmp_path):
    found = run(benchmark(base, "joint"), tmp_path / "out")
    assert [row["f_coda"] for row in found] == [None] * 3
    assert all(row["a_macro"] == row["a_micro"] for row in found)  # tasks of equal size
    stream = atlas(Atlas(4, 2, 1))
    whole = merged(stream.lessons(2))
    assert whole.taught.labels == (0, 0, 1, 1, 2, 2, 3, 3)
    assert np.array_equal(np.asarray(whole.taught.images[7]), np.asarray(stream.train.pictures[7]))


def test_a_run_that_was_stopped_goes_on_to_the_same_results(base, tmp_path, monkeypatch):
    made = benchmark(base, "c-lora")
    whole = run(made, tmp_path / "whole")
    (cell,) = cells(made)
    grid.prepare(made, [cell], tmp_path / "cut", MADE)
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid.run_cell(made, cell, tmp_path / "cut", stop)
    assert len(grid.committed(grid.place(tmp_path / "cut", cell))) == 2
    again = run(made, tmp_path / "cut")
    timeless = [{key: value for key, value in row.items() if key != "seconds"} for row in whole]
    assert [{key: value for key, value in row.items() if key != "seconds"} for row in again] == timeless
    states = [grid.task_folder(grid.place(tmp_path / name, cell), 3) / grid.STATE for name in ("whole", "cut")]
    assert states[0].read_bytes() == states[1].read_bytes()
    kept = [grid.result(grid.place(tmp_path / name, cell))["results"][0]["footprint"] for name in ("whole", "cut")]
    assert kept[0] == kept[1]


def test_a_run_says_what_each_task_changed_of_the_weights(base, tmp_path):
    made = benchmark(base, "frozen,lora,stamina")
    half = dataclasses.replace(made.rows[2], settings=(("mask_bias", "0.0"),))
    made = dataclasses.replace(made, rows=(*made.rows[:2], half))
    run(made, tmp_path / "out")
    found = {}
    for cell in cells(made):
        where = grid.place(tmp_path / "out", cell)
        found[cell.variant] = grid.result(where)["results"][-1]["footprint"]
        assert found[cell.variant]["norm"] == [row["norm"] for row in grid.committed(where)]
    assert found["frozen"] == dict.fromkeys(FOOTPRINT, [None] * 4)
    assert found["lora"]["density"] == [1.0] * 4
    assert all(0.1 < share < 0.9 for share in found["stamina"]["density"])  # half of the mask is open at the start
    for row in ("lora", "stamina"):
        assert all(0 < size < 1 for size in found[row]["norm"])
        assert found[row]["overlap"][0] is None  # nothing was moved before
    later = zip(*(found[row]["overlap"][1:] for row in ("stamina", "lora")), strict=True)
    assert all(0 < masked < plain < 1 for masked, plain in later)


def test_the_longer_run_differs_from_the_committed_one_in_its_epochs_alone():
    folder = Path(__file__).parents[1] / "benchmarks" / "classification"
    short, longer = (tomllib.loads((folder / f"{name}.toml").read_text()) for name in ("negative", "longer"))
    assert longer["classification"].pop("epochs") == 3 * short["classification"].pop("epochs")
    assert longer == short


def test_what_cannot_be_run_is_refused_and_nothing_is_written(base, tmp_path):
    made = benchmark(base, "lora")
    with pytest.raises(SettingsError, match="8 classes cannot be shared out evenly to 3 tasks"):
        grid.prepare(made, cells(made, 3), tmp_path / "out", MADE)
    other = dataclasses.replace(made, stream="atlsa")
    with pytest.raises(SettingsError, match=r"no stream 'atlsa'(.|\n)*Did you mean 'atlas'"):
        grid.prepare(other, cells(other), tmp_path / "out", MADE)
    assert not (tmp_path / "out").exists()
    lost = dataclasses.replace(made, protocol=dataclasses.replace(made.protocol, base=str(tmp_path / "nowhere")))
    with pytest.raises(StaminaError, match="no ViT can be read"):
        grid.prepare(lost, cells(lost), tmp_path / "out", MADE)
    assert not (tmp_path / "out").exists()


def test_results_of_another_protocol_do_not_share_a_folder(base, tmp_path):
    made = benchmark(base, "frozen")
    grid.prepare(made, cells(made), tmp_path / "out", MADE)
    longer = dataclasses.replace(made, protocol=dataclasses.replace(made.protocol, epochs=3))
    with pytest.raises(SettingsError, match="epochs is 2 there and 3 here"):
        grid.prepare(longer, cells(longer), tmp_path / "out", MADE)


def test_a_protocol_is_plain_data():
    protocol = ClassProtocol(matrices=("key", "value"))
    assert json.loads(json.dumps(protocol.settings()))["matrices"] == ["key", "value"]


def test_the_command_runs_tells_and_writes_results(base, tmp_path):
    from typer.testing import CliRunner

    from stamina_diffusion.cli import app

    out = tmp_path / "out"
    asked = ["bench", "classification", "--out", str(out), "--tasks", "2", "--methods", "frozen,joint"]
    asked += ["--seeds", "0,1"]
    asked += ["--set", f"base={base / 'vit'}", "--set", "classes=4", "--set", "train=4", "--set", "test=2"]
    dry = CliRunner().invoke(app, [*asked, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "4 of 4 runs to do" in dry.output
    assert not out.exists()
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 0, ran.output
    assert "nearest" in ran.output
    found = json.loads((out / "results.json").read_text())
    assert len(found) == 2 * 2 * len(HEADS)
    assert {(row["adapter"], row["seed"]) for row in found} == {(a, b) for a in ("frozen", "joint") for b in (0, 1)}
    assert found[0]["command"].startswith("stamina")
    wrong = CliRunner().invoke(app, [*asked, "--set", "ranks=8"])
    assert wrong.exit_code == 2
    assert "there is no setting 'ranks'" in wrong.output
