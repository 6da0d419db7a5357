"""Undo, remove, branch: to the bit, whole or not at all, and what is forgotten is gone from the disk and the ledger."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from stamina_diffusion import features, files, kept, ledger, testing
from stamina_diffusion.errors import (
    LedgerError,
    NameTakenError,
    StudioError,
    StudioLockedError,
    UnknownWordError,
    UnsafeNameError,
)
from stamina_diffusion.events import Event
from stamina_diffusion.history import spans
from stamina_diffusion.methods import build
from stamina_diffusion.photos import Photo, collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.replay import replay
from stamina_diffusion.report import after_learning
from stamina_diffusion.settings import Draw, Report
from stamina_diffusion.studio import Studio
from test_cli import inside, refused, stamina
from test_demo import Colours

PLAN = Plan(steps=2, batch=2, prior_images=0)
NAMES = ("ann", "bob", "cyd")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, photos of three concepts, and a studio that has learned them."""
    folder = tmp_path_factory.mktemp("place")
    testing.tiny_pipeline().save_pretrained(folder / "base")
    for k, name in enumerate(NAMES):
        (folder / name).mkdir()
        for view in range(2):
            noise = Image.effect_noise((16, 16), 60 + 40 * k + 9 * view).convert("RGB")
            noise.save(folder / name / f"{name}-{view}.png")
    taught(Studio.create(folder / "three", str(folder / "base")), folder, *NAMES)
    return folder


@pytest.fixture
def three(tmp_path: Path, place: Path) -> Studio:
    """A copy of the studio with three concepts."""
    return Studio.open(Path(shutil.copytree(place / "three", tmp_path / "studio")))


def photos_of(place: Path, name: str) -> tuple[Photo, ...]:
    return collect(place / name, resolution=16)


def taught(studio: Studio, place: Path, *names: str, method: str = "stamina", **settings: object) -> Studio:
    for name in names:
        photos = photos_of(place, name if name in NAMES else "ann")
        studio.learn(photos, name, method=build(method, settings), plan=PLAN, consent=f"{name} said yes", licence="CC0")
    return studio


def weights(studio: Studio, version: int | None = None) -> dict[str, torch.Tensor]:
    pipeline = studio.rebuilt(studio.version if version is None else version).pipeline
    return {**pipeline.unet.state_dict(), **pipeline.text_encoder.state_dict()}


def same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def names(studio: Studio) -> list[str]:
    return [entry.name for entry in studio.entries]


def mentions(folder: Path, *what: str) -> list[str]:
    """Where a studio's files or their names still say something."""
    said = [text.encode() for text in what]
    return [
        f"{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if any(text in str(path.relative_to(folder)).encode() for text in said)
        or (path.is_file() and any(text in path.read_bytes() for text in said))
    ]


# ------------------------------------------------------------------------------------------------------------- replay


def events(*told: tuple[str, str, dict[str, Any]]) -> list[Event]:
    return [Event(kind, k, branch, "", what, None, None, "") for k, (kind, branch, what) in enumerate(told, start=1)]


def test_a_version_is_the_state_of_its_branch_after_its_event():
    found = replay(
        events(
            ("learn", "main", {}),
            ("learn", "main", {}),
            ("branch", "main", {"name": "try", "at": 1}),
            ("switch", "try", {"from": "main"}),
            ("learn", "try", {}),
            ("rollback", "try", {"to": 2}),
            ("forget", "main", {"of": [1], "files": {}}),
            ("forget", "try", {"of": [1], "files": {"5": {}}}),
        )
    )
    assert tuple(found.folds) == ((), (1,), (1, 2), (1, 2), (1,), (1, 5), (1, 2), (2,), (2,))
    assert (found.branch, found.branches) == ("try", {"main": 7, "try": 8})
    assert [version for version in range(9) if found.whole(version)] == [0, 7, 8]
    assert found.left(5) == (5,)
    assert found.reachable == {2}


