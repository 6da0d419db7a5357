"""The command line from outside: what it writes, what it says to each mistake, and that a mistake writes nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stamina_diffusion import testing
from stamina_diffusion.cli import app, console

PRESET = """version = 1
[plan]
steps = 2
batch = 2
prior_images = 0
[report]
samples = 2
steps = 2
[method.stamina]
rank = 2
"""


class Ran:
    """What a command answered."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr


def stamina(*arguments: object) -> Ran:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def inside(folder: Path) -> dict[str, str]:
    """Every path below a folder, with the hash of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def refused(ran: Ran, *said: str) -> None:
    assert ran.code == 2, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr.startswith("error: ")
    for words in said:
        assert words in ran.stderr


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    testing.tiny_pipeline().save_pretrained(folder / "tiny")
    return folder


@pytest.fixture(scope="session")
def preset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("presets") / "tiny.toml"
    path.write_text(PRESET, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for place, picture in enumerate(testing.noise_pictures(3, 16)):
        picture.save(folder / f"{place}.png")
    return folder


@pytest.fixture(scope="session")
def learned(tmp_path_factory, bases, preset, photos) -> Path:
    """A studio that has learned <rex>; tests that write take a copy of it."""
    folder = tmp_path_factory.mktemp("studios") / "learned"
    assert stamina("init", folder, "--base", bases / "tiny").code == 0
    ran = stamina("learn", folder, photos, "--name", "rex", "--class", "dog", "--preset", preset)
    assert ran.code == 0, ran.stderr
    return folder


@pytest.fixture
def studio(tmp_path, learned) -> Path:
    return Path(shutil.copytree(learned, tmp_path / "studio"))


# -------------------------------------------------------------------------------------------------------- the start


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom stamina_diffusion.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate', 'numpy', 'PIL', 'pydantic', 'jinja2'}\n"
        "print('HEAVY', *sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "HEAVY", ran.stdout + ran.stderr
    for verb in (
        "demo",
        "init",
        "learn",
        "draw",
        "log",
        "rollback",
        "forget",
        "rename",
        "branch",
        "export",
        "doctor",
        "world",
    ):
        assert re.search(rf"\b{verb}\b", ran.stdout)


def test_version():
    assert re.fullmatch(r"stamina-diffusion \d+\.\d+\.\d+\n", stamina("--version").stdout)


@pytest.mark.parametrize(
    "arguments",
    [["lern"], ["draw", "x"], ["learn", "x", "y"], ["learn", "x", "y", "--name", "r", "--set", "rank"], ["world"]],
)
def test_a_wrong_use_is_exit_code_2(arguments):
    ran = stamina(*arguments)
    assert ran.code == 2
    assert "Usage" in ran.stderr


# ------------------------------------------------------------------------------------------------ learn, draw and log


def test_learn_leaves_a_sheet_and_a_line_for_each_concept(studio, preset, photos):
    ran = stamina("learn", studio, photos, "--name", "tom", "--preset", preset)
    assert ran.code == 0
    assert "<tom> is learned: version 2, 2 steps" in ran.stdout
    lines = [line for line in ran.stdout.splitlines() if line.startswith("  <")]
    assert [line.split()[0] for line in lines] == ["<rex>", "<tom>"]
    assert all("no encoder is known for this base" in line for line in lines)
    assert Image.open(studio / "samples" / "1-rex.png").size[1] < Image.open(studio / "samples" / "2-tom.png").size[1]


def test_progress_is_lines_where_there_is_no_terminal(studio, preset, photos):
    ran = stamina("learn", studio, photos, "--name", "tom", "--preset", preset, "--steps", 4, "--no-report")
    shares = re.findall(r"^learning <tom>: (\d+) %, loss \d\.\d+(?:, penalty \S+)?, \d+:\d\d left$", ran.stderr, re.M)
    assert shares == ["25", "50", "75", "100"]
    assert not (studio / "samples" / "2-tom.png").exists()


def test_log_prints_json_with_the_promised_fields(studio, photos):
    found = json.loads(stamina("log", studio, "--json").stdout)
    assert list(found) == ["base", "version", "concepts", "branch", "branches", "history"]
    assert found["version"] == 1
    assert found["base"]["kind"] == "folder"
    (concept,) = found["concepts"]
    assert list(concept)[:8] == ["name", "word", "method", "steps", "seed", "photos", "density", "hash"]
    assert (concept["name"], concept["word"], concept["class_word"]) == ("rex", "<rex>", "dog")
    assert (concept["method"], concept["steps"], concept["seed"]) == ("stamina", 2, 0)
    assert [photo["file"] for photo in concept["photos"]] == ["0.png", "1.png", "2.png"]
    assert 0 <= concept["density"] <= 1


def test_log_is_a_table_for_people(studio):
    ran = stamina("log", studio)
    assert "<rex>" in ran.stdout
    assert "no encoder is known" in ran.stdout


def test_draw_writes_a_grid_and_single_pictures(learned, tmp_path):
    out = tmp_path / "deep" / "rex.png"
    assert stamina("draw", learned, "a photo of <rex>", "-n", 3, "--steps", 2, "--out", out).code == 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["rex-0.png", "rex-1.png", "rex-2.png", "rex.png"]
    assert Image.open(out.parent / "rex-1.png").size == (8, 8)
    assert Image.open(out).size == (20, 20)
    notes = json.loads(Image.open(out.parent / "rex-1.png").text["stamina"])
    assert (notes["prompt"], notes["seed"], notes["steps"]) == ("a photo of <rex>", 1, 2)


def test_draw_into_a_folder_and_as_jpeg(learned, tmp_path):
    assert stamina("draw", learned, "a cat", "-n", 2, "--steps", 1, "--out", tmp_path / "pictures").code == 0
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["0.png", "1.png", "grid.png"]
    assert stamina("draw", learned, "a cat", "-n", 1, "--steps", 1, "--out", tmp_path / "a.jpg").code == 0
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


def test_picture_k_is_drawn_from_seed_plus_k(learned, tmp_path):
    arguments = ["draw", learned, "a photo of <rex>", "--steps", 2]
    stamina(*arguments, "-n", 3, "--seed", 5, "--out", tmp_path / "many.png")
    stamina(*arguments, "-n", 1, "--seed", 7, "--out", tmp_path / "one.png")
    many, one = (np.asarray(Image.open(tmp_path / name), dtype=int) for name in ("many-2.png", "one.png"))
    assert np.abs(many - one).max() <= 2


def test_export_writes_a_plain_pipeline_folder(learned, tmp_path):
    ran = stamina("export", learned, "--to", "diffusers", tmp_path / "out")
    assert ran.code == 0
    assert (tmp_path / "out" / "model_index.json").is_file()
    refused(stamina("export", learned, "--to", "diffusers", tmp_path / "out"), "is there already")


def test_a_dry_run_says_everything_and_writes_nothing(studio, preset, photos):
    before = inside(studio)
    arguments = ["learn", studio, photos, "--name", "tom", "--preset", preset, "--set", "rank=3", "--class", "cat"]
    ran = stamina(*arguments, "--dry-run")
    assert re.search(r"memory while learning: about \d+ [MG]iB on the device \(weights", ran.stdout)
    assert ran.code == 0
    assert inside(studio) == before
    for words in ("would learn <tom> (cat) as version 2", "rank = 3", "steps = 2", "photos: 3", "2.png  16 x 16"):
        assert words in ran.stdout
    assert "3 usable photos" in ran.stdout


def test_doctor_says_how_to_mend_photos(tmp_path, photos):
    assert stamina("doctor", photos, "--resolution", 16).code == 0
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "bad.jpg").write_bytes(b"no picture")
    ran = stamina("doctor", folder, "--resolution", 16)
    assert ran.code == 2
    assert "error: " in ran.stdout
    assert "bad.jpg: not a picture that can be read\n  Put a JPEG" in ran.stdout
    assert "3 photos can be used; 1 error, 1 hint" in ran.stdout


def test_world_writes_a_sheet_and_photos(tmp_path):
    ran = stamina("world", "--sheet", tmp_path / "w.png", "--concepts", 1, "--views", 2, "--pool", "tuning")
    assert ran.code == 0
    assert Image.open(tmp_path / "w.png").size == (140, 140)
    ran = stamina(
        "world", "--photos", tmp_path / "p", "--family", "landmarks", "--index", 3, "--views", 2, "--size", 32
    )
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "landmarks-stream-3-0.png",
        "landmarks-stream-3-1.png",
    ]
    refused(stamina("world", "--sheet", tmp_path / "x.png", "--similar", 99), "similar=99: faces have")
    assert not (tmp_path / "x.png").exists()


# -------------------------------------------------------------------------------------------------------- bad photos


def truncated(folder: Path) -> None:
    data = (folder / "1.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])


def bomb(folder: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "bomb.png").write_bytes(png)


def nothing(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def unreadable(folder: Path) -> None:
    nothing(folder)
    for name in ("a.jpg", "b.png"):
        (folder / name).write_text("no picture", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (nothing, ["there are no photos in this folder", "Put photos"]),
        (unreadable, ["2 of 2 files cannot be used", "a.jpg: not a picture", "b.png: not a picture"]),
        (truncated, ["cut.png: ", "cut off or damaged", "leave it out with --skip-bad"]),
        (bomb, ["bomb.png: its header announces too many pixels"]),
    ],
)
def test_bad_photos_are_refused_by_name(studio, tmp_path, preset, photos, spoil, said):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    spoil(folder)
    before = inside(studio)
    refused(stamina("learn", studio, folder, "--name", "tom", "--preset", preset), *said)
    assert inside(studio) == before


def test_a_bad_photo_is_left_out_only_when_asked(studio, tmp_path, preset, photos):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    truncated(folder)
    ran = stamina("learn", studio, folder, "--name", "tom", "--preset", preset, "--skip-bad", "--no-report")
    assert ran.code == 0
    assert "cut.png: left out: " in ran.stderr
    concepts = json.loads(stamina("log", studio, "--json").stdout)["concepts"]
    assert [photo["file"] for photo in concepts[-1]["photos"]] == ["0.png", "1.png", "2.png"]


def test_a_missing_folder_is_refused(studio, tmp_path):
    refused(stamina("learn", studio, tmp_path / "nope", "--name", "tom"), "nope: there is no such file or folder")


# --------------------------------------------------------------------------------------------------- names and words


@pytest.mark.parametrize("name", ["../up", "a/b", "two words", "bell\a", "", "1st", "<rex>", "é", "a" * 41, "a\n"])
def test_an_unsafe_name_is_refused(studio, photos, name):
    before = inside(studio)
    refused(stamina("learn", studio, photos, f"--name={name}"), "cannot be a concept's name", "rex")
    assert inside(studio) == before


def test_a_name_that_is_taken_is_refused(studio, photos):
    before = inside(studio)
    refused(stamina("learn", studio, photos, "--name", "rex"), "rex")
    assert inside(studio) == before


def test_a_word_that_the_tokenizer_has_is_refused(tmp_path, photos, preset):
    pipeline = testing.tiny_pipeline()
    pipeline.tokenizer.add_tokens("<cat>")
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer))
    pipeline.save_pretrained(tmp_path / "base")
    assert stamina("init", tmp_path / "studio", "--base", tmp_path / "base").code == 0
    before = inside(tmp_path / "studio")
    refused(stamina("learn", tmp_path / "studio", photos, "--name", "cat", "--preset", preset), "<cat>")
    assert inside(tmp_path / "studio") == before


def test_an_unknown_word_in_a_prompt_gets_the_nearest(learned, tmp_path):
    before = inside(learned)
    ran = stamina("draw", learned, "a photo of <rexx>", "--out", tmp_path / "a.png")
    refused(ran, "the prompt has the unknown word <rexx>", "Did you mean <rex>?")
    assert inside(learned) == before
    assert not list(tmp_path.iterdir())


def test_a_picture_format_that_is_not_known_is_refused(learned, tmp_path):
    refused(stamina("draw", learned, "a cat", "--out", tmp_path / "a.xyz"), "cannot be written as .xyz", ".png")


# ---------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "clora"], "there is no method 'clora'\nDid you mean 'c-lora'?"),
        (["--preset", "papre"], "there is no preset 'papre'\nDid you mean 'paper'?"),
        (["--set", "rnak=3"], "there is no setting 'rnak'"),
        (["--set", "rank=x"], "rank should be a valid integer"),
    ],
)
def test_unknown_settings_are_refused(studio, photos, arguments, said):
    before = inside(studio)
    refused(stamina("learn", studio, photos, "--name", "tom", *arguments), said)
    assert inside(studio) == before


# -------------------------------------------------------------------------------------------------- bases and ledgers


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path, photos):
    refused(stamina("init", tmp_path / "studio", "--base", photos), str(photos))
    assert not (tmp_path / "studio").exists()


def test_pickled_weights_are_refused(tmp_path, bases):
    base = Path(shutil.copytree(bases / "tiny", tmp_path / "base"))
    weights = next((base / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    refused(stamina("init", tmp_path / "studio", "--base", base), "unet: has pickled weights", "Convert them")
    assert not (tmp_path / "studio").exists()


@pytest.mark.parametrize("command", ["draw", "learn"])
def test_a_base_that_changed_is_refused(tmp_path, bases, preset, photos, command):
    base, studio = Path(shutil.copytree(bases / "tiny", tmp_path / "base")), tmp_path / "studio"
    assert stamina("init", studio, "--base", base).code == 0
    before = inside(studio)
    weights = next((base / "unet").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    if command == "draw":
        ran = stamina("draw", studio, "a cat", "--out", tmp_path / "a.png")
    else:
        ran = stamina("learn", studio, photos, "--name", "tom", "--preset", preset)
    refused(ran, "changed")
    assert inside(studio) == before
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-20], lambda text: "{}", lambda text: text.replace('"rex"', '"max"')]
)
def test_a_ledger_damaged_by_hand_is_refused(studio, damage):
    ledger = studio / "ledger.json"
    ledger.write_text(damage(ledger.read_text(encoding="utf-8")), encoding="utf-8")
    before = inside(studio)
    refused(stamina("log", studio), "ledger.json")
    assert inside(studio) == before


@pytest.mark.parametrize(
    "command", [["log"], ["draw", "a cat", "--out", "a.png"], ["export", "out", "--to", "diffusers"]]
)
def test_a_folder_that_is_no_studio_is_refused(tmp_path, command):
    refused(stamina(command[0], tmp_path, *command[1:]), str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_export_format_that_is_not_known_is_refused(learned, tmp_path):
    refused(stamina("export", learned, "--to", "difusers", tmp_path / "out"), "difusers")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------- processes, interruptions, machines


@pytest.mark.parametrize(
    "arguments", [["log", "nowhere"], ["doctor", "nowhere"], ["draw", "nowhere", "a cat", "--out", "a.xyz"]]
)
def test_a_refusal_in_a_process_of_its_own_has_no_traceback(tmp_path, arguments):
    command = [sys.executable, "-c", "from stamina_diffusion.cli import main; main()", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    refused(Ran(ran.returncode, ran.stdout, ran.stderr))
    assert not list(tmp_path.iterdir())


def at_step_two(monkeypatch, error: BaseException) -> None:
    """Let something happen after the second step of a learning."""

    def watch(lines, done, note=""):
        if done == 2:
            raise error

    monkeypatch.setattr(console._Lines, "__call__", watch)


def test_stopped_by_hand_the_studio_is_as_before_and_the_command_goes_on(monkeypatch, studio, photos, preset):
    monkeypatch.setattr(import_module("stamina_diffusion.learn"), "CHECKPOINT_SECONDS", -1.0)
    before = json.loads(stamina("log", studio, "--json").stdout)
    arguments = ["learn", studio, photos, "--name", "tom", "--preset", preset, "--steps", 4, "--no-report"]
    with monkeypatch.context() as stopped:
        at_step_two(stopped, KeyboardInterrupt())
        ran = stamina(*arguments)
    assert ran.code == 130
    # The second step's checkpoint comes after its watch.
    assert ran.stderr.endswith("stopped; nothing was changed; the same command goes on from step 1\n")
    assert json.loads(stamina("log", studio, "--json").stdout) == before
    assert "<tom> is half learned" in stamina("log", studio).stdout
    ran = stamina(*arguments)
    assert ran.code == 0
    assert "learning <tom>: 25 %" not in ran.stderr
    assert "learning <tom>: 100 %" in ran.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (MemoryError(), "there is not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "not enough memory",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "there is not enough memory"),
    ],
)
def test_a_machine_that_is_full_is_answered_in_words(monkeypatch, studio, photos, preset, error, said):
    before = json.loads(stamina("log", studio, "--json").stdout)
    at_step_two(monkeypatch, error)
    refused(stamina("learn", studio, photos, "--name", "tom", "--preset", preset), said)
    assert json.loads(stamina("log", studio, "--json").stdout) == before


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(stamina("world", "--sheet", tmp_path / "file" / "w.png", "--concepts", 1), str(tmp_path / "file"))


def test_an_error_of_ours_keeps_its_traceback(monkeypatch, studio, photos, preset):
    at_step_two(monkeypatch, RuntimeError("a mistake in the program"))
    with pytest.raises(RuntimeError, match="a mistake in the program"):
        stamina("learn", studio, photos, "--name", "tom", "--preset", preset)


def test_pretrain_refuses_a_number_that_the_recipe_does_not_have(tmp_path):
    ran = stamina("pretrain", "--out", tmp_path / "run", "--set", "denoiser_stps=9")
    assert ran.code == 2
    assert "Did you mean 'denoiser_steps'?" in ran.stderr
    assert not (tmp_path / "run").exists()
