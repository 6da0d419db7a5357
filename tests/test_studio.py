"""A studio: committed whole or not at all, rebuilt to the bit, refused with a clear message when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image

from stamina_diffusion import files, ledger, testing
from stamina_diffusion.errors import (
    BaseChangedError,
    BaseModelError,
    ExportError,
    LedgerError,
    NameTakenError,
    StudioError,
    StudioLockedError,
    TrainingError,
)
from stamina_diffusion.exports import export
from stamina_diffusion.methods import build
from stamina_diffusion.photos import Photo, collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.studio import Studio

PLAN = Plan(steps=3, batch=2, prior_images=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "pipeline"
    testing.tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Photo, ...]:
    folder = tmp_path_factory.mktemp("photos")
    for k in range(3):
        Image.effect_noise((20, 24), 60 + 40 * k).convert("RGB").save(folder / f"{k}.png")
    return collect(folder, resolution=16)


@pytest.fixture
def studio(tmp_path: Path, base: Path) -> Studio:
    return Studio.create(tmp_path / "studio", str(base))


def taught(studio: Studio, photos: tuple[Photo, ...], *names: str, method: str = "stamina") -> Studio:
    for name in names:
        studio.learn(photos, name, method=build(method), plan=PLAN)
    return studio


def everything(studio: Studio) -> dict[str, torch.Tensor]:
    pipeline = studio.backbone().pipeline
    return {**pipeline.unet.state_dict(), **pipeline.text_encoder.state_dict()}


@pytest.mark.parametrize("method", ["textual-inversion", "fine-tune", "lora", "c-lora", "stamina"])
def test_the_model_is_rebuilt_from_base_and_ledger_to_the_bit(
    studio: Studio, photos: tuple[Photo, ...], method: str
) -> None:
    taught(studio, photos, "rex", "tom", method=method)
    live, rebuilt = everything(studio), everything(Studio.open(studio.folder))
    assert live.keys() == rebuilt.keys()
    assert all(torch.equal(live[name], rebuilt[name]) for name in live)
    assert Studio.open(studio.folder).backbone().words == ["<rex>", "<tom>"]


def test_an_older_version_is_the_model_of_that_time(studio: Studio, photos: tuple[Photo, ...]) -> None:
    taught(studio, photos, "rex")
    then = {name: value.clone() for name, value in everything(studio).items()}
    taught(studio, photos, "tom")
    old = studio.rebuilt(1).pipeline.unet.state_dict()
    assert all(torch.equal(old[name], then[name]) for name in old)


def test_the_same_learning_gives_the_same_hash_in_another_place(
    tmp_path: Path, base: Path, photos: tuple[Photo, ...]
) -> None:
    first = taught(Studio.create(tmp_path / "a", str(base)), photos, "rex", "tom")
    second = taught(Studio.create(tmp_path / "b", str(base)), photos, "rex", "tom")
    assert [entry.hash for entry in first.entries] == [entry.hash for entry in second.entries]


def test_a_name_is_taken_once_whatever_its_case(studio: Studio, photos: tuple[Photo, ...]) -> None:
    taught(studio, photos, "rex")
    with pytest.raises(NameTakenError, match="learned already"):
        taught(studio, photos, "REX")
    assert studio.version == 1


def test_interrupted_and_resumed_ends_in_the_bytes_of_an_uninterrupted_run(
    tmp_path: Path, base: Path, photos: tuple[Photo, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stamina_diffusion.learn.CHECKPOINT_SECONDS", 0.0)
    plain = taught(Studio.create(tmp_path / "plain", str(base)), photos, "rex")
    stopped = Studio.create(tmp_path / "stopped", str(base))

    def stop(step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.learn(photos, "rex", method=build("stamina"), plan=PLAN, watch=stop)
    again = Studio.open(stopped.folder)
    assert (again.version, again.pending()) == (0, "rex")
    seen: list[int] = []
    again.learn(photos, "rex", method=build("stamina"), plan=PLAN, watch=lambda step: seen.append(step.step))
    assert seen[0] > 1, "it began again instead of going on"
    assert again.entries[0].hash == plain.entries[0].hash
    assert again.pending() is None


def test_other_settings_do_not_go_on_from_the_checkpoint(
    studio: Studio, photos: tuple[Photo, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stamina_diffusion.learn.CHECKPOINT_SECONDS", 0.0)

    def stop(step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        studio.learn(photos, "rex", method=build("stamina"), plan=PLAN, watch=stop)
    seen: list[int] = []
    studio.learn(photos, "rex", method=build("lora"), plan=PLAN, watch=lambda step: seen.append(step.step))
    assert seen == [1, 2, 3]


def test_a_failed_learning_leaves_the_studio_as_it_was(studio: Studio, photos: tuple[Photo, ...]) -> None:
    taught(studio, photos, "rex")
    before = {p: files.sha256(p) for p in studio.folder.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(TrainingError, match="no longer a number"):
        studio.learn(photos, "tom", method=build("lora", {"rate": 1e30}), plan=PLAN)
    after = {p: files.sha256(p) for p in studio.folder.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
    taught(studio, photos, "tom")
    assert studio.version == 2


def test_a_full_disk_is_a_clear_error_and_the_studio_stays(
    studio: Studio, photos: tuple[Photo, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_tensors", full)
    with pytest.raises(TrainingError, match="disk is full"):
        taught(studio, photos, "rex")
    assert Studio.open(studio.folder).version == 0


def test_a_second_writer_is_refused(studio: Studio, photos: tuple[Photo, ...]) -> None:
    with FileLock(studio.folder / ".lock"), pytest.raises(StudioLockedError, match="another process"):
        taught(studio, photos, "rex")


def test_a_folder_that_the_ledger_does_not_name_is_swept_before_the_next_commit(
    studio: Studio, photos: tuple[Photo, ...]
) -> None:
    left = studio.folder / "concepts" / "0001-ghost"
    left.mkdir(parents=True)
    (left / "change.safetensors").write_bytes(b"half")
    taught(studio, photos, "rex")
    assert [path.name for path in (studio.folder / "concepts").iterdir()] == ["0001-rex"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace('"rex"', '"max"'), "checksum"),
        (lambda text: text[: len(text) // 2], "no JSON"),
        (lambda text: "[]", "no format"),
        (lambda text: text.replace('"format": 2', '"format": 99'), "format 99"),
    ],
)
def test_a_damaged_ledger_is_named(studio: Studio, photos: tuple[Photo, ...], damage, message: str) -> None:
    path = taught(studio, photos, "rex").folder / ledger.FILE
    path.write_text(damage(path.read_text()))
    with pytest.raises(LedgerError, match=message):
        Studio.open(studio.folder)


def test_a_recomputed_checksum_does_not_hide_a_changed_concept(studio: Studio, photos: tuple[Photo, ...]) -> None:
    path = taught(studio, photos, "rex").folder / ledger.FILE
    body = json.loads(path.read_text())
    body["events"][0]["private"]["method"] = "lora"
    body["checksum"] = ledger._checksum({key: value for key, value in body.items() if key != "checksum"})
    path.write_text(json.dumps(body))
    with pytest.raises(LedgerError, match="does not fit its hash"):
        Studio.open(studio.folder)


def test_a_flipped_bit_in_a_concept_is_found(studio: Studio, photos: tuple[Photo, ...]) -> None:
    entry = taught(studio, photos, "rex").entries[0]
    path = studio.concept_folder(entry) / "change.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(LedgerError, match="damaged"):
        Studio.open(studio.folder).backbone()


def test_a_changed_base_is_refused(tmp_path: Path, photos: tuple[Photo, ...]) -> None:
    base = tmp_path / "base"
    testing.tiny_pipeline().save_pretrained(base)
    studio = Studio.create(tmp_path / "studio", str(base))
    config = base / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    with pytest.raises(BaseChangedError, match="not the one"):
        taught(studio, photos, "rex")


def test_what_is_no_base_is_refused_and_nothing_is_made(tmp_path: Path, base: Path) -> None:
    import shutil

    empty = tmp_path / "empty"
    empty.mkdir()
    pickled = tmp_path / "pickled"
    shutil.copytree(base, pickled)
    weights = next((pickled / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    inpainting = tmp_path / "inpainting"
    shutil.copytree(base, inpainting)
    index = inpainting / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"))
    cases = {
        str(empty): "no model_index.json",
        str(pickled): "pickled weights",
        str(inpainting): "is a StableDiffusionInpaintPipeline",
        "no such thing": "no such folder",
    }
    for source, message in cases.items():
        with pytest.raises(BaseModelError, match=message):
            Studio.create(tmp_path / "studio", source)
        assert not (tmp_path / "studio").exists()


def test_a_studio_is_not_made_where_something_is(tmp_path: Path, base: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear reader")
    with pytest.raises(StudioError, match="not an empty folder"):
        Studio.create(tmp_path, str(base))
    with pytest.raises(StudioError, match="not a studio"):
        Studio.open(tmp_path)


def test_plain_diffusers_draws_the_same_from_the_export(
    studio: Studio, photos: tuple[Photo, ...], tmp_path: Path
) -> None:
    taught(studio, photos, "rex", "tom")
    out = export(studio, "diffusers", tmp_path / "out")
    ours = studio.backbone().draw(["a photo of <rex> and <tom>"], [7], steps=4, guidance=2.0)[0]
    script = (
        "import sys, torch\n"
        "from diffusers import StableDiffusionPipeline\n"
        "pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "generator = torch.Generator('cpu').manual_seed(7)\n"
        "call = dict(num_inference_steps=4, guidance_scale=2.0, generator=generator)\n"
        "pipeline('a photo of <rex> and <tom>', **call).images[0].save(sys.argv[2])\n"
        "assert not any(name.startswith('stamina') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(out), str(tmp_path / "plain.png")], check=True)
    theirs = Image.open(tmp_path / "plain.png")
    assert max(abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes(), strict=True)) <= 2
    assert "<rex>" in (out / "README.md").read_text()


def test_an_export_does_not_overwrite_and_names_the_formats(
    studio: Studio, photos: tuple[Photo, ...], tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    with pytest.raises(ExportError, match="is there already"):
        export(studio, "diffusers", taken)
    with pytest.raises(ExportError, match="Did you mean 'diffusers'"):
        export(studio, "difusers", tmp_path / "new")


def test_killed_at_random_moments_nothing_is_lost(base: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "crash" / "crash.py"
    command = [sys.executable, str(script), "--kills", "4", "--steps", "12", "--base", str(base)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert (found["kills"], found["lost"], found["ended_in_other_bytes"]) == (4, 0, 0)
