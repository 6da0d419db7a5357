"""`stamina classify`: classes from folders of pictures, with the guarantees of a studio."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification
from typer.testing import CliRunner

from stamina_diffusion import ledger
from stamina_diffusion.backbones import vit
from stamina_diffusion.class_photos import check_apart, collect_classes
from stamina_diffusion.class_studio import STATISTICS, ClassStudio, accuracy, named
from stamina_diffusion.cli import app
from stamina_diffusion.errors import (
    LedgerError,
    NameTakenError,
    PhotoError,
    SettingsError,
    StudioError,
    StudioLockedError,
)
from stamina_diffusion.locks import held
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.plan import Plan
from stamina_diffusion.studio import Studio
from stamina_diffusion.verify import verify

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "grey": (128, 128, 128)}
METHOD = Stamina(rank=2, mask_rank=2, rate=1e-2, word_rate=5e-2, strength=1.0)
PLAN = Plan(steps=9, batch=4, weight_decay=0.0, prior_images=0)


def draw_classes(folder: Path, names, count: int = 4, first: int = 0) -> Path:
    """Noisy pictures of one colour each, in a folder for each colour."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(first, first + count):
            noise = np.random.default_rng(number).normal(0, 25, (24, 24, 3))
            pixels = np.clip(np.array(COLOURS[name.casefold()]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    config.image_size, config.patch_size, config.num_labels = 16, 8, 0
    vit.VisionTransformer(ViTForImageClassification(config)).save(folder / "vit")
    return folder / "vit"


@pytest.fixture(scope="module")
def taught(base, tmp_path_factory):
    """A studio of two tasks; tests that write take a copy."""
    folder = tmp_path_factory.mktemp("taught")
    studio = ClassStudio.create(folder / "studio", str(base))
    for number, names in enumerate((["red", "green"], ["blue", "grey"]), 1):
        photos = collect_classes(draw_classes(folder / f"pictures-{number}", names))
        studio.learn(photos, f"task-{number}", method=METHOD, plan=PLAN)
    return folder


@pytest.fixture
def copied(taught, tmp_path):
    shutil.copytree(taught, tmp_path / "copy")
    return tmp_path / "copy"


def stamina(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# -------------------------------------------------------------------------------------------------------- guarantees


def test_it_learns_classes_and_keeps_them(taught, tmp_path):
    studio = ClassStudio.open(taught / "studio")
    assert studio.classes == ["green", "red", "blue", "grey"]
    asked = collect_classes(draw_classes(tmp_path / "asked", ["red", "green", "blue", "grey"], first=50))
    found = accuracy(studio.classifier(), asked)
    assert sum(found.values()) / 4 > 0.25  # better than chance, for all that two blocks of noise can do
    best = named(studio.classifier(), asked, top=4)
    assert all(sum(share for _, share in one) == pytest.approx(1, abs=1e-5) for one in best)


def test_it_is_rebuilt_to_the_bit_and_verified(taught):
    studio = ClassStudio.open(taught / "studio")
    found = verify(studio)
    assert found.sound
    assert found.versions == [1, 2]
    again = ClassStudio.open(taught / "studio").classifier()
    state = studio.classifier().network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in again.network.state_dict().items())


def test_the_ledger_names_classes_and_seals_the_labels(taught):
    record = ledger.read(taught / "studio")
    entry = record.entries[0]
    assert entry.classes == ["green", "red"]
    assert [photo["class"] for photo in entry.photos] == ["green"] * 4 + ["red"] * 4
    file = taught / "studio" / ledger.FILE
    body = json.loads(file.read_text())
    body["events"][0]["private"]["photos"][0]["class"] = "red"
    body.pop("checksum")
    text = ledger._checksum(body)
    other = taught / "other"
    other.mkdir()
    (other / ledger.FILE).write_text(json.dumps(body | {"checksum": text}))
    with pytest.raises(LedgerError, match="does not fit its hash"):
        ledger.read(other)


def test_a_ledger_of_concepts_is_what_it_was():
    """Neither a base nor a concept that has nothing to do with classes says anything of them."""
    from stamina_diffusion.bases import Base
    from stamina_diffusion.ledger import Entry, Ledger

    assert "network" not in Base("embedded", "embedded", "0").record()
    entry = Entry(
        "rex", "<rex>", None, "lora", {}, {}, 1, 0, [], None, 0.0, {}, 1, "", 0.0, "2026-01-01T00:00:00+00:00"
    )
    private = Ledger(Base("embedded", "embedded", "0")).learned(entry).events[0].private
    assert private is not None
    assert "classes" not in private


def test_going_back_takes_the_classes_with_it(copied):
    studio = ClassStudio.open(copied / "studio")
    studio.rollback(1)
    assert studio.classes == ["green", "red"]
    assert studio.classifier().head.out_features == 2
    photos = collect_classes(draw_classes(copied / "again", ["grey", "blue"], first=9))
    studio.learn(photos, "task-3", method=METHOD, plan=PLAN)
    assert studio.classes == ["green", "red", "blue", "grey"]


def test_a_learning_that_was_cut_goes_on_to_the_same_bytes(copied, base, monkeypatch):
    monkeypatch.setattr("stamina_diffusion.learn.CHECKPOINT_SECONDS", -1.0)
    photos = collect_classes(copied / "pictures-1")

    def stop(step) -> None:
        if step.step == 7:
            raise KeyboardInterrupt

    studio = ClassStudio.create(copied / "cut", str(base))
    with pytest.raises(KeyboardInterrupt):
        studio.learn(photos, "task-1", method=METHOD, plan=PLAN, watch=stop)
    again = ClassStudio.open(copied / "cut")
    assert again.version == 0
    assert again.pending() == "task-1"
    steps = []
    again.learn(photos, "task-1", method=METHOD, plan=PLAN, watch=lambda step: steps.append(step.step))
    assert steps[0] > 1
    whole = load_file(copied / "studio" / "concepts" / "0001-task-1" / "change.safetensors")
    found = load_file(copied / "cut" / "concepts" / "0001-task-1" / "change.safetensors")
    assert whole.keys() == found.keys()
    assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_two_do_not_write_at_once(copied):
    studio = ClassStudio.open(copied / "studio")
    photos = collect_classes(draw_classes(copied / "new", ["Grey"], first=9))
    with held(copied / "studio"), pytest.raises(StudioLockedError):
        studio.learn(photos, "task-3", method=METHOD, plan=PLAN)


def test_a_damaged_change_is_found(copied):
    path = next((copied / "studio" / "concepts").glob("0001*")) / "change.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(LedgerError, match="is damaged"):
        ClassStudio.open(copied / "studio").classifier()


def test_a_class_is_not_learned_twice_and_nothing_is_written(copied):
    studio = ClassStudio.open(copied / "studio")
    before = (copied / "studio" / ledger.FILE).read_bytes()
    photos = collect_classes(draw_classes(copied / "new", ["Red"], first=9))
    with pytest.raises(NameTakenError, match="the class 'red' was learned already"):
        studio.learn(photos, "task-3", method=METHOD, plan=PLAN)
    assert (copied / "studio" / ledger.FILE).read_bytes() == before
    assert not (copied / "studio" / "unfinished").exists()


def test_each_kind_of_studio_names_the_commands_for_the_other(taught, tmp_path):
    with pytest.raises(StudioError, match=r"is a studio of a classifier(.|\n)*stamina classify"):
        Studio.open(taught / "studio")
    ran = stamina("learn", taught / "studio", taught / "pictures-1" / "red", "--name", "rex")
    assert ran.exit_code == 2
    assert "stamina classify" in ran.output


# ----------------------------------------------------------------------------------------------------------- pictures


def test_the_commands_on_history_are_the_same_for_both_kinds(copied):
    folder = copied / "studio"
    ran = stamina("rollback", folder, "--to", "1")
    assert ran.exit_code == 0, ran.output
    assert ClassStudio.open(folder).classes == ["green", "red"]
    assert stamina("branch", folder, "other").exit_code == 0
    ran = stamina("verify", folder)
    assert ran.exit_code == 0, ran.output
    assert "The studio is sound." in ran.output
    ran = stamina("forget", folder, "task-1", "--yes")
    assert ran.exit_code == 2
    assert "is a studio of a classifier" in ran.output


def test_a_class_that_is_there_twice_is_refused(tmp_path):
    folder = draw_classes(tmp_path / "a", ["red", "Red"])
    with pytest.raises(PhotoError, match="the class 'red' is there twice, beside 'Red'"):
        collect_classes(folder)


def test_a_class_without_a_picture_that_opens_is_refused(tmp_path):
    folder = draw_classes(tmp_path / "a", ["red"])
    (folder / "empty").mkdir()
    with pytest.raises(PhotoError, match="class 'empty': there are no photos in this folder"):
        collect_classes(folder)
    (folder / "empty" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(PhotoError, match=r"class 'empty'.*"):
        collect_classes(folder)


def test_pictures_must_lie_in_folders_of_classes(tmp_path):
    folder = draw_classes(tmp_path / "a", ["red"])
    with pytest.raises(PhotoError, match="has no folders, and so no classes"):
        collect_classes(folder / "red")
    shutil.copy(folder / "red" / "0.png", folder / "loose.png")
    with pytest.raises(PhotoError, match=r"loose\.png: is in no class's folder"):
        collect_classes(folder)
    with pytest.raises(PhotoError, match="there is no such folder"):
        collect_classes(tmp_path / "nowhere")


def test_one_picture_is_not_of_two_classes_nor_of_train_and_test(tmp_path):
    folder = draw_classes(tmp_path / "a", ["red", "blue"])
    photos = collect_classes(folder)
    shutil.copy(folder / "red" / "0.png", folder / "blue" / "copy.png")
    with pytest.raises(PhotoError, match=r"0\.png: is the same picture as .*copy\.png', and of another class"):
        collect_classes(folder)
    with pytest.raises(PhotoError, match="which is learned from"):
        check_apart(photos, photos[:1])


def test_a_picture_that_was_learned_from_earlier_is_no_test(copied):
    studio = copied / "studio"
    new = draw_classes(copied / "new", ["blue"], first=20)
    (new / "blue").rename(new / "late")
    ran = stamina("classify", "learn", studio, new, "--test", copied / "pictures-1")
    assert ran.exit_code == 2
    assert "which task-1 learned from" in " ".join(ran.output.split())
    assert ClassStudio.open(studio).version == 2


# ------------------------------------------------------------------------------------------------------------- heads


def test_a_head_of_statistics_is_that_of_the_pictures(taught):
    studio = ClassStudio.open(taught / "studio")
    known, classifier = studio.statistics(), studio.classifier()
    assert len(known.means) == 4
    # The last task's statistics are of the newest network; the first task's of an older one.
    photos = [photo for photo in collect_classes(taught / "pictures-2") if photo.caption == "blue"]
    features, place = classifier.features([photo.load(16) for photo in photos]).double(), 2
    torch.testing.assert_close(known.means[place], features.mean(0).float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(known.covariances[place], features.T.cov().float(), atol=1e-5, rtol=1e-3)
    before = classifier.head.weight.clone()
    nearest = studio.classifier("nearest-mean").head.weight
    torch.testing.assert_close(nearest, torch.nn.functional.normalize(known.means, dim=1))
    best = studio.classifier("aligned").head.weight
    assert not torch.equal(best, before)
    assert torch.equal(studio.classifier(None).head.weight, best)
    assert torch.equal(studio.classifier().head.weight, before)
    with pytest.raises(SettingsError, match=r"no head 'alinged'(.|\n)*Did you mean 'aligned'"):
        studio.classifier("alinged")


def test_a_studio_without_statistics_still_names_pictures(base, tmp_path, monkeypatch):
    monkeypatch.setattr(ClassStudio, "_beside", lambda self, backbone, concept: {})
    studio = ClassStudio.create(tmp_path / "studio", str(base))
    for number, names in enumerate((["red", "green"], ["blue", "grey"])):
        photos = collect_classes(draw_classes(tmp_path / f"pictures-{number}", names))
        studio.learn(photos, f"task-{number}", method=METHOD, plan=PLAN)
    assert torch.equal(studio.classifier(None).head.weight, studio.classifier("trained").head.weight)
    with pytest.raises(LedgerError, match="before statistics of classes were kept"):
        studio.classifier("aligned")


def test_after_one_lot_the_trained_head_decides(copied):
    studio = ClassStudio.open(copied / "studio")
    assert not torch.equal(studio.classifier(None).head.weight, studio.classifier("trained").head.weight)
    studio.rollback(1)
    assert torch.equal(studio.classifier(None).head.weight, studio.classifier("trained").head.weight)


def test_damaged_statistics_are_found_and_do_not_touch_the_model(copied):
    studio = ClassStudio.open(copied / "studio")
    path = studio.concept_folder(studio.entries[0]) / STATISTICS
    path.write_bytes(path.read_bytes()[:-1])
    assert len(studio.classifier("trained").learned) == 4
    with pytest.raises(LedgerError, match="damaged"):
        studio.classifier(None)
    (finding,) = verify(ClassStudio.open(copied / "studio")).findings
    assert "--head trained" in finding.do


# ---------------------------------------------------------------------------------------------------------- commands


def test_the_commands_from_nothing_to_a_plain_network(base, tmp_path):
    studio, pictures = tmp_path / "studio", draw_classes(tmp_path / "pictures", ["red", "blue"])
    asked = draw_classes(tmp_path / "asked", ["red", "blue"], first=30)
    made = stamina("classify", "init", studio, "--base", base)
    assert made.exit_code == 0, made.output
    for early in (("predict", studio, pictures / "red"), ("export", studio, "--to", tmp_path / "early")):
        ran = stamina("classify", *early)
        assert ran.exit_code == 2
        assert "has learned no class yet" in ran.output
    assert not (tmp_path / "early").exists()
    settings = ["--set", "rank=2", "--set", "word_rate=5e-2", "--set", "batch=4", "--epochs", "6"]
    learned = stamina("classify", "learn", studio, pictures, "--test", asked, *settings)
    assert learned.exit_code == 0, learned.output
    assert "version 1: task-1, 2 classes in all" in learned.output
    assert "8 test pictures" in learned.output
    told = stamina("classify", "log", studio)
    assert "1 task-1: 2 classes of 8 pictures by stamina" in told.output
    assert json.loads(stamina("classify", "log", studio, "--json").output)["tasks"][0]["classes"] == ["blue", "red"]
    found = json.loads(stamina("classify", "predict", studio, asked / "red", "--top", "2", "--json").output)
    assert len(found) == 4
    assert {one["name"] for one in found[0]["classes"]} == {"red", "blue"}
    for layout, head in (("transformers", "nearest-mean"), ("timm", "trained")):
        ran = stamina("classify", "export", studio, "--to", tmp_path / layout, "--layout", layout, "--head", head)
        assert ran.exit_code == 0, ran.output
        again = vit.load(tmp_path / layout, keep_classes=True)
        assert again.learned == ["blue", "red"]
        torch.testing.assert_close(again.head.weight, ClassStudio.open(studio).classifier(head).head.weight)
    twice = stamina("classify", "export", studio, "--to", tmp_path / "timm")
    assert twice.exit_code == 2
    assert "is not an empty folder" in twice.output


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("classify", "init", "new", "--base", "no/such folder"), "there is no such folder, and it is no hub id"),
        (("classify", "log", "new"), "is not a studio"),
        (("classify", "predict", "new", "x.png"), "is not a studio"),
    ],
)
def test_what_is_not_there_is_told(arguments, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = stamina(*arguments)
    assert ran.exit_code == 2
    assert found in ran.output
    assert not (tmp_path / "new").exists()


def test_a_base_that_is_no_vit_makes_no_studio(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "bert"}')
    ran = stamina("classify", "init", tmp_path / "new", "--base", tmp_path / "base")
    assert ran.exit_code == 2
    assert "holds no ViT" in ran.output
    assert not (tmp_path / "new").exists()
