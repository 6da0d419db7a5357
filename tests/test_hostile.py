"""Whatever bytes are in a file that may come from elsewhere, the answer is its content or a refusal in words.

The whole corpus runs with `make hostile`; here stand the parsers under Hypothesis, and what the corpus once found.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stamina_diffusion import checkpoints, columns, features, files, kept, ledger, photo_decoding, testing
from stamina_diffusion import settings as presets
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.bases import Base, check_folder
from stamina_diffusion.cli import console, faults
from stamina_diffusion.errors import BaseModelError, LedgerError, LoraError, PackError, SettingsError, StaminaError
from stamina_diffusion.learn import learn
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.photo_findings import Unfit
from stamina_diffusion.plan import Plan
from stamina_diffusion.sites import Site, fold

sys.path.insert(0, str(Path(__file__).parents[1]))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A good file with some bytes changed, and perhaps cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def taken(call: Callable[[], Any], refusal: type[Exception]) -> Any:
    """What a call gives, or None where it refuses in words; anything else is raised."""
    try:
        return call()
    except refusal as error:
        said = str(error)
    assert said.strip()
    return None


# ---------------------------------------------------------------------------------------------------------- ledgers


def a_ledger() -> ledger.Ledger:
    entry = ledger.Entry(
        name="rex",
        word="<rex>",
        class_word="dog",
        method="lora",
        settings={"rank": 2},
        plan={},
        steps=1,
        seed=0,
        photos=[{"file": "a.png", "path": "/a.png", "sha256": "0" * 64}],
        density=0.5,
        final_loss=0.1,
        files={"change.safetensors": "0" * 64},
        version=1,
        hash="",
        seconds=1.0,
        learned="2026-01-01T00:00:00+00:00",
    )
    return ledger.Ledger(Base("folder", "/base", "0" * 64)).learned(entry)


def sealed(change) -> bytes:
    """A ledger that was changed by someone who knows how its hashes are made."""
    from benchmarks.hostile.studios import rewrite

    with tempfile.TemporaryDirectory() as folder:
        a_ledger().write(Path(folder))
        rewrite(Path(folder), change)
        return (Path(folder) / ledger.FILE).read_bytes()


def read(data: bytes) -> ledger.Ledger | None:
    """The ledger of some bytes, or None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ledger.FILE).write_bytes(data)
        return taken(lambda: ledger.read(Path(folder)), LedgerError)


def good_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        a_ledger().write(Path(folder))
        return (Path(folder) / ledger.FILE).read_bytes()


GOOD = good_bytes()


def test_the_good_ledger_is_read():
    assert [entry.name for entry in read(GOOD).entries] == ["rex"]  # type: ignore[union-attr]
    assert read(sealed(lambda view: None)) is not None


@QUICK
@given(st.one_of(st.binary(max_size=200), damaged(GOOD)))
def test_no_bytes_of_a_ledger_do_more_than_be_refused(data):
    found = read(data)
    assert found is None or found.entries == read(GOOD).entries  # type: ignore[union-attr]


@QUICK
@given(st.sampled_from([*ledger.Entry.__dataclass_fields__]), JSON)
def test_no_value_of_a_sealed_field_gets_past_its_type(field, value):
    found = read(sealed(lambda view: view["concepts"][0].update({field: value})))
    if found is not None and found.entries:
        entry = found.entries[0]
        assert isinstance(entry.name, str)
        assert entry.name.isascii()
        assert isinstance(entry.seconds, int | float)
        assert "/" not in entry.folder


@QUICK
@given(JSON)
def test_no_json_is_taken_for_a_ledger(value):
    assert read(json.dumps(value).encode()) is None


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("rename", {"of": [1]}),
        ("rollback", {"to": "0"}),
        ("rollback", {"to": 99}),
        ("branch", {"name": ["x"], "at": 0}),
        ("forget", {"of": [], "name": "x", "reason": None, "files": {"1": {"memory-../../x.safetensors": "0"}}}),
        ("nothing", {}),
    ],
)
def test_a_sealed_event_says_what_its_kind_says(kind, what):
    from benchmarks.hostile.studios import rewrite

    def add(events):
        private = {"shown": "Rex", "salt": "x"} if kind == "rename" else None
        events.append(events[0] | {"kind": kind, "what": what, "private": private, "seal": None, "version": 2})

    with tempfile.TemporaryDirectory() as folder:
        a_ledger().write(Path(folder))
        rewrite(Path(folder), lambda view: None, add)
        with pytest.raises(LedgerError):
            ledger.read(Path(folder))


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"a":' * 200_000, "9" * 100_000, '{"format": 2, "base": {}, "events": [], "x": "\\ud800"}', "NaN"],
    ids=["deep", "deep objects", "a long number", "half a pair", "no number"],
)
def test_json_that_breaks_python_is_refused(text):
    assert read(text.encode()) is None


