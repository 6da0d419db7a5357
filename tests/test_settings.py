"""Presets are typed and versioned, and every mistake in one is answered with its place and the nearest right word."""

import dataclasses
import warnings

import pytest

from stamina_diffusion import settings, toml_tables
from stamina_diffusion.bases import Base
from stamina_diffusion.config import toml
from stamina_diffusion.embedded.recipe import Recipe
from stamina_diffusion.errors import Notice, SettingsError
from stamina_diffusion.methods import METHODS, build, completed, method_class
from stamina_diffusion.plan import Plan
from stamina_diffusion.settings import Draw, Report, draw_settings, preset_for, presets, read, resolve
from stamina_diffusion.toml_tables import changed

TOP = "version = 1\n"


def written(folder, text):
    path = folder / "x.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_presets_ship_by_model_and_memory():
    assert {"embedded", "paper", "sd15-8gb", "sdxl-12gb", "sdxl-24gb", "sd35-24gb", "flux-24gb"} <= set(presets())


@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("method", METHODS)
def test_every_method_resolves_from_every_preset(preset, method):
    if method_class(method)().scope == "network" and read(preset)[1]["plan"].get("storage"):
        with pytest.raises(SettingsError, match=f"{method} changes every weight, so none can be in"):
            resolve(preset, method)
        return
    resolved = resolve(preset, method)
    assert resolved.method.name == method
    assert resolved.preset == preset


@pytest.mark.parametrize("method", METHODS)
def test_the_paper_preset_is_the_defaults(method):
    resolved = resolve("paper", method)
    assert resolved.method == method_class(method)()
    assert resolved.plan == Plan()
    assert (resolved.draw, resolved.report) == (Draw(), Report())


def test_an_empty_preset_leaves_every_default(tmp_path):
    resolved = resolve(written(tmp_path, TOP), "stamina")
    assert resolved.method == method_class("stamina")()
    assert resolved.plan == Plan()


def test_a_preset_says_which_method_is_run_where_none_is_named(tmp_path):
    assert resolve("embedded").method == resolve("embedded", "stamina-held").method
    assert resolve("paper").method.name == resolve(written(tmp_path, TOP)).method.name == "stamina"
    assert resolve("sdxl").method.name == "stamina"
    path = written(tmp_path, TOP + "[learn]\nmethod = 'lora'\n[method.lora]\nrank = 3\n")
    assert resolve(path).method == build("lora", {"rank": 3})
    assert resolve(path, "c-lora").method == build("c-lora")
    again = resolve(written(tmp_path, toml(resolve("embedded"))))
    assert again.method == resolve("embedded").method


def test_a_preset_sets_what_it_names_and_no_more(tmp_path):
    path = written(
        tmp_path, TOP + "[plan]\nsteps = 7\nprompts = ['a {}']\n[method.lora]\nrank = 3\n[draw]\nguidance = 2\n"
    )
    resolved = resolve(path, "lora")
    assert resolved.plan == Plan(steps=7, prompts=("a {}",))
    assert resolved.method == method_class("lora")(rank=3)
    assert resolved.draw == Draw(guidance=2.0)
    assert draw_settings(path) == Draw(guidance=2.0)
    assert resolve(path, "stamina").method == method_class("stamina")()


def test_overrides_win_over_the_preset_and_steps_over_both(tmp_path):
    path = written(tmp_path, TOP + "[plan]\nsteps = 7\nseed = 3\n[method.stamina]\nrank = 3\n")
    overrides = {"rank": "5", "steps": "9", "prompts": '["a {}", "the {}"]', "prior": "no", "mask_rate": "1e-3"}
    resolved = resolve(path, "stamina", overrides=overrides)
    assert (resolved.plan.steps, resolved.plan.seed, resolved.plan.prompts) == (9, 3, ("a {}", "the {}"))
    assert resolved.method == method_class("stamina")(rank=5, prior=False, mask_rate=1e-3)
    assert resolve(path, "stamina", overrides=overrides, steps=11, seed=0).plan.steps == 11
    assert resolve(path, "stamina", overrides=overrides, steps=11, seed=0).plan.seed == 0


