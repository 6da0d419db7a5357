"""A report of results: its numbers are the rows', its best is the best, its page needs no other file."""

import csv
import io
import json
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stamina_diffusion import files, sheets, testing
from stamina_diffusion.benchmarks import (
    comparison,
    grid,
    judging,
    plots,
    report,
    report_parts,
    report_pictures,
    strips,
    tables,
)
from stamina_diffusion.benchmarks.concept_streams import subjects
from stamina_diffusion.benchmarks.customization import Customization
from stamina_diffusion.benchmarks.grid import Cell
from stamina_diffusion.cli import app
from stamina_diffusion.errors import SettingsError
from stamina_diffusion.metrics import continual

LENGTH = 4
LEARNED = {"lora": 0.10, "c-lora": 0.08, "frozen base": 0.0}
"""Gain when just learned; LoRA then loses 0.03 of it at each later concept, C-LoRA learns 0.01 less each time."""


def gains(variant, seed):
    matrix = np.full((LENGTH, LENGTH), np.nan)
    for time in range(LENGTH):
        for place in range(time + 1):
            lost = 0.03 * (time - place) if variant == "lora" else 0.01 * place
            matrix[time, place] = LEARNED[variant] - lost + 0.001 * seed
    return matrix


def pictures(seed, shift):
    draw = np.random.default_rng(seed)
    return [Image.fromarray(draw.integers(0, 200, (16, 16, 3), dtype=np.uint8) + np.uint8(shift)) for _ in range(2)]