@pytest.mark.parametrize(
    "value", [[], "x", {"1": {"rows": [{"name": "rex", "word": "<rex>", "kept": "x", "photos": []}]}}]
)
def test_a_list_of_what_is_kept_that_is_none_counts_as_missing(tmp_path, value):
    (tmp_path / kept.FILE).write_text(json.dumps({"format": 1, "versions": value}))
    assert kept.newest(tmp_path) == {}
    (tmp_path / kept.FILE).write_text("[" * 200_000)
    assert kept.newest(tmp_path) == {}


# ---------------------------------------------------------------------------------------------------------- presets


@QUICK
@given(st.one_of(st.binary(max_size=200), damaged(b"version = 1\n[plan]\nsteps = 5\n[method.lora]\nrank = 2\n")))
def test_no_bytes_of_a_preset_do_more_than_be_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.toml"
        path.write_bytes(data)
        resolved = taken(lambda: presets.resolve(path, "lora"), SettingsError)
    assert resolved is None or resolved.plan.steps >= 1


@QUICK
@given(st.sampled_from(["rank", "rate", "steps", "seed", "prompts", "precision"]), st.text(max_size=30))
def test_no_override_does_more_than_be_refused(key, text):
    resolved = taken(lambda: presets.resolve("embedded", "lora", overrides={key: text}), SettingsError)
    assert resolved is None or all(prompt.format("<rex>") for prompt in resolved.plan.prompts)


@pytest.mark.parametrize("field", ["{0.upper}", "{0[0]}", "{:>99999999999}", "{!r}", "{rex}", "{{", "}"])
def test_a_prompt_has_one_kind_of_braces(field):
    with pytest.raises(SettingsError, match="braces that mean nothing"):
        presets.resolve("embedded", "lora", overrides={"prompts": "{} " + field})


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 100_000, "#" * 2_000_000])
def test_a_preset_that_breaks_its_parser_is_refused(tmp_path, text):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SettingsError):
        presets.read(tmp_path / "a.toml")


# ---------------------------------------------------------------------------------------------------------- tensors


def a_file(path: Path) -> bytes:
    files.write_tensors(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}, {"word": "<rex>"})
    return path.read_bytes()


with tempfile.TemporaryDirectory() as _folder:
    TENSORS = a_file(Path(_folder) / "a.safetensors")


@QUICK
@given(st.one_of(st.binary(max_size=200), damaged(TENSORS)))
def test_no_bytes_of_a_tensor_file_do_more_than_be_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(data)
        found = taken(lambda: files.read_tensors(path), ValueError) or {}
    assert all(bool(tensor.isfinite().all()) for tensor in found.values() if tensor.is_floating_point())


@pytest.mark.parametrize(
    ("tensor", "what"),
    [(torch.ones([1] * 70), "70 dimensions"), (torch.ones(2, dtype=torch.int32), "whole numbers")],
    ids=["too many dimensions for torch", "whole numbers"],
)
def test_tensors_that_no_concept_has_are_refused(tmp_path, tensor, what):
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, {"w": tensor})
    with pytest.raises(ValueError, match=what):
        files.read_tensors(path, floats=True)


@pytest.mark.parametrize(
    "change",
    [torch.ones(3, 2), torch.ones(1, 2, 3), torch.ones(()), torch.ones(2, 3, dtype=torch.int64)],
    ids=["turned", "more dimensions", "a single number", "whole numbers"],
)
def test_a_change_of_another_shape_or_kind_is_not_folded(change):
    module = torch.nn.Linear(3, 2, bias=False)
    before = module.weight.detach().clone()
    sites = {"w": Site("w", "weight", module, "weight")}
    with pytest.raises(ValueError, match="its site has"):
        fold(sites, {"w": change})
    with pytest.raises(ValueError, match="no site"):
        fold(sites, {"w": torch.ones(2, 3), "x": torch.ones(2, 3)})
    assert torch.equal(module.weight, before)