@given(
    st.lists(
        st.tuples(st.sampled_from(["learn", "learn", "rollback", "forget", "branch"]), st.integers(0, 99)), max_size=30
    )
)
def test_a_timeline_says_what_its_definition_says(drawn):
    # The definition, version by version: what `replay` must say without keeping every version's concepts.
    told, folds, branches, forgotten = [], [()], ["main"], set()
    newest = {"main": 0}
    for place, (kind, number) in enumerate(drawn, start=1):
        branch = branches[number % len(branches)]
        fold, what = folds[newest[branch]], {}
        if kind == "learn":
            fold = (*fold, place)
        elif kind == "rollback":
            what = {"to": number % place}
            fold = folds[number % place]
        elif kind == "forget":
            gone = sorted({1 + number % place, place // 2})
            what = {"of": gone, "files": {}}
            fold = tuple(one for one in fold if one not in gone)
            forgotten |= set(gone)
        elif kind == "branch":
            what = {"name": f"b{place}", "at": number % place}
            branches.append(f"b{place}")
            newest[f"b{place}"] = number % place
        told.append((kind, branch, what))
        folds.append(fold)
        newest[branch] = place
    found = replay(events(*told))
    whole = [version for version, fold in enumerate(folds) if not forgotten & set(fold)]
    assert tuple(found.folds) == tuple(folds)
    assert [version for version in range(len(folds)) if found.whole(version)] == whole
    assert found.reachable == {one for version in whole for one in folds[version]}
    assert found.holding({1, 3}) == [version for version, fold in enumerate(folds) if {1, 3} & set(fold)]


def test_a_history_of_many_events_is_replayed_without_keeping_each_version_whole():
    found = replay(events(*[("learn", "main", {})] * 30_000))
    assert len(found.reachable) == 30_000
    assert found.folds[29_999] == tuple(range(1, 30_000))
    assert found.whole(30_000)


@pytest.mark.parametrize(
    "told", [("rollback", "main", {"to": 9}), ("learn", "nowhere", {}), ("vanish", "main", {}), ("branch", "main", {})]
)
def test_events_that_make_no_sense_are_refused(told):
    with pytest.raises((ValueError, KeyError, IndexError)):
        replay(events(told))


def test_numbers_are_said_in_spans():
    assert spans([]) == ""
    assert spans([3, 4, 9]) == "3 to 4, 9"


# ----------------------------------------------------------------------------------------------------------- rollback


def test_a_rollback_is_exact_and_can_be_undone(three, place):
    one, two, all_three = (weights(three, version) for version in (1, 2, 3))
    assert three.rollback("ann") == 4
    assert (names(three), three.backbone().words) == (["ann"], ["<ann>"])
    assert same(weights(three), one)
    assert three.rollback(2) == 5
    assert same(weights(three), two)
    again = Studio.open(three.folder)
    assert again.rollback("<cyd>") == 6
    assert same(weights(again), all_three)
    assert same(weights(again, 4), one), "an old version has changed its meaning"
    assert again.rollback(0) == 7
    assert names(again) == []
    assert [len(again.entries_at(version)) for version in range(8)] == [0, 1, 2, 3, 1, 2, 3, 0]


def test_learning_goes_on_after_a_rollback_as_if_nothing_had_been(three, place, tmp_path):
    plain = taught(Studio.create(tmp_path / "plain", str(place / "base")), place, "ann", "cyd")
    three.rollback(1)
    taught(three, place, "cyd")
    assert [entry.folder for entry in three.entries] == ["0001-ann", "0005-cyd"]
    assert three.entries[-1].files == plain.entries[-1].files
    assert same(weights(three), weights(plain))
    assert three.rollback(3) == 6
    assert names(three) == ["ann", "bob", "cyd"]
    assert three.entries[-1].version == 3


def test_to_where_it_is_already_nothing_is_written(three):
    before = inside(three.folder)
    assert three.rollback("cyd") == 3
    assert inside(three.folder).keys() - before.keys() <= {".lock"}
    assert ledger.read(three.folder).version == 3


@pytest.mark.parametrize(
    ("to", "error", "said"),
    [
        (4, StudioError, "no version 4"),
        ("-1", StudioError, "no version -1"),
        ("annn", UnknownWordError, "Did you mean 'ann'"),
        ("../ann", UnknownWordError, "no concept '../ann'"),
    ],
)
def test_a_rollback_to_nowhere_is_refused(three, to, error, said):
    with pytest.raises(error, match=said):
        three.rollback(to)
    assert ledger.read(three.folder).version == 3


def test_a_rollback_to_what_is_damaged_is_refused(three):
    three.rollback(1)
    path = three.folder / "concepts" / "0002-bob" / "change.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(LedgerError, match="is damaged"):
        three.rollback(3)
    path.unlink()
    with pytest.raises(LedgerError, match="is gone; concept 'bob' needs it"):
        three.rollback(3)
    assert (names(three), ledger.read(three.folder).version) == (["ann"], 4)


# ------------------------------------------------------------------------------------------------------------- forget


@pytest.mark.parametrize("method", ["textual-inversion", "fine-tune", "c-lora"])
def test_forgetting_folds_the_others_without_it(tmp_path, place, method):
    studio = taught(Studio.create(tmp_path / "studio", str(place / "base")), place, *NAMES, method=method)
    _folded_without_bob(studio)


def test_forgetting_recomputes_what_was_remembered(three, place):
    changes = {
        entry.name: load_file(three.concept_folder(entry) / "change.safetensors")
        for entry in three.entries
        if entry.name != "bob"
    }
    old = three.memory()
    _folded_without_bob(three)
    # What C-LoRA and STAMINA remember is the sum of the recorded changes.
    memory = three.memory()
    assert memory.keys() == old.keys()
    for key, value in memory.items():
        site = key.removeprefix("moved/")
        assert torch.equal(value, changes["ann"][site] + changes["cyd"][site])
        assert not torch.equal(value, old[key])
    taught(three, place, "dan")
    assert names(Studio.open(three.folder)) == ["ann", "cyd", "dan"]


def _folded_without_bob(studio: Studio) -> None:
    bob = studio.entries[1]
    base = weights(studio, 0)
    expected = {name: value.clone() for name, value in base.items()}
    for entry in (studio.entries[0], studio.entries[2]):
        change = load_file(studio.concept_folder(entry) / "change.safetensors")
        for site, value in change.items():
            if site.startswith("unet."):
                expected[site.removeprefix("unet.")] += value
    gone = studio.forget("bob", reason="he asked")
    assert (gone.version, gone.concepts, names(studio)) == (4, (2,), ["ann", "cyd"])
    found = weights(studio)
    assert all(torch.equal(found[name], expected[name]) for name in base if "token_embedding" not in name)
    assert same(weights(Studio.open(studio.folder)), found)
    with pytest.raises(UnknownWordError, match="unknown word <bob>"):
        studio.backbone().draw(["a photo of <bob>"], [0], steps=1)
    assert gone.answer == "the prompt has the unknown word <bob>"
    assert [(effect.name, effect.on_top) for effect in gone.effects] == [("ann", False), ("cyd", True)]
    assert "no encoder is known" in gone.note
    assert "approximation" in gone.approximate
    secrets = [bob.photos[0]["sha256"], bob.photos[0]["file"], "bob", *bob.files.values()]
    assert mentions(studio.folder, *secrets) == []
    assert ledger.read(studio.folder).version == 4
    tombstone = ledger.read(studio.folder).events[-1]
    assert (tombstone.kind, tombstone.what["of"], tombstone.what["reason"]) == ("forget", [2], "he asked")
    assert tombstone.what["name"] == hashlib.sha256(b"bob").hexdigest()
    assert same(weights(studio, 1), weights(Studio.open(studio.folder), 1))
    for version in (2, 3):
        with pytest.raises(StudioError, match=f"version {version} held a concept that was forgotten"):
            studio.rebuilt(version)
    with pytest.raises(StudioError, match="Versions that can: 0 to 1, 4"):
        studio.rollback("cyd")
    with pytest.raises(UnknownWordError, match=r"'bob' was forgotten \(version 4"):
        studio.forget("bob")


def test_forgetting_the_only_one_leaves_the_base(tmp_path, place):
    studio = taught(Studio.create(tmp_path / "studio", str(place / "base")), place, "ann")
    base = weights(studio, 0)
    gone = studio.forget("ann")
    assert same(weights(studio), base)
    assert (gone.effects, gone.approximate, studio.entries, studio.backbone().words) == ((), "", [], [])
    taught(studio, place, "ann")
    assert [entry.folder for entry in studio.entries] == ["0003-ann"]


def test_a_branch_that_is_gone_on_with_is_made_in_one_replacement_of_the_ledger(three):
    replaced = []
    commit, three.commit = three.commit, lambda record: (replaced.append(record.version), commit(record))
    before = three.version
    assert three.create_branch("try", at=1, switch=True) == three.version == before + 2
    assert (three.branch, three.branches["try"]) == ("try", before + 2)
    assert [entry.name for entry in three.entries] == ["ann"]
    assert replaced == [before + 2]


def test_forgetting_reaches_every_branch_and_what_was_rolled_back(three, place):
    three.create_branch("try", at=1)
    three.switch("try")
    taught(three, place, "eve")
    three.create_branch("old", at=2)
    three.rollback("ann")
    assert three.branches == {"main": 4, "try": 8, "old": 2}
    gone = three.forget("ann")
    assert gone.unreachable == ("eve",), "eve was rolled back and stands on ann only"
    assert three.branches == {"main": 9, "old": 10, "try": 11}
    assert [[entry.name for entry in three.entries_at(version)] for version in (9, 10, 11)] == [
        ["bob", "cyd"],
        ["bob"],
        [],
    ]
    assert sorted(path.name for path in (three.folder / "concepts").iterdir()) == ["0002-bob", "0003-cyd"]
    three.switch("main")
    bob, cyd = (load_file(three.concept_folder(entry) / "change.safetensors") for entry in three.entries)
    for key, value in three.memory().items():
        site = key.removeprefix("moved/")
        assert torch.equal(value, bob[site] + cyd[site])
    assert three.switch("old") == 13
    assert same(weights(three), weights(three, 10))


def test_a_concept_of_another_branch_is_forgotten_and_the_model_stays(three):
    three.create_branch("short", at=1)
    three.switch("short")
    before = weights(three)
    gone = three.forget("cyd")
    assert "did not hold it" in gone.note
    assert same(weights(three), before)
    assert mentions(three.folder, "cyd") == []
    three.switch("main")
    assert names(three) == ["ann", "bob"]


def test_pictures_and_scores_go_and_the_others_are_measured(three, place, monkeypatch):
    monkeypatch.setattr(features, "encoder_for", lambda base: (features.Encoder("colours", Colours()), ""))
    shutil.rmtree(three.folder)
    studio = Studio.create(three.folder, str(place / "base"))
    for name in NAMES:
        # At a rate that shows: pictures with and without the forgotten concept must not be the same to the last digit.
        taught(studio, place, name, method="lora", rate=0.3, prior=False)
        after_learning(studio, studio.backbone(), draw=Draw(), report=Report(samples=2, steps=1))
    measured = studio.folder / "measured"
    for head, said in (("aa", "ann"), ("bb", "bob")):
        (measured / head).mkdir(parents=True)
        (measured / head / "column.json").write_text(json.dumps({"cells": {said: {}}}), encoding="utf-8")
    (studio.folder / "report.html").write_text("<p>&lt;bob&gt;</p>", encoding="utf-8")
    (studio.folder / "unfinished" / "bob").mkdir(parents=True)
    (studio.folder / "unfinished" / "bob" / "request.json").write_text("{}", encoding="utf-8")
    (studio.folder / "my-bob.txt").write_text("a person's own file", encoding="utf-8")
    assert len(kept.read(studio.folder)[3]) == 3

    gone = studio.forget("bob")
    assert gone.note == ""
    assert {effect.name for effect in gone.effects} == {"ann", "cyd"}
    assert all(effect.before and effect.after for effect in gone.effects)
    cyd = gone.effects[1]
    assert cyd.before == pytest.approx(1), "it had just been learned"
    assert cyd.after != cyd.before
    drawn = sorted(path.name for path in (studio.folder / "samples").iterdir())
    assert drawn == ["1-ann.png", "ann.png", "cyd.png"]
    left = {path.name for path in measured.iterdir()}
    assert "aa" in left
    assert "bb" not in left
    assert len(left) == 3, "the column of the version that held only ann, and what the base drew, stay too"
    assert mentions(studio.folder, "bob") == ["my-bob.txt"]
    rows = kept.read(studio.folder)
    assert {version: [row.name for row in rows[version]] for version in rows} == {
        1: ["ann"],
        2: ["ann"],
        3: ["ann", "cyd"],
        4: ["ann", "cyd"],
    }
    found = json.loads(stamina("log", studio.folder, "--json").stdout)
    assert [concept["kept"] for concept in found["concepts"]] == [effect.after for effect in gone.effects]


def test_a_memory_that_does_not_follow_from_the_changes_is_not_guessed(three):
    cyd = three.entries[-1]
    path = three.concept_folder(cyd) / "memory.safetensors"
    memory = load_file(path)
    memory[next(iter(memory))] += 1
    files.write_tensors(path, memory, {"concept": "cyd", "word": "<cyd>"})
    body = json.loads((three.folder / ledger.FILE).read_text())
    body["events"][2]["private"]["files"]["memory.safetensors"] = files.sha256(path)
    record = ledger.Ledger(three.record.base, tuple(Event(**event) for event in body["events"][:2]))
    record.after("learn", {}, private=body["events"][2]["private"]).write(three.folder)
    with pytest.raises(StudioError, match="cannot be computed anew"):
        three.forget("bob")
    assert names(Studio.open(three.folder)) == ["ann", "bob", "cyd"]
    assert sorted(path.name for path in three.folder.iterdir()) == [".lock", "concepts", "ledger.json", "unfinished"]


# ------------------------------------------------------------------------------------------------ branches and names


def test_branches_learn_without_touching_each_other(three, place):
    main = weights(three)
    assert (three.branch, three.branches) == ("main", {"main": 3})
    three.create_branch("try", at=2)
    assert (three.branch, three.branches) == ("main", {"main": 4, "try": 2})
    assert three.switch("try") == 5
    taught(three, place, "dan")
    assert (names(three), three.branches) == (["ann", "bob", "dan"], {"main": 4, "try": 6})
    three.switch("main")
    again = Studio.open(three.folder)
    assert (again.branch, names(again)) == ("main", ["ann", "bob", "cyd"])
    assert same(weights(again), main)
    again.delete_branch("try")
    assert again.branches == {"main": 8}
    again.rollback(6)
    assert names(again) == ["ann", "bob", "dan"]


def test_bad_branches_are_refused_and_nothing_is_written(three):
    three.create_branch("try")
    before = inside(three.folder)
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: three.create_branch("TRY"), NameTakenError, "there is a branch 'try' already"),
        (lambda: three.create_branch("main"), NameTakenError, "there is a branch 'main' already"),
        (lambda: three.create_branch("../up"), UnsafeNameError, "cannot be a branch's name"),
        (lambda: three.create_branch("7"), UnsafeNameError, "cannot be a branch's name"),
        (lambda: three.create_branch("new", at=99), StudioError, "no version 99"),
        (lambda: three.switch("tri"), StudioError, "Did you mean 'try'"),
        (lambda: three.delete_branch("tri"), StudioError, "no branch 'tri'"),
        (lambda: three.delete_branch("main"), StudioError, "is the branch you are on"),
        (lambda: three.rename("annn", "Ann"), UnknownWordError, "Did you mean 'ann'"),
        (lambda: three.rename("ann", "a\x1b[31m"), UnsafeNameError, "cannot be shown"),
        (lambda: three.rename("ann", " "), UnsafeNameError, "cannot be shown"),
        (lambda: three.forget("annn"), UnknownWordError, "Did you mean 'ann'"),
    ]
    for call, error, said in cases:
        with pytest.raises(error, match=said):
            call()
    assert inside(three.folder) == before