def test_none_is_a_value_only_where_none_is_allowed():
    assert resolve("paper", "stamina", overrides={"resolution": "none"}).plan.resolution is None
    with pytest.raises(SettingsError, match="resolution is 99999999"):
        resolve("paper", "stamina", overrides={"resolution": "99999999"})
    with pytest.raises(SettingsError, match="valid integer"):
        resolve("paper", "stamina", overrides={"rank": "none"})


def test_a_held_method_takes_the_presets_settings_of_its_own_name(tmp_path):
    path = written(
        tmp_path,
        TOP + "[method.c-lora]\nrank = 3\nrate = 0.25\n[method.ewc]\nover = 'c-lora'\nstrength = 7\n"
        "[method.guard]\nover = {name = 'ewc', over = {name = 'c-lora', rank = 5}}\n",
    )
    held = build("c-lora", {"rank": 3, "rate": 0.25})
    assert resolve(path, "ewc").method == build("ewc", {"over": held, "strength": 7.0})
    deeper = build("ewc", {"over": dataclasses.replace(held, rank=5), "strength": 7.0})
    assert resolve(path, "guard").method == build("guard", {"over": deeper})


def test_a_held_method_may_have_settings_of_its_own_that_another_does_not_get():
    lora, clora = resolve("embedded", "lora").method, resolve("embedded", "c-lora").method
    faster = dataclasses.replace(lora, rate=1.7e-3, word_rate=0.1)
    assert faster != lora
    assert resolve("embedded", "guard").method == build("guard", {"over": faster})
    other = resolve("embedded", "guard", overrides={"over": "c-lora"}).method
    assert other == build("guard", {"over": clora})
    again = resolve("embedded", "guard", overrides={"over": "lora", "word_rate": "0.02"}).method
    assert again == build("guard", {"over": dataclasses.replace(faster, word_rate=0.02)})


def test_a_held_method_is_chosen_and_set_on_the_command_line_in_any_order():
    overrides = {"over.over.rank": "3", "over.strength": "5", "over.over": "c-lora", "over": "ewc"}
    held = dataclasses.replace(resolve("embedded", "c-lora").method, rank=3)
    ewc = build("ewc", {"over": held, "strength": 5.0})
    assert resolve("embedded", "guard", overrides=overrides).method == build("guard", {"over": ewc})
    # What a method does not have itself is the held one's; both have a strength.
    overrides = {"strength": "5", "rank": "3", "over": "c-lora", "over.strength": "2"}
    held = dataclasses.replace(held, strength=2.0)
    assert resolve("embedded", "ewc", overrides=overrides).method == build("ewc", {"over": held, "strength": 5.0})


def test_a_record_from_before_a_setting_means_what_was_done_then():
    assert build("guard", {}).settings()["ridge"] > 0
    assert completed("guard", {"energy": 0.9, "price": 0.0})["ridge"] == 0
    assert completed("ewc", {"over": {"name": "guard", "energy": 0.9}})["over"]["ridge"] == 0
    assert completed("guard", {"ridge": 1e-3})["ridge"] == 1e-3