def test_features_that_no_ledger_vouches_for_are_left_alone_where_they_make_no_sense(tmp_path):
    encoder = features.Encoder("x", torch.nn.Identity())
    made = {"prompt": "a photo of {}", "steps": 2, "guidance": 1.0, "samples": 1}
    remembered = features.Remembered(torch.eye(2), torch.eye(2), made)
    features.remember(tmp_path, encoder, remembered)
    assert features.recall(tmp_path, encoder) is not None
    wrong = [
        {"prompt": "{} {0.x}"},
        {"prompt": "{:>999999999}"},
        {"steps": 10**9},
        {"samples": "x"},
        {"guidance": None},
    ]
    for change in wrong:
        features.remember(tmp_path, encoder, features.Remembered(torch.eye(2), torch.eye(2), {**made, **change}))
        assert features.recall(tmp_path, encoder) is None, change
    features.remember(tmp_path, encoder, features.Remembered(torch.eye(2), torch.ones(2, 3), made))
    assert features.recall(tmp_path, encoder) is None


def test_a_column_that_is_none_counts_as_never_measured(tmp_path):
    column = columns.Column(1, "0" * 32, None, "", {"rex": columns.Cell(1.0, None, None, None)}, {}, {}, 1.0)
    columns.write(tmp_path, column, {})
    assert columns.read(tmp_path, "0" * 32) == column
    path = next(tmp_path.rglob("column.json"))
    for key, value in (("version", "x"), ("seconds", None), ("cells", {"rex": {"kept": "x"}}), ("drift", {"a": "b"})):
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        assert columns.read(tmp_path, "0" * 32) is None
        columns.write(tmp_path, column, {})
    path.write_text("[" * 200_000)
    assert columns.read(tmp_path, "0" * 32) is None


def test_a_lora_whose_numbers_make_no_sense_is_refused_in_words(tmp_path):
    from benchmarks.hostile.tensors import LORAS, SHAPES, a_lora

    from stamina_diffusion import loras

    backbone = StableDiffusion(testing.tiny_pipeline())
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    path = tmp_path / "a.safetensors"
    path.write_bytes(a_lora(SHAPES))
    assert loras.read(path, backbone).ranks == {name: 2}
    for what, expect, data in LORAS:
        path.write_bytes(data)
        assert (taken(lambda: loras.read(path, backbone), LoraError) is None) == (expect == "refused"), what


# ------------------------------------------------------------------------------------------------------ checkpoints


def test_a_checkpoint_with_any_byte_changed_begins_again_and_ends_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("stamina_diffusion.learn"), "CHECKPOINT_SECONDS", -1.0)
    plan, concept = Plan(steps=3, batch=2, prior_images=0), testing.noise_concept("rex")
    path = tmp_path / "checkpoint.safetensors"
    whole = learn(Toy(), LoRA(rank=2), concept, {}, plan, checkpoint=path)
    data = path.read_bytes()
    for place in (0, 7, 9, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(checkpoints.DamagedError, match="damaged"):
            checkpoints.load(path, parameters={})
    seen: list[int] = []
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    again = learn(Toy(), LoRA(rank=2), concept, {}, plan, checkpoint=path, watch=lambda step: seen.append(step.step))
    assert seen == [1, 2, 3]
    assert all(torch.equal(whole.changes[name], again.changes[name]) for name in whole.changes)


# ----------------------------------------------------------------------------------------------------------- photos


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    testing.noise_pictures(1, 12)[0].save(buffer, kind)
    return buffer.getvalue()


PHOTOS = {kind: encoded(kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")}


@QUICK
@given(st.sampled_from([*PHOTOS]).flatmap(lambda kind: damaged(PHOTOS[kind])))
def test_no_bytes_of_a_photo_do_more_than_be_refused(data):
    found = taken(lambda: photo_decoding.decode(data, Path("a.png")), Unfit)
    if found is not None:
        image, frames = found
        assert frames >= 1
        assert image.width * image.height <= photo_decoding.PIXEL_LIMIT
        assert photo_decoding.square(image, 4).size == (4, 4)


# ------------------------------------------------------------------------------------------- bases, words, terminals


@pytest.mark.parametrize("text", ["[" * 200_000, "9" * 9000, "[]", '{"_class_name": 3}'])
def test_an_index_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(BaseModelError):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("unet/config.json", {"sample_size": 2**40}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}),
        ("model_index.json", {"unet": ["os", "system"]}),
        ("text_encoder/config.json", {"vocab_size": 2**40}),
    ],
)
def test_a_base_that_no_library_can_load_is_refused_in_words(tmp_path, file, values):
    from stamina_diffusion.backbones.diffusion import families

    testing.tiny_pipeline().save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(BaseModelError):
        families.load(tmp_path)