def test_a_rename_changes_what_is_shown_and_goes_with_its_concept(three):
    three.rename("bob", "Robert the Bruce")
    again = Studio.open(three.folder)
    assert [entry.title for entry in again.entries] == ["ann", "Robert the Bruce", "cyd"]
    assert again.backbone().words == ["<ann>", "<bob>", "<cyd>"]
    assert again.rename("bob", "Robert the Bruce") == 4, "the same again is nothing new"
    again.forget("bob")
    assert mentions(again.folder, "Robert", "Bruce") == []
    assert ledger.read(again.folder).version == 5


def test_consent_and_licence_stay_with_the_concept_and_go_with_it(three):
    assert [(entry.consent, entry.licence) for entry in three.entries][1] == ("bob said yes", "CC0")
    three.forget("bob")
    assert mentions(three.folder, "bob said yes") == []
    assert three.entries[-1].consent == "cyd said yes"


def test_a_second_writer_is_refused_by_everything(three):
    calls = [
        lambda: three.rollback(1),
        lambda: three.forget("ann"),
        lambda: three.rename("ann", "Ann"),
        lambda: three.create_branch("try"),
        lambda: three.switch("main"),
        lambda: three.delete_branch("main"),
    ]
    with FileLock(three.folder / ".lock"):
        for call in calls:
            with pytest.raises(StudioLockedError, match="another process"):
                call()