def test_settings_build_their_own_method_again():
    resolved = resolve("embedded", "stamina", overrides={"mask": "gates"})
    assert method_class("stamina")(**resolved.method.settings()) == resolved.method
    assert {field.name for field in dataclasses.fields(Plan)} == set(resolved.plan.settings())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the line with the version is missing\nWrite 'version = 1' at its top."),
        ("version = 0", "version is 0\nWrite 'version = 1' at its top."),
        ("version = 2\nnovel = 3", "version is 2: it was written for a newer stamina-diffusion\nUpdate"),
        ("version = true", "version is True\nWrite 'version = 1' at its top."),
        (
            TOP + "[pln]",
            "there is no 'pln'. The file takes version, extends, learn, plan, draw, report, method, classification. "
            "Did you mean 'plan'?",
        ),
        (
            TOP + "[draw]\nstep = 3",
            "[draw] has no field 'step'. It takes steps, guidance, storage. Did you mean 'steps'?",
        ),
        (
            TOP + "[method.clora]",
            "[method] has no method 'clora'. Methods: textual-inversion, fine-tune, dreambooth, ",
        ),
        (TOP + "[method.lora]\nrank = '8'", "[method.lora] rank is '8'\nrank should be a valid integer."),
        (TOP + "[method.lora]\nrank = 0", "[method.lora] rank is 0\nrank should be greater than or equal to 1."),
        (
            TOP + "[method.stamina]\nmask = 'ful'",
            "[method.stamina] mask is 'ful'\nmask should be 'full', 'gates' or 'none'.",
        ),
        (TOP + "[method.stamina]\nrate = nan", "[method.stamina] rate is nan\nrate should be a finite number."),
        (TOP + "[method]\nlora = 3", "[method.lora] is 3\nMake it a table: a line [method.lora], its keys below."),
        (TOP + "[method.ewc]\nover = 'lra'", "[method.ewc] over has no method 'lra'. Methods: textual-inversion, "),
        (
            TOP + "[method.ewc]\nover = {rank = 3}",
            '[method.ewc] over names no method\nWrite over = "lora", or over = {',
        ),
        (
            TOP + "[method.ewc]\nover = {name = 'lora', rnak = 3}",
            "[method.ewc] over has no field 'rnak'. It takes rate, word_rate, ",
        ),
        (
            TOP + "[method.ewc]\nrate = 1.0",
            "[method.ewc] has no field 'rate'. It takes over, strength, ",
        ),
        (TOP + "plan = 3", "[plan] is 3\nMake it a table: a line [plan], its keys below."),
        (
            TOP + "[plan]\nsteps = 2020-01-01",
            "[plan] steps is datetime.date(2020, 1, 1)\nsteps should be a valid integer.",
        ),
        (TOP + "[learn]\nmethod = 'lorra'", "[learn] has no method 'lorra'. Methods: textual-inversion, "),
        (TOP + "[plan]\nprompts = ['x']", "a prompt has no place for the word\nWrite {} where the word goes."),
        (TOP + "[plan]\nprompts = ['{} {x}']", "the prompt '{} {x}' has braces that mean nothing"),
        (TOP + "[plan", "this is no TOML file"),
    ],
)
def test_a_mistake_in_a_preset_is_named(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        resolve(path, "stamina")
    assert str(caught.value).startswith(f"{path}: {said}")


def test_an_unknown_field_is_answered_in_the_words_of_the_house(tmp_path):
    path = written(tmp_path, TOP + "[method.c-lora]\nrnak = 8")
    with pytest.raises(SettingsError) as caught:
        read(path)
    fields = "rate, word_rate, word_start, rank, scaling, class_word, prior, strength"
    assert str(caught.value) == f"{path}: [method.c-lora] has no field 'rnak'. It takes {fields}. Did you mean 'rank'?"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"rnak": "1"}, "--set rnak: there is no setting 'rnak'. stamina takes rate, "),
        ({"rank": "many"}, "--set rank=many: rank is 'many'\nrank should be a valid integer."),
        ({"rank": "1.5"}, "--set rank=1.5: rank is '1.5'\nrank should be a valid integer."),
        ({"rate": "-1"}, "--set rate=-1: rate is '-1'\nrate should be greater than or equal to 0."),
        ({"temperature": "0"}, "--set temperature=0: temperature is '0'\ntemperature should be greater than 0."),
        ({"precision": "fp8"}, "--set precision=fp8: precision is 'fp8'\nprecision should be 'no', 'bf16' or 'fp16'."),
        ({"prompts": "a dog"}, "--set prompts: a prompt has no place for the word"),
        ({"prompts": "["}, "--set prompts: '[' is no list"),
        ({"over": "lora"}, "--set over: there is no setting 'over'. stamina takes rate, "),
    ],
)
def test_a_mistake_on_the_command_line_is_named(overrides, said):
    with pytest.raises(SettingsError) as caught:
        resolve("paper", "stamina", overrides=overrides)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"over": "lra"}, "--set over=lra: there is no method 'lra'. Methods: "),
        ({"over.rnak": "3"}, "--set over.rnak: there is no setting 'rnak'. lora takes rate, "),
        ({"over.over": "lora"}, "--set over.over: there is no setting 'over'. lora takes rate, "),
        ({"over": "textual-inversion"}, "guard cannot hold textual-inversion\nIt takes a method that adds to the keys"),
    ],
)
def test_a_mistake_in_what_is_held_is_named(overrides, said):
    with pytest.raises(SettingsError) as caught:
        resolve("paper", "guard", overrides=overrides)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("embeded", "there is no preset 'embeded'\nDid you mean 'embedded'? Presets: classify, coda, embedded,"),
        ("no/such.toml", "no/such.toml: there is no such preset file\nPresets by name: classify, coda, embedded,"),
    ],
)
def test_a_missing_preset_is_answered_with_those_there_are(preset, said):
    with pytest.raises(SettingsError) as caught:
        resolve(preset, "stamina")
    assert str(caught.value).startswith(said)


