"""The page of the classification benchmark: the numbers are the runs', the best is best, a reason stands for none."""

import csv
import io
import json

import numpy as np
import pytest

from stamina_diffusion import files
from stamina_diffusion.benchmarks import class_comparison, grid, report, tables
from stamina_diffusion.benchmarks.class_rows import chosen
from stamina_diffusion.benchmarks.class_run import AT_ONCE, MEASURES
from stamina_diffusion.benchmarks.classification import classification
from stamina_diffusion.benchmarks.grid import Cell
from stamina_diffusion.heads import HEADS
from stamina_diffusion.metrics import continual
from stamina_diffusion.metrics.classification import Undefined, of_matrix

MADE = {"command": "stamina bench classification --out /home/ada/out", "machine": "m", "date": "d", "commit": "c"}
TASKS = 4
KEPT = {"frozen": 0.5, "lora": 0.6, "c-lora": 0.7, "stamina": 0.75, "stamina, averaged": 0.72}
"""Accuracy of each task when just learned; later tasks take 0.1 of it, of lora 0.2."""
CHANGED = {"density": [0.9, 0.6, 0.5, 0.4], "norm": [0.02] * TASKS, "overlap": [None, 0.5, 0.3, 0.1]}
"""What each task of STAMINA's changed; of the other rows nothing is known, as of results of an earlier version."""


def matrix(name, seed, head):
    lost = 0.2 if name == "lora" else 0.1
    bonus = 0.05 * list(HEADS).index(head) + 0.01 * seed
    return [[KEPT[name] + bonus - lost * (time - task) / TASKS for task in range(time + 1)] for time in range(TASKS)]