# ------------------------------------------------------------------------------------------------------------- ledger


def as_format_1(folder: Path) -> list[dict[str, Any]]:
    """Write a studio's ledger as the first version of the program did; the answer is its concepts."""
    record = ledger.read(folder)
    concepts, previous = [], record.base.hash
    for event in record.events:
        assert event.private
        private = {key: value for key, value in event.private.items() if key not in ("consent", "licence")}
        lasting = {k: private[k] for k in ("name", "word", "class_word", "method", "settings", "plan", "files")}
        lasting |= {"version": event.version, "photos": [photo["sha256"] for photo in private["photos"]]}
        text = json.dumps(lasting, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
        concepts.append(private | {"version": event.version, "hash": previous})
    _write_format_1(folder, record.base.record(), concepts)
    return concepts


def _write_format_1(folder: Path, base: dict[str, Any], concepts: list[dict[str, Any]]) -> None:
    body = {"format": 1, "base": base, "concepts": concepts}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    body["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / ledger.FILE).write_text(json.dumps(body), encoding="utf-8")


def test_a_ledger_of_format_1_is_read_and_then_written_as_2(three, place):
    before = weights(three)
    concepts = as_format_1(three.folder)
    old = Studio.open(three.folder)
    assert (old.version, names(old), old.branch) == (3, list(NAMES), "main")
    assert same(weights(old), before)
    assert old.entries[0].consent is None
    assert json.loads((three.folder / ledger.FILE).read_text())["format"] == 1, "reading writes nothing"
    taught(old, place, "dan")
    assert json.loads((three.folder / ledger.FILE).read_text())["format"] == 2
    assert [entry.version for entry in Studio.open(three.folder).entries] == [1, 2, 3, 4]

    concepts[1]["method"] = "lora"
    _write_format_1(three.folder, old.base, concepts)
    with pytest.raises(LedgerError, match=r"concept 2 \(bob\) does not fit its hash"):
        Studio.open(three.folder)


def test_what_is_blanked_without_being_forgotten_is_found(three):
    three.record.blanked(frozenset({2})).write(three.folder)
    with pytest.raises(LedgerError, match="has lost its concept"):
        Studio.open(three.folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda events: events[1]["private"].update(method="lora"), "event 2 .learn bob. does not fit its hash"),
        (lambda events: events[3]["what"].update(to=2), "event 4 .rollback. does not fit its hash"),
        (lambda events: events.pop(0), "event 1 says that it is version 2|does not fit its hash"),
        (lambda events: events[0].pop("kind"), "is damaged"),
    ],
)
def test_a_changed_event_is_named_though_the_checksum_fits(three, spoil, said):
    three.rollback(1)
    path = three.folder / ledger.FILE
    body = json.loads(path.read_text())
    spoil(body["events"])
    body["checksum"] = ledger._checksum({key: value for key, value in body.items() if key != "checksum"})
    path.write_text(json.dumps(body))
    with pytest.raises(LedgerError, match=said):
        Studio.open(three.folder)