def test_numbers_that_mean_nothing_are_refused_before_drawing():
    from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion

    backbone = StableDiffusion(testing.tiny_pipeline())
    for seed, options in ((2**64, {}), (-1, {}), (0, {"steps": 1001}), (0, {"guidance": float("nan")})):
        with pytest.raises(SettingsError):
            backbone.draw(["a cat"], [seed], **options)


def test_a_terminal_is_not_given_what_it_would_obey(capsys):
    console.say("a\x1b[2Jb\x07\u202e\ud800 é\n")
    assert capsys.readouterr().out == "a\\u001b[2Jb\\u0007\\u202e\\ud800 é\n\n"


def test_what_no_path_may_hold_is_said_in_words():
    for text in ("a\0b", "\ud800"):
        with pytest.raises((ValueError, UnicodeEncodeError)) as caught:
            Path(text).read_bytes()
        assert "no" in (faults.message(caught.value) or "")
    assert faults.message(OSError(27, "File too large")) is not None
    assert faults.message(ValueError("another")) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.timeout(60)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    from stamina_diffusion.packing import unpack

    pipe = tmp_path / "a.toml"
    os.mkfifo(pipe)
    with pytest.raises(SettingsError):
        presets.read_toml(pipe, [])
    with pytest.raises(PackError, match="not a plain file"):
        unpack(pipe, tmp_path / "studio")
    with pytest.raises(ValueError, match="not a plain file"):
        files.read_json(pipe)


def test_what_a_killed_process_had_half_written_goes_and_what_a_living_one_writes_stays(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, living = int(done.stdout), os.getpid()
    (tmp_path / "samples").mkdir()
    names = [f".ledger.json.{dead}.part", f"samples/.1-rex.png.{dead}.part", f".a.json.{living}.part", "b.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    files.clear_parts(tmp_path)
    assert [name for name in names if (tmp_path / name).exists()] == names[2:]


def test_what_a_desktop_left_among_the_concepts_stays_and_does_no_harm(tmp_path):
    from stamina_diffusion.studio import Studio

    testing.tiny_pipeline().save_pretrained(tmp_path / "base")
    studio = Studio.create(tmp_path / "studio", str(tmp_path / "base"))
    concepts = studio.folder / "concepts"
    (concepts / "0001-ghost").mkdir(parents=True)
    (concepts / ".DS_Store").write_bytes(b"x")
    (concepts / "away").symlink_to(tmp_path)
    with studio.writing():
        pass
    assert sorted(path.name for path in concepts.iterdir()) == [".DS_Store", "away"]
    assert (tmp_path / "base").is_dir()


# ------------------------------------------------------------------------------------------------------- the corpus


def test_the_corpus_is_large_and_says_each_thing_once():
    from benchmarks.hostile.__main__ import corpus

    named = Counter((case.kind, case.name) for case in corpus())
    assert len(named) >= 200
    assert {kind for kind, _ in named} >= {"images", "names", "prompts", "captions", "ledgers", "safetensors", "bases"}
    assert [name for name, times in named.items() if times > 1] == []
    assert all(case.commands or case.calls or case.visits for case in corpus())
    assert {case.kind for case in corpus() if case.visits} >= {
        "images",
        "names",
        "prompts",
        "archives",
        "ledgers",
        "page",
    }


def test_every_refusal_is_ours():
    assert issubclass(checkpoints.DamagedError, StaminaError)
