"""Verify, pack, unpack and diff: every file that is not as it was written is named, and nothing is taken on trust."""

import io
import json
import shutil
import zipfile

import pytest
from PIL import Image
from typer.testing import CliRunner

from stamina_diffusion import packing, testing
from stamina_diffusion.cli import app
from stamina_diffusion.errors import LedgerError, PackError, StaminaError
from stamina_diffusion.methods import build
from stamina_diffusion.packing import pack, unpack
from stamina_diffusion.photos import collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.studio import Studio
from stamina_diffusion.verify import verify
from stamina_diffusion.world import WorldConcept


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A studio of two concepts on a tiny base."""
    folder = tmp_path_factory.mktemp("trust")
    testing.tiny_pipeline().save_pretrained(folder / "base")
    studio = Studio.create(folder / "studio", str(folder / "base"))
    for place, name in enumerate(("ada", "mill")):
        photos = collect(WorldConcept(("faces", "landmarks")[place], "tuning", place).photograph(folder / name, 2))
        plan = Plan(steps=2, batch=2, prior_images=0)
        studio.learn(photos, name, method=build("stamina", {"rank": 2}), plan=plan)
    return folder


@pytest.fixture
def studio(whole, tmp_path):
    return shutil.copytree(whole / "studio", tmp_path / "studio")


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(data)


def test_a_whole_studio_is_rebuilt_to_the_bit(studio):
    found = verify(Studio.open(studio))
    assert found.sound
    assert found.versions == [1, 2]
    assert found.files == 4
    ran = run("verify", studio)
    assert ran.exit_code == 0
    assert "The studio is sound." in ran.output


@pytest.mark.parametrize("file", ["change.safetensors", "memory.safetensors"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_file_that_is_not_as_it_was_written_is_named_with_what_still_works(studio, file, harm):
    path = studio / "concepts" / "0001-ada" / file
    if harm == "flip":
        flip(path)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    ran = run("verify", studio, "--json")
    assert ran.exit_code == 2
    found = json.loads(ran.stdout)
    assert [(one["what"], one["path"]) for one in found["findings"]] == [
        ("missing" if harm == "remove" else "damaged", f"concepts/0001-ada/{file}")
    ]
    if file == "change.safetensors":
        assert "versions that do without <ada>: 0 " in found["findings"][0]["do"]
        assert found["versions"] == []
    else:
        assert found["versions"] == [1, 2]


def test_a_changed_base_and_a_damaged_ledger_are_told(studio, whole, tmp_path):
    (studio / "concepts" / "left.part").write_text("x")
    found = verify(Studio.open(studio))
    assert [one.what for one in found.findings] == ["unknown"]
    assert found.sound
    flip(studio / "ledger.json", 200)
    ran = run("verify", studio)
    assert ran.exit_code == 2
    assert "concepts/0002-mill/change.safetensors: readable" in ran.output


def test_a_model_that_is_not_the_one_that_was_learned_is_noticed(studio, monkeypatch):
    real = Studio.fold_recorded

    def a_little_off(self, backbone, entry):
        changed = real(self, backbone, entry)
        next(iter(changed.values())).value.view(-1)[0] += 1e-6
        return changed

    monkeypatch.setattr(Studio, "fold_recorded", a_little_off)
    found = verify(Studio.open(studio))
    assert [one.what for one in found.findings] == ["differs"]
    assert "version 1 is not the one that was learned" in found.findings[0].said


def test_what_was_refolded_or_rolled_back_is_sound_too(studio):
    opened = Studio.open(studio)
    opened.rollback(1)
    assert verify(opened).versions == [1]
    opened.rollback(2)
    opened.forget("ada")
    found = verify(opened)
    assert found.sound
    assert found.versions == []


def test_a_packed_studio_is_the_same_elsewhere_and_its_bytes_repeat(studio, whole, tmp_path):
    assert run("pack", studio, tmp_path / "a.stamina").exit_code == 0
    pack(Studio.open(studio), tmp_path / "b.stamina")
    assert (tmp_path / "a.stamina").read_bytes() == (tmp_path / "b.stamina").read_bytes()
    assert run("pack", studio, tmp_path / "a.stamina").exit_code == 2

    moved = shutil.copytree(whole / "base", tmp_path / "moved")
    ran = run("unpack", tmp_path / "a.stamina", tmp_path / "there", "--base", moved)
    assert ran.exit_code == 0, ran.output
    there = Studio.open(tmp_path / "there")
    assert there.record.head == Studio.open(studio).record.head
    assert there.base["source"] == str(moved)
    assert verify(there).versions == [1, 2]
    assert run("unpack", tmp_path / "a.stamina", tmp_path / "there", "--base", moved).exit_code == 2


def test_a_pack_for_another_base_is_refused(studio, whole, tmp_path):
    pack(Studio.open(studio), tmp_path / "a.stamina")
    other = shutil.copytree(whole / "base", tmp_path / "other")
    flip(other / "unet" / "config.json", 3)
    ran = run("unpack", tmp_path / "a.stamina", tmp_path / "there", "--base", other)
    assert ran.exit_code == 2
    assert not (tmp_path / "there").exists()
    assert run("unpack", tmp_path / "a.stamina", tmp_path / "there", "--base", "embedded").exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"studio", "a.stamina", "other"}


def repacked(source, target, change):
    """The pack with its members changed by a function of a dictionary, its list of files made to fit."""
    import hashlib

    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != "pack.json"}
    members = change(members)
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in members.items()}
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("pack.json", json.dumps({"format": 1, "files": listed}))
        for name, data in members.items():
            archive.writestr(name, data)
    return target


@pytest.mark.parametrize(
    "name",
    ["../out.json", "/etc/out.json", "concepts/../../x.safetensors", "concepts/0001-ada/../x.safetensors", "run.py",
     "concepts/0001-ada/x.pkl", "samples/a\\..\\b.png", "C:\\x.png", "samples/.png/x.png", "concepts/0001-ada/"],
)  # fmt: skip
def test_a_member_that_no_pack_holds_is_refused(studio, whole, tmp_path, name):
    pack(Studio.open(studio), tmp_path / "a.stamina")
    bad = repacked(tmp_path / "a.stamina", tmp_path / "bad.stamina", lambda members: members | {name: b"x"})
    with pytest.raises(PackError):
        unpack(bad, tmp_path / "deep" / "there")
    assert not (tmp_path / "deep" / "there").exists()
    assert not list(tmp_path.rglob("*out.json"))


def test_no_flipped_bit_and_no_missing_end_of_a_pack_gets_in(studio, tmp_path):
    pack(Studio.open(studio), tmp_path / "a.stamina")
    data = (tmp_path / "a.stamina").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        starts = [info.header_offset for info in archive.infolist()]
    # In each member's header and body, in the directory at the end, and a cut.
    places = sorted({*(start + 60 for start in starts), *(start + 5000 for start in starts), len(data) - 200})
    for place in (place for place in places if place < len(data)):
        broken = bytearray(data)
        broken[place] ^= 4
        (tmp_path / "b.stamina").write_bytes(broken)
        try:
            there = unpack(tmp_path / "b.stamina", tmp_path / f"there{place}")
        except StaminaError:
            assert not (tmp_path / f"there{place}").exists()
        else:  # a bit of the zip's own that means nothing, such as a date
            assert there.record.head == Studio.open(studio).record.head
            assert verify(there).sound
    for cut in (0, 10, len(data) // 2, len(data) - 3):
        (tmp_path / "b.stamina").write_bytes(data[:cut])
        with pytest.raises(PackError):
            unpack(tmp_path / "b.stamina", tmp_path / "there")


def test_a_pack_whose_files_do_not_fit_its_ledger_is_refused(studio, tmp_path):
    pack(Studio.open(studio), tmp_path / "a.stamina")

    def swapped(members):
        one, two = (f"concepts/{folder}/change.safetensors" for folder in ("0001-ada", "0002-mill"))
        return members | {one: members[two], two: members[one]}

    with pytest.raises(LedgerError):
        unpack(repacked(tmp_path / "a.stamina", tmp_path / "b.stamina", swapped), tmp_path / "there")
    (tmp_path / "c.stamina").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(PackError):
        unpack(tmp_path / "c.stamina", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_damaged_studio_is_not_packed(studio, tmp_path):
    flip(studio / "concepts" / "0002-mill" / "change.safetensors")
    assert run("pack", studio, tmp_path / "a.stamina").exit_code == 2
    assert not list(tmp_path.glob("*stamina*"))


def test_a_pack_that_claims_more_than_the_disk_has_is_refused_before_it_is_read(studio, tmp_path, monkeypatch):
    pack(Studio.open(studio), tmp_path / "a.stamina")
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PackError, match="more than the disk has"):
        unpack(tmp_path / "a.stamina", tmp_path / "there")


def test_diff_says_what_changed_and_draws_both(studio, tmp_path):
    ran = run("diff", f"{studio}@1", studio, "--json", "--out", tmp_path / "d.png", "--samples", 2, "--steps", 2)
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert (found["only_a"], found["only_b"], found["both"], found["relearned"]) == ([], ["<mill>"], ["<ada>"], [])
    layers = found["layers"]
    assert layers
    assert all("attn2.to_" in layer["name"] for layer in layers)
    assert layers == sorted(layers, key=lambda layer: -layer["relative"])
    with Image.open(tmp_path / "d.png") as sheet:
        assert sheet.width > 300

    same = json.loads(run("diff", f"{studio}@mill", f"{studio}@main", "--json").stdout)
    assert same["layers"] == []
    assert "only in studio@2: <mill>" in run("diff", f"{studio}@ada", f"{studio}@2").output


@pytest.mark.parametrize("at", ["@9", "@nobody", "@-1"])
def test_diff_refuses_a_place_that_is_not_there(studio, at):
    assert run("diff", f"{studio}{at}", studio).exit_code == 2


def test_diff_refuses_studios_on_different_bases(studio, tmp_path):
    Studio.create(tmp_path / "other", "embedded")
    ran = run("diff", studio, tmp_path / "other")
    assert ran.exit_code == 2
    assert "different bases" in ran.output