@pytest.mark.parametrize("file", ["../../victim", "/etc/passwd", "a.bin"])
def test_files_that_lead_out_of_the_studio_are_refused(three, file):
    private = dict(three.record.events[0].private or {})
    ledger.Ledger(three.record.base).after("learn", {}, private=private | {"files": {file: "00"}}).write(three.folder)
    with pytest.raises(LedgerError, match="a name that is no name"):
        Studio.open(three.folder)


# -------------------------------------------------------------------------------------------------------------- kills


def killed(folder: Path, act: Callable[[Studio], object], operation: int) -> bool:
    """Act in a process that is killed before its n-th change of a folder; False if it came to its end."""
    child = os.fork()
    if child == 0:
        left = operation

        def counted(change: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*args, **kwargs)

            return call

        try:
            studio = Studio.open(folder)
            for name in ("replace", "unlink", "rmdir"):
                setattr(os, name, counted(getattr(os, name)))
            act(studio)
        except BaseException as error:
            print(f"child: {error!r}")
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_change_forgetting_is_whole_or_not_at_all(three, tmp_path):
    torch.set_num_threads(1)
    after_learning(three, three.backbone(), draw=Draw(), report=Report(samples=1, steps=1))
    old = weights(three)
    start = shutil.copytree(three.folder, tmp_path / "start")
    three.forget("bob")
    new = weights(three)
    expected = inside(three.folder)
    outcomes: list[int] = []
    for operation in range(1, 40):
        studio = Path(shutil.copytree(start, tmp_path / f"{operation}"))
        if not killed(studio, lambda studio: studio.forget("bob"), operation):
            break
        found = Studio.open(studio)
        outcomes.append(found.version)
        assert found.version in (3, 4)
        assert same(weights(found), old if found.version == 3 else new)
        assert found.memory()
        with found.writing():  # whoever writes next sweeps
            pass
        if found.version == 4:
            assert mentions(studio, "bob") == []
            assert inside(studio).keys() == expected.keys()
        else:
            assert inside(studio).keys() - {".lock"} == inside(Path(start)).keys() - {".lock"}
            found.forget("bob")
            assert same(weights(found), new)
    assert outcomes == sorted(outcomes)
    assert {3, 4} == set(outcomes)
    assert len(outcomes) > 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_change_a_rollback_is_whole_or_not_at_all(three, tmp_path):
    for operation in range(1, 9):
        studio = Path(shutil.copytree(three.folder, tmp_path / f"{operation}"))
        if not killed(studio, lambda studio: studio.rollback(1), operation):
            break
        assert Studio.open(studio).version == 3
    assert operation == 2
    assert names(Studio.open(studio)) == ["ann"]