def test_the_base_chooses_the_preset():
    assert preset_for({"kind": "embedded"}) == "embedded"
    # Where nothing is at hand that says the family; each family's own is in test_families.
    assert {preset_for(Base(kind, "nobody/nothing", "").record()) for kind in ("folder", "file", "hub")} == {"paper"}


def test_numbers_of_the_recipe_are_changed_by_text():
    recipe = changed(Recipe(), {"denoiser_steps": "7", "denoiser_batches": "[[0, 4], [2, 8]]"})
    assert recipe.denoiser_steps == 7
    assert [recipe.denoiser_batch(step) for step in (0, 1, 2, 3)] == [4, 4, 8, 8]
    assert recipe.seed == Recipe().seed


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", presets())
def test_a_config_is_a_preset_that_means_the_same_and_says_what_its_keys_mean(tmp_path, preset, method):
    whole = {"storage": "float32"} if method_class(method)().scope == "network" else {}
    resolved = resolve(preset, method, overrides={"word_rate": "0.25", **whole})
    text = toml(resolved)
    again = resolve(written(tmp_path, text), method)
    assert (again.method, again.plan, again.draw, again.report) == (
        resolved.method, resolved.plan, resolved.draw, resolved.report,
    )  # fmt: skip
    of_what = "what is new: the word's row, or the head's rows of a task's classes"
    assert f"# Learning rate of {of_what}.\nword_rate = 0.25" in text
    size = "# resolution =" if resolved.plan.resolution is None else f"resolution = {resolved.plan.resolution}"
    assert f"# Pixels of a side; the base's own when None.\n{size}" in text


def test_a_preset_has_what_the_one_it_extends_has_where_it_says_nothing_itself(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('version = 1\nextends = "paper"\n[plan]\nbatch = 1\n[method.stamina]\nrank = 3\n')
    resolved, paper = resolve(own, "stamina"), resolve("paper", "stamina")
    assert (resolved.plan.batch, resolved.method.settings()["rank"]) == (1, 3)
    assert resolved.plan == dataclasses.replace(paper.plan, batch=1)
    assert resolved.method == dataclasses.replace(paper.method, rank=3)
    assert resolve(own, "c-lora").method == resolve("paper", "c-lora").method
    # One that extends another itself: the whole line is read.
    own.write_text('version = 1\nextends = "sdxl-12gb"\n[plan]\nbatch = 2\n')
    resolved = resolve(own, "stamina")
    assert (resolved.plan.batch, resolved.plan.accumulation, resolved.draw.guidance) == (2, 4, 5.0)
    assert resolved.method == paper.method
    own.write_text('version = 1\nextends = "papre"\n')
    with pytest.raises(SettingsError, match=r"extends names no preset 'papre'.*Did you mean 'paper'"):
        resolve(own, "stamina")


def test_a_preset_of_an_earlier_version_is_read_as_one_of_ours(tmp_path, monkeypatch):
    """As when a later version calls the plan's steps otherwise: the file is read, and stays as it is."""
    path = tmp_path / "old.toml"
    path.write_text("version = 1\n[plan]\nlength = 7\n")

    def renamed(found):
        return found | {"plan": {"steps" if key == "length" else key: value for key, value in found["plan"].items()}}

    with pytest.raises(SettingsError, match="has no field 'length'"):
        settings.read(path)
    monkeypatch.setattr(toml_tables, "VERSION", 2)
    monkeypatch.setattr(toml_tables, "MIGRATIONS", {1: renamed})
    with pytest.warns(Notice, match=r"old\.toml: version 1 is read as version 2"):
        assert settings.read(path)[1]["plan"] == {"steps": 7}
    assert "length = 7" in path.read_text()
    path.write_text("version = 2\n[plan]\nsteps = 7\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settings.read(path)[1]["plan"] == {"steps": 7}