def write_cell(folder, benchmark, cell):
    grid.prepare(benchmark, [cell], folder, {"command": "stamina bench", "machine": "m", "date": "d", "commit": "c"})
    where, names = grid.place(folder, cell), [one.name for one in subjects("mixed", LENGTH, cell.seed)]
    frozen = cell.variant == "frozen base"
    matrix = np.zeros((1, LENGTH)) if frozen else gains(cell.variant, cell.seed)
    draw = np.random.default_rng(cell.seed)
    look = [draw.normal(size=(2, 8)) + 5 * np.eye(8)[place] for place in range(LENGTH)]
    seen = judging.Seen(look, look, look, look, [row[:, :] for row in look], (look[0], look[0]))
    measured, drawn = judging.of_losses(matrix, not frozen), judging.of_pictures(seen, not frozen)
    for task in range(LENGTH):
        at = grid.task_folder(where, task)
        at.mkdir()
        files.write_json(at / grid.ROW, {"certificate": 10.0**-task} if cell.variant == "c-lora" else {})
        strips.write(at / "own.png", [pictures(task, 0)])
    (where / grid.END).mkdir()
    strips.write(where / grid.END / "final.png", [pictures(task, 50) for task in range(LENGTH)])
    files.write_json(
        where / grid.END / grid.ROW,
        {**measured, **drawn, "each": {**measured["each"], **drawn["each"]}, "concepts": names, "heldout_loss": 0.3,
         "seconds_per_concept": 2.0, "peak_memory_mb": 100.0, "trained_percent": 0.5, "stored_percent": 101.0,
         "steps": 40},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "out"
    benchmark = Customization()
    for variant in LEARNED:
        for seed in (0, 1):
            write_cell(folder, benchmark, Cell(variant, "mixed", LENGTH, seed))
    broken = Cell("stamina", "mixed", LENGTH, 0)
    grid.prepare(benchmark, [broken], folder, {"command": "stamina bench"})
    files.write_json(grid.place(folder, broken) / grid.FAILED, {"what": "the loss is no longer a number"})
    return folder


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    to = tmp_path_factory.mktemp("to")
    ran = CliRunner().invoke(app, ["bench", "report", str(folder), "--to", str(to)])
    assert ran.exit_code == 0, ran.output
    assert "6 runs" in ran.output
    return to


def test_a_row_is_the_mean_of_its_seeds_with_an_interval_over_concepts(folder):
    (group,) = comparison.gather(folder)
    assert [row.name for row in group.rows] == ["frozen base", "lora", "c-lora"]
    lora = group.rows[1]
    assert lora.seeds == [0, 1]
    entry = lora.entries["forgetting"]
    # By hand: concepts 1 to 3 lose 0.09, 0.06, 0.03.
    assert entry.mean == pytest.approx(0.06, abs=1e-6)
    assert 0.03 <= entry.low < entry.mean < entry.high <= 0.09
    assert entry.deviation == pytest.approx(0, abs=1e-6)
    assert lora.entries["gain"].deviation == pytest.approx(np.std([0, 0.001], ddof=1), rel=1e-3)
    assert group.rows[0].entries["forgetting"] is None


def test_times_of_several_machines_are_said_to_be_no_comparison(folder, written, tmp_path):
    warning = "compare within one machine only"
    assert warning not in (written / "report.html").read_text()
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    path = grid.place(mixed, Cell("lora", "mixed", LENGTH, 0)) / grid.CELL
    described = files.read_json(path)
    described["made"]["machine"] = "another machine"
    files.write_json(path, described)
    page = report.write(mixed, tmp_path / "to").page.read_text()
    assert warning in page
    assert "on another machine and on m." in page


def test_curves_are_means_of_the_matrix(folder):
    (group,) = comparison.gather(folder)
    expected = np.mean([gains("lora", seed) for seed in (0, 1)], axis=0)
    assert group.rows[1].over_time() == pytest.approx([np.nanmean(row) for row in expected], abs=1e-5)
    assert group.rows[1].over_time(2)[-1] == pytest.approx(expected[-1, :2].mean(), abs=1e-5)
    assert group.rows[2].when_learned() == pytest.approx(np.diagonal(
        np.mean([gains("c-lora", seed) for seed in (0, 1)], axis=0)), abs=1e-5)  # fmt: skip


def test_first_and_last_are_as_many_as_saturation_takes(folder):
    (group,) = comparison.gather(folder)
    found = continual.saturation(gains("c-lora", 0), judging.ENDS)
    assert comparison.ends(LENGTH) == 2
    assert group.rows[2].found[0]["learned_first10"] == pytest.approx(found.first, abs=1e-5)
    assert group.rows[2].entries["learned_last10"].high <= found.first


def test_retrieval_of_the_first_concepts_is_theirs_alone(folder):
    (group,) = comparison.gather(folder)
    lora = group.rows[1]
    expected = np.mean([one["each"]["retrieval"][:2] for one in lora.found])
    assert lora.entries["retrieval_first"].mean == pytest.approx(expected)
    assert group.rows[0].entries["retrieval_first"] is None


def test_the_best_is_among_methods_only_and_by_its_measure(folder):
    (group,) = comparison.gather(folder)
    best = group.best()
    assert best["forgetting"] == "c-lora"
    assert best["learned_first10"] == "lora"
    # The frozen base has forgotten nothing, trains nothing, and is no method.
    assert "frozen base" not in best.values()
    assert "trained_percent" not in best


def test_the_best_is_found_on_the_seeds_that_all_methods_have(folder):
    (group,) = comparison.gather(folder)
    frozen, lora, c_lora = group.rows
    assert lora.on([1]).seeds == [1]
    # Seed 1 raises every gain by 0.001. A row that is a little worse has the higher mean only for having had it.
    worse = replace(lora, name="worse", found=[{**one, "gain": one["gain"] - 0.0003} for one in lora.found])
    assert worse.entries["gain"].mean > lora.on([0]).entries["gain"].mean
    assert replace(group, rows=[frozen, worse, lora.on([0])]).best()["gain"] == "lora"
    fair = replace(group, rows=[frozen, worse, lora.on([0])]).fair()
    assert [row.seeds for row in fair.rows] == [[0], [0], [0]]
    apart = replace(group, rows=[lora.on([0]), c_lora.on([1])])
    assert apart.best() == {}
    assert apart.fair() is apart


def test_tables_say_the_same_as_the_rows(folder, written):
    (group,) = comparison.gather(folder)
    lines = list(csv.DictReader(io.StringIO((written / "tables" / "mixed-4.csv").read_text())))
    assert [line["variant"] for line in lines] == ["frozen base", "lora", "c-lora"]
    assert float(lines[1]["forgetting"]) == pytest.approx(0.06)
    assert lines[0]["forgetting"] == ""
    latex = (written / "tables" / "mixed-4.tex").read_text()
    assert latex.count("\\textbf") == len(group.best())
    assert latex.count("\\\\") == 1 + len(group.rows)
    forgotten = next(column for column in comparison.COLUMNS if column.key == "forgetting")
    assert f"\\textbf{{{tables.number(group.rows[2].entries['forgetting'].mean, forgotten)}}}" in latex


def test_the_page_needs_no_other_file_and_hides_no_failure(written):
    page = (written / report_parts.PAGE).read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
    assert "stamina, mixed 4, seed 0: the loss is no longer a number" in page
    assert page.count("<details") == 3
    for name in ("lora", "c-lora", "frozen base"):
        assert f">{name}</a>" in page


def test_figures_come_in_both_forms_and_can_be_opened(written):
    names = {path.stem for path in (written / "figures").glob("*.png")}
    assert names == {path.stem for path in (written / "figures").glob("*.svg")}
    assert names == {f"{kind}-mixed-4" for kind in
                     ("knowledge", "first-concepts", "plasticity", "trade", "certificates", "drawings")}  # fmt: skip
    for name in names:
        with Image.open(written / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 200
    drawn = (written / "figures" / "drawings-mixed-4.svg").read_text()
    assert "data:image/jpeg;base64," in drawn
    assert "data:image/png" not in drawn
    assert len(json.loads((written / "results.json").read_text())) == 6


def test_a_figure_says_the_same_in_fewer_bytes():
    dots = b"".join(b'<use x="%d.123456" y="1e-05" style="fill: #fff"/>\n   ' % x for x in range(5))
    head = b'<svg><style type="text/css">*{stroke: none}</style>\n'
    found = plots.brief(head + dots + b'<path d="M 0.999999 2 \nL 3.5 -4.25" style="fill: none"/></svg>')
    assert found.startswith(
        b'<svg><style type="text/css">*{stroke: none}.s0{fill: #fff}</style>\n<use x="0.12" y="1e-05" class="s0"/>'
    )
    assert found.count(b'class="s0"') == 5
    assert found.endswith(b'<path d="M 0.99 2 \nL 3.5 -4.25" style="fill: none"/></svg>')


def test_many_lines_stand_in_panels_by_their_group_and_stamina_in_each():
    names = ["lora", "lora, merged", "ewc-dc", "stamina", "stamina, no mask", "stamina, tuned so", "c-lora, tuned so",
             "stamina, generic prompts held", "guard over lora", "mine", "o-lora", "c-lora"]  # fmt: skip
    assert plots.panels(names[:4]) == [("", names[:4])]
    assert plots.panels(names) == [
        ("the papers' methods", ["lora", "lora, merged", "c-lora, tuned so", "c-lora", "stamina"]),
        (plots.STAMINAS, ["stamina, no mask", "stamina, tuned so", "stamina, generic prompts held", "stamina"]),
        ("later methods", ["ewc-dc", "o-lora", "stamina"]),
        ("the guard", ["guard over lora", "stamina"]),
        (plots.OTHERS, ["mine", "stamina"]),
    ]


def test_the_readmes_table_is_made_of_results(folder, written):
    made = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "table.py"))["customization"]
    made.__globals__["result"] = lambda name: json.loads((written / "results.json").read_text())
    lines = made(4).splitlines()
    assert lines[0].startswith("| 4 concepts, stream mixed, seeds 0, 1 | A_mmd")
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["frozen base", "lora", "c-lora"]
    # LoRA: 0.06 of gain lost, 6 points; C-LoRA loses nothing, and is the best.
    assert [line.split("|")[8].strip() for line in lines[2:5]] == ["–", "6.00 ± 0.00", "**0.00** ± 0.00"]
    assert lines[-1].endswith("made on m, d.")
    # Without C-LoRA's seed 1 all are compared on seed 0, and LoRA's two stand in a table of their own.
    rows = [row for row in made.__globals__["result"]("") if (row["variant"], row["seed"]) != ("c-lora", 1)]
    made.__globals__["result"] = lambda name: rows
    lines = made(4).splitlines()
    assert lines[0].startswith("| 4 concepts, stream mixed, seed 0 | A_mmd")
    assert [line.split("|")[8].strip() for line in lines[2:5]] == ["–", "6.00", "**0.00**"]
    assert [line.split("|")[1].strip() for line in lines[8:10]] == ["frozen base", "lora"]