# ------------------------------------------------------------------------------------------------------- command line


def test_the_verbs_say_what_they_did(three, tmp_path):
    folder = three.folder
    ran = stamina("rollback", folder, "--to", "ann")
    assert ran.code == 0
    assert ran.stdout.splitlines()[0] == "The model is as it was: version 4 holds <ann>."
    assert "--to 3" in ran.stdout
    assert stamina("rollback", folder, "--to", 3).code == 0
    assert "Nothing to do" in stamina("rollback", folder, "--to", "cyd").stdout
    assert "shown as 'Robert': version 6" in stamina("rename", folder, "bob", "Robert").stdout
    assert "Branch try begins at version 2" in stamina("branch", folder, "try", "--at", 2).stdout
    assert "version 8 holds <ann>, <bob>" in stamina("branch", folder, "try", "--switch").stdout
    assert stamina("branch", folder).stdout.splitlines() == [
        "  main  version 7  <ann> <bob> <cyd>",
        "* try  version 8  <ann> <bob>",
    ]
    ran = stamina("forget", folder, "ann", "--yes", "--reason", "she asked")
    assert ran.code == 0, ran.stderr
    assert "<ann> is forgotten: version 10 holds <bob>." in ran.stdout
    assert "unknown word <ann>" in ran.stdout
    assert "approximation" in ran.stdout
    ran = stamina("log", folder)
    assert "branch try" in ran.stdout
    assert "<bob> (Robert)" in ran.stdout
    assert "forgot what was learned at 1: she asked" in ran.stdout
    assert "<ann>" not in ran.stdout
    found = json.loads(stamina("log", folder, "--json").stdout)
    assert (found["version"], found["branch"], found["branches"]) == (10, "try", {"main": 9, "try": 10})
    kinds = ["rollback", "rollback", "rename", "branch", "switch", "forget", "forget"]
    assert [event["kind"] for event in found["history"]][3:] == kinds
    assert [(concept["name"], concept["shown"], concept["consent"]) for concept in found["concepts"]] == [
        ("bob", "Robert", "bob said yes")
    ]
    assert stamina("branch", folder, "main", "--switch").code == 0
    assert "Branch try is deleted" in stamina("branch", folder, "try", "--delete").stdout