def result(cell, row, head):
    shared = {"adapter": row.adapter, "merge": row.merge, "stream": "atlas", "tasks": TASKS, "seed": cell.seed}
    shared |= {"head": head, "trained_percent": 5.0, "added_parameters": 0, "seconds": 2.0}
    if row.joint:
        found = {**dict.fromkeys(MEASURES, AT_ONCE), "a_macro": 0.9, "a_micro": 0.9}
        lines, last = None, [0.9] * TASKS
    else:
        lines = matrix(row.name, cell.seed, head)
        square = [[*line, *[np.nan] * (TASKS - len(line))] for line in lines]
        found = {**dict.fromkeys(MEASURES, 0.5), **of_matrix(square)}
        last = lines[-1]
    known = {key: found[key] for key in MEASURES}
    return {
        **shared,
        **{key: None if isinstance(value, Undefined) else value for key, value in known.items()},
        "undefined": {key: value.reason for key, value in known.items() if isinstance(value, Undefined)},
        "matrix": lines,
        "footprint": CHANGED if row.name == "stamina" else {},
        "by_class": {f"class-{place}": last[place // 2] for place in range(2 * TASKS)},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "out"
    rows = chosen("joint," + ",".join(KEPT))
    made = classification("classify", "atlas", rows, {"classes": "8", "train": "1", "test": "1"})
    for row in rows:
        for seed in (0, 1) if row.name != "joint" else (0,):
            cell = Cell(row.name, "atlas", TASKS, seed)
            grid.prepare(made, [cell], folder, MADE)
            end = grid.place(folder, cell) / grid.END
            end.mkdir()
            files.write_json(end / grid.ROW, {"results": [result(cell, row, head) for head in HEADS], "seconds": 2.0})
    broken = Cell("c-lora", "atlas", 2, 5)
    grid.prepare(made, [broken], folder, MADE)
    files.write_json(grid.place(folder, broken) / grid.FAILED, {"what": "the loss is no longer a number"})
    return folder


@pytest.fixture(scope="module")
def group(folder):
    (found,) = class_comparison.gather(folder)
    return found


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    return report.write(folder, tmp_path_factory.mktemp("page"))


def test_a_row_is_the_mean_of_its_seeds_with_students_interval(group):
    (row,) = (row for row in group.rows if row.name == "stamina")
    found = [np.mean(matrix("stamina", seed, "aligned")[-1]) for seed in (0, 1)]
    entry = row.entries["aligned/a_macro"]
    assert entry.mean == pytest.approx(np.mean(found))
    assert (entry.low, entry.high) == pytest.approx(tuple(continual.student(found))[1:])
    joint = group.rows[0]
    assert joint.name == "joint"
    assert joint.entries["aligned/a_macro"].low is None
    assert joint.entries["aligned/f_coda"] is None
    assert row.over_time("aligned")[0] == pytest.approx(KEPT["stamina"] + 0.05 + 0.005)


def test_students_interval_is_that_of_the_t_distribution():
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(0)
    for count in range(2, 11):
        values = draw.normal(size=count)
        low, high = stats.t.interval(0.95, count - 1, values.mean(), values.std(ddof=1) / count**0.5)
        assert tuple(continual.student(values)) == pytest.approx((values.mean(), low, high), abs=2e-3)
    with pytest.raises(ValueError, match="2 to 10"):
        continual.student([1.0])


def test_the_best_is_no_bound_and_of_every_head(group):
    assert class_comparison.best(group) == ("stamina", "nearest mean")
    assert {group.best()[f"{head}/a_macro"] for head in HEADS} == {"stamina"}


def test_a_difference_is_paired_over_seeds_and_over_classes(group):
    found = {(one.over, one.head): one for one in class_comparison.differences(group, "stamina")}
    one = found["c-lora", "aligned"]
    assert one.seeds.mean == pytest.approx(0.05)
    assert one.seeds.deviation == pytest.approx(0)  # whatever the seed adds, it adds to both
    assert one.classes.low == pytest.approx(0.05)
    assert one.beyond
    worse = found["joint", "aligned"]
    assert worse.seeds.low is None
    assert worse.seeds.mean < 0
    assert not class_comparison.differences(group, "nobody")


def test_tables_say_the_same_as_the_rows(group, written):
    text = (written.page.parent / "tables" / f"atlas-{TASKS}.csv").read_text()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["adapter"], line["merge"]) for line in lines] == [(row.adapter, row.merge) for row in group.rows]
    for line, row in zip(lines, group.rows, strict=True):
        assert float(line["nearest mean/a_macro"]) == pytest.approx(row.entries["nearest mean/a_macro"].mean, rel=1e-5)
    assert (
        tables.as_latex(class_comparison.summary(group))
        == (written.page.parent / "tables" / f"atlas-{TASKS}.tex").read_text()
    )


def test_what_each_task_changed_and_who_is_ahead_are_told_where_known(group, written):
    known = {row.name: row.entries["overlap"] for row in group.rows}
    assert known["stamina"].mean == pytest.approx(0.3)  # of the three tasks that have an earlier one
    assert known["lora"] is None
    text = (written.page.parent / "tables" / f"atlas-{TASKS}-changes.csv").read_text()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["adapter"], line["merge"], line["seeds"]) for line in lines] == [("stamina", "sum", "2")] * TASKS
    assert [line["overlap"] for line in lines] == ["", "0.5", "0.3", "0.1"]
    text = (written.page.parent / "tables" / f"atlas-{TASKS}-differences.csv").read_text()
    led = {(line["over"], line["head"]): line for line in csv.DictReader(io.StringIO(text))}
    assert len(led) == len(HEADS) * (len(group.rows) - 1)
    assert float(led["c-lora", "aligned"]["mean"]) == pytest.approx(0.05)
    assert (led["c-lora", "aligned"]["beyond"], led["joint", "aligned"]["low_seeds"]) == ("1", "")
    page = written.page.read_text()
    assert "moved % of each task</dt><dd>90.0, 60.0, 50.0, 40.0<" in page
    assert "overlap of each task</dt><dd>–, 0.50, 0.30, 0.10<" in page


def test_the_page_says_reasons_failures_and_who_made_it(written):
    page = written.page.read_text()
    assert "undefined: all classes are learned at once" in page
    assert "c-lora, atlas 2, seed 5: the loss is no longer a number" in page
    assert "8 identities of the world" in page
    assert "<b>stamina</b> under the head <b>nearest mean</b>" in page
    assert "/home/ada" not in page
    assert 'src="http' not in page
    assert len(written.figures) == 2 * (len(HEADS) + 1)
    rows = json.loads((written.page.parent / "results.json").read_text())
    assert len(rows) == 3 * written.runs
    assert {row["command"] for row in rows} == {"stamina bench classification --out out"}