def test_the_numbers_of_finished_cells_go_into_one_file_and_come_back(folder, written, tmp_path):
    made = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "cells.py"))
    grown = tmp_path / "grown"
    shutil.copytree(folder, grown)
    grid.prepare(Customization(), [Cell("o-lora", "mixed", LENGTH, 0)], grown, {"command": "stamina bench"})
    assert made["pack"](grown, tmp_path / "cells.tar.gz") == 7  # the failed one too, not the one that was never run
    assert made["unpack"](tmp_path / "cells.tar.gz", tmp_path / "back") == 7
    assert report_pictures.take_back(written / report_parts.PAGE, tmp_path / "back") == 3
    report.write(tmp_path / "back", tmp_path / "to")
    shown = re.compile(r'<figure class="drawn"><img src="([^"]+)"')
    page, again = ((at / report_parts.PAGE).read_text() for at in (written, tmp_path / "to"))
    assert len(shown.findall(page)) == 3
    assert shown.findall(again) == shown.findall(page)
    assert (tmp_path / "to" / "results.json").read_bytes() == (written / "results.json").read_bytes()
    assert (tmp_path / "to" / "figures" / f"trade-mixed-{LENGTH}.svg").is_file()
    made["pack"](tmp_path / "back", tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == (tmp_path / "cells.tar.gz").read_bytes()
    with pytest.raises(SystemExit, match="is not empty"):
        made["unpack"](tmp_path / "cells.tar.gz", tmp_path / "back")


@pytest.mark.parametrize("then", [0, 2])
def test_what_a_page_shows_of_the_final_model_is_found_again(tmp_path, then):
    given = [list(testing.noise_pictures(then + 2, side=8)), [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]]
    given[1] = [*given[0][:then], *given[1]]
    assert report_pictures.final(tmp_path, 2) is None
    assert not report_pictures.has_pictures(tmp_path)
    (tmp_path / grid.END).mkdir()
    sheet = sheets.grid([one for pair in zip(*given, strict=True) for one in pair], 2, gap=report_pictures.GAP)
    sheet.save(tmp_path / grid.END / report_pictures.KEPT, lossless=True)
    assert report_pictures.has_pictures(tmp_path)
    found = report_pictures.final(tmp_path, 2)
    assert [[one.tobytes() for one in row] for row in found] == [[one.tobytes() for one in row[then:]] for row in given]


def test_strips_give_back_what_they_were_given(tmp_path):
    given = [list(testing.noise_pictures(3, side=8)), list(testing.noise_pictures(3, side=8))]
    strips.write(tmp_path / "a.png", given)
    assert [[one.tobytes() for one in row] for row in strips.read(tmp_path / "a.png")] == [
        [one.tobytes() for one in row] for row in given
    ]


def test_nothing_finished_is_said(folder, tmp_path):
    grid.prepare(Customization(), [Cell("lora", "mixed", LENGTH, 0)], tmp_path / "new", {})
    with pytest.raises(SettingsError, match="has no finished run yet"):
        report.write(tmp_path / "new", tmp_path / "to")
    assert not (tmp_path / "to").exists()