def test_consent_and_licence_from_the_command_line(three, place, tmp_path):
    preset = tmp_path / "tiny.toml"
    preset.write_text("version = 1\n[plan]\nsteps = 1\nbatch = 1\nprior_images = 0\n", encoding="utf-8")
    arguments = ["learn", three.folder, place / "ann", "--name", "dan", "--preset", preset, "--no-report"]
    assert stamina(*arguments, "--consent", "Dan, by mail", "--licence", "CC BY").code == 0
    concept = json.loads(stamina("log", three.folder, "--json").stdout)["concepts"][-1]
    assert (concept["name"], concept["consent"], concept["licence"]) == ("dan", "Dan, by mail", "CC BY")


def test_mistakes_at_the_command_line_are_answered_and_write_nothing(three, tmp_path):
    folder = three.folder
    assert stamina("branch", folder, "try").code == 0
    before = inside(folder)
    cases = [
        (["forget", folder, "bob"], "nobody is here to be asked", "say --yes"),
        (["forget", folder, "bobb", "--yes"], "no concept 'bobb'", "Did you mean 'bob'?"),
        (["rollback", folder, "--to", "bobb"], "no concept 'bobb'", "Did you mean 'bob'?"),
        (["rollback", folder, "--to", "77"], "no version 77", "0 to 4"),
        (["rename", folder, "cid", "Cyd"], "no concept 'cid'", "Did you mean 'cyd'?"),
        (["branch", folder, "try"], "there is a branch 'try' already"),
        (["branch", folder, "a b"], "'a b' cannot be a branch's name"),
        (["branch", folder, "new", "--at", "55"], "no version 55"),
        (["branch", folder, "tri", "--delete"], "no branch 'tri'", "Did you mean 'try'?"),
        (["branch", folder, "main", "--delete"], "is the branch you are on"),
        (["rollback", tmp_path, "--to", "1"], "is not a studio"),
        (["branch", tmp_path], "is not a studio"),
    ]
    for arguments, *said in cases:
        refused(stamina(*arguments), *said)
    assert stamina("branch", folder, "--switch").code == 2
    assert stamina("branch", folder, "try", "--delete", "--switch").code == 2
    with FileLock(folder / ".lock"):
        refused(stamina("rollback", folder, "--to", "1"), "another process")
    assert inside(folder) == before


def test_the_curves_of_a_forgotten_concept_go_too(three: Studio) -> None:
    for folder in ("0001-ann", "0002-bob"):
        (three.folder / "logs" / folder).mkdir(parents=True)
        (three.folder / "logs" / folder / "events.out.tfevents.1").write_bytes(b"x")
    three.forget("bob")
    assert [path.name for path in (three.folder / "logs").iterdir()] == ["0001-ann"]
