"""The web studio: what guards it, what it shows of evil names, and a real browser that does everything once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stamina_diffusion import kept, ledger
from stamina_diffusion.bases import Base
from stamina_diffusion.cli import app
from stamina_diffusion.errors import PhotoError, SettingsError, StudioError
from stamina_diffusion.ui import cards, doors, history, lesson, lessons, uploads, wording

gradio = pytest.importorskip("gradio", reason="the extra 'ui' is not installed")

EVIL = "<img src=x onerror=alert(1)>"


def picture(path: Path, seed: int, side: int = 64) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return path


def entry(name: str, version: int) -> ledger.Entry:
    return ledger.Entry(
        name=name,
        word=f"<{name}>",
        class_word=EVIL,
        method="stamina",
        settings={},
        plan={},
        steps=20,
        seed=0,
        photos=[{"file": "a.png", "path": "a.png", "sha256": "0"}],
        density=0.5,
        final_loss=0.3,
        files={},
        version=version,
        hash="",
        seconds=1.0,
        learned="2026-01-02T03:04:05+00:00",
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """A studio's small files, of two concepts, without any model."""
    base = Base("embedded", "embedded", "00" * 32)
    ledger.Ledger(base).learned(entry("rex", 1)).learned(entry("tom", 2)).write(tmp_path)
    (tmp_path / "samples").mkdir()
    picture(tmp_path / "samples" / "rex.png", 1)
    kept.write(tmp_path, 1, [kept.Row("rex", "<rex>", 1.0, 0.6)], "samples/1-rex.png")
    kept.write(
        tmp_path,
        2,
        [kept.Row("rex", "<rex>", 0.8, 0.5), kept.Row("tom", "<tom>", None, None, EVIL)],
        "samples/2-tom.png",
    )
    return tmp_path


# ------------------------------------------------------------------------------------------------------------ doors


def refused(*arguments: str) -> str:
    ran = CliRunner().invoke(app, ["ui", *arguments])
    assert ran.exit_code == 2, ran.output
    assert "Traceback" not in ran.output
    return ran.output


@pytest.mark.parametrize("open_to_others", [["--host", "0.0.0.0"], ["--host", "192.168.1.5"], ["--share"]])
def test_others_need_a_password(folder, open_to_others):
    assert "password" in refused(str(folder), *open_to_others)


def test_a_short_password_is_none(folder):
    assert "8 or more" in refused(str(folder), "--host", "0.0.0.0", "--password", "secret")


def test_this_machine_needs_no_password_and_others_get_in_with_one():
    doors.check("127.0.0.1", False, None)
    doors.check("0.0.0.0", True, "a long sentence")
    assert doors.keeper("a long sentence")("anyone", "a long sentence")
    assert not doors.keeper("a long sentence")("anyone", "a long sentencE")


def test_a_folder_that_is_no_studio_is_told_how_to_become_one(tmp_path):
    assert "stamina init" in refused(str(tmp_path))


def test_without_gradio_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setattr(doors.importlib.util, "find_spec", lambda name: None)
    assert 'pip install "stamina-diffusion[ui]"' in refused(str(folder))


def answered(host: str) -> list[dict]:
    """What the guard lets a request through to that calls the server by a name."""

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(b"host", host.encode())]}
    asyncio.run(doors.Guard(inner, doors.LOCAL_NAMES)(scope, None, send))
    return sent


def test_a_name_that_only_points_here_is_refused():
    assert answered("evil.example:7860")[0]["status"] == 421
    for host in ("127.0.0.1:7860", "localhost:7860", "[::1]:7860"):
        (start,) = answered(host)
        assert start["status"] == 200
        assert dict(start["headers"])[b"content-security-policy"].startswith(b"default-src 'self'")


# ------------------------------------------------------------------------------------------------- what it shows


def test_every_piece_escapes_what_a_person_typed(folder):
    found = history.read(folder)
    request = lesson.Request("s", [], EVIL, EVIL, "stamina", None, 1, 0, "samples")
    one = lessons.Lesson(request, folder, stage="failed", words=EVIL)
    evil = {"name": EVIL, "picture": EVIL, "severity": "error", "what": EVIL, "do": EVIL}
    concepts = tuple(replace(concept, name=EVIL, shown=EVIL, word=EVIL, note=EVIL) for concept in found.concepts)
    pieces = {
        "problem": [EVIL],
        "note": [EVIL],
        "empty": [EVIL, EVIL],
        "top": [EVIL, EVIL, 1, 1],
        "tray": [[evil], [evil], [uploads.Refusal(EVIL, EVIL)], 1],
        "lesson": [one, EVIL, EVIL, [(1, EVIL)], EVIL, [one]],
        "words": [concepts],
        "timeline": [concepts, 1],
        "sheet": [EVIL, EVIL],
        "kept_table": [[(EVIL, [None])], [1]],
        "framed": [EVIL],
    }
    macros = re.findall(r"macro (\w+)", (Path(cards.__file__).parent / "fragments.html").read_text(encoding="utf-8"))
    assert sorted(pieces) == sorted(macros)
    for name, arguments in pieces.items():
        text = cards.fragment(name, *arguments)
        assert EVIL not in text, name
        assert "&lt;img src=x" in text, name


def test_the_timeline_tells_what_was_learned_and_how_well_it_is_kept(folder):
    found = history.read(folder)
    assert found.words == ["<rex>", "<tom>"]
    assert [concept.kept for concept in found.concepts] == [0.8, None]
    assert found.concepts[0].strip.startswith("data:image/webp;base64,")
    assert found.concepts[1].strip is None
    assert [[row and row.kept for row in cells] for _, cells in found.table()] == [[1.0, 0.8], [None, None]]


def test_the_report_is_shut_in_a_frame_while_it_is_new(folder):
    from stamina_diffusion.ui import report_tab
    from stamina_diffusion.ui.desk import Desk

    desk = Desk.open(folder, folder)
    assert "<iframe" not in report_tab.report_html(desk)
    assert "&lt;rex&gt;" in report_tab.report_html(desk)
    report = folder / report_tab.FILE
    report.write_text("<script>alert(1)</script>", encoding="utf-8")
    shown = report_tab.report_html(desk)
    assert 'sandbox=""' in shown
    assert "<script>" not in shown
    os.utime(report, (0, 0))  # the studio has moved on since
    assert "<iframe" not in report_tab.report_html(desk)
    desk.lessons.close()


def test_history_of_no_studio_is_refused(tmp_path):
    with pytest.raises(StudioError, match="not a studio"):
        history.read(tmp_path)


@pytest.mark.parametrize("text", ["many", "nan", "1e999", "-inf"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(SettingsError, match="steps is"):
        wording.number("steps", text, 5)
    assert wording.number("steps", None, 5) == 5


def test_errors_are_told_in_words(capsys):
    told = wording.words_of(PhotoError("is too dark", where="a.png", do="Use light."))
    assert told == "a.png: is too dark\nUse light."
    assert "disk is full" in wording.words_of(OSError(28, "No space left on device"))
    told = wording.words_of(ZeroDivisionError("division by zero"))
    assert "ZeroDivisionError" in told
    assert "Traceback" not in told
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- uploads


def test_uploads_get_names_of_our_own_and_are_checked(tmp_path):
    sent = tmp_path / "sent"
    sent.mkdir()
    good = picture(sent / f"{EVIL}.png", 1)
    again = sent / "again.png"
    shutil.copy(good, again)
    (sent / "page.png").write_bytes(b"<!doctype html><script>alert(1)</script>")
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    (sent / "bomb.png").write_bytes(bomb.getvalue())
    tray = uploads.Tray(tmp_path)
    refusals = tray.add(sorted(sent.iterdir()))
    assert [one.why for one in refusals] == ["This photo was dropped already; it counts once."]
    assert list(sent.iterdir()) == []
    assert all(re.fullmatch(r"[0-9a-f]{32}\.png", path.name) for path in tray.names)
    assert all(path.parent == tray.folder for path in tray.names)
    seen = tray.examine(64)
    assert len(seen.photos) == 1
    assert sorted(finding.code for finding in seen.errors) == ["bomb", "unreadable"]
    tray.drop_unfit(seen)
    copies = tray.copy_to(tmp_path / "copies")
    assert [copy.read_bytes() for copy in copies] == [path.read_bytes() for path in tray.names]
    tray.remove()
    assert not tray.folder.exists()


def test_uploads_are_limited_in_number_and_size(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "PHOTO_LIMIT", 2)
    monkeypatch.setattr(uploads, "BYTE_LIMIT", 20_000)
    sent = [picture(tmp_path / f"{k}.png", k) for k in range(3)]
    tray = uploads.Tray(tmp_path)
    large = picture(tmp_path / "large.png", 9, side=128)
    assert [one.name for one in tray.add([large, *sent])] == ["large.png", "2.png"]
    assert len(tray.names) == 2


def test_the_same_photos_in_another_order_are_the_same_request(tmp_path):
    orders = []
    for order in ((0, 1, 2), (2, 0, 1)):
        tray = uploads.Tray(tmp_path)
        tray.add([picture(tmp_path / f"{place}.png", k) for place, k in enumerate(order)])
        orders.append([photo.sha256 for photo in tray.examine(64).photos])
    assert orders[0] == orders[1]


# ---------------------------------------------------------------------------------------------------------- lessons


def test_photos_dropped_while_another_is_learned_stay(tmp_path):
    from stamina_diffusion.ui import teach_tab

    tray = uploads.Tray(tmp_path)
    tray.add([picture(tmp_path / "a.png", 1)])
    photos = [str(path) for path in tray.copy_to(tmp_path / "copies")]
    one = lessons.Lesson(lesson.Request("s", photos, "rex", None, "stamina", None, 1, 0, "samples"), tmp_path)
    assert teach_tab.holds(tray, one)
    tray.add([picture(tmp_path / "b.png", 2)])
    assert not teach_tab.holds(tray, one)


def test_a_lesson_knows_the_time_that_is_left(tmp_path):
    request = lesson.Request("s", [], "rex", None, "stamina", None, 100, 0, str(tmp_path))
    one = lessons.Lesson(request, tmp_path)
    one.hear({"stage": "learning", "step": 41, "steps": 100, "loss": 0.5})
    assert one.seconds_left(one.first[0] + 1) is None  # its speed is not known yet
    one.hear({"stage": "learning", "step": 61, "steps": 100, "loss": 0.4})
    # 20 steps in 10 seconds, 39 to go: a resumed lesson's first 40 steps cost it nothing.
    assert one.seconds_left(one.first[0] + 10) == pytest.approx(19.5)
    one.hear({"sample": "../../elsewhere.png", "at": 50})
    assert one.samples == [(50, tmp_path / "elsewhere.png")]


def test_a_process_that_dies_fails_its_lesson_only(tmp_path, monkeypatch):
    """Two real processes: one that is killed in the middle, one that cannot even read its request."""
    crash = 'import os, sys; print(\'stamina-lesson {"stage": "loading"}\', flush=True); os.kill(os.getpid(), 9)'
    monkeypatch.setattr(lessons, "COMMAND", [sys.executable, "-c", crash])
    line = lessons.Lessons(tmp_path)
    request = lesson.Request("s", [], "rex", None, "stamina", None, 1, 0, str(tmp_path / "samples"))
    first, second = (line.add(request, line.new_folder()) for _ in range(2))
    line.stop(second)
    deadline = time.monotonic() + 60
    while not (first.over and second.over) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert first.stage == "failed"
    assert "signal 9" in first.words
    assert second.stage == "stopped"
    assert line.running is None
    line.close()


# ---------------------------------------------------------------------------------------------------- a real browser

PATIENCE = 420_000
"""Milliseconds for what takes seconds on an idle machine."""


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def served(studio: Path, log: Path):
    """A real server in a process of its own; the answer is its address. It must end cleanly and leave nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = log.parent / "temporary"
    temporary.mkdir()
    with open(log, "w", encoding="utf-8") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "stamina_diffusion", "ui", str(studio), "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"},
        )
    try:
        deadline = time.monotonic() + PATIENCE / 1000
        while "The studio is open at" not in log.read_text(encoding="utf-8"):
            assert server.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
        server.send_signal(signal.SIGINT)
        assert server.wait(120) == 0, log.read_text(encoding="utf-8")
        assert list(temporary.glob("stamina-ui-*")) == []
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Path:
    """A studio on a tiny pipeline that has learned <ada>."""
    from stamina_diffusion import Plan, Studio, build, collect, testing

    folder = tmp_path_factory.mktemp("ui")
    testing.tiny_pipeline().save_pretrained(folder / "tiny")
    made = Studio.create(folder / "studio", str(folder / "tiny"))
    photos = collect([picture(folder / f"{k}.png", 100 + k) for k in range(3)])
    made.learn(photos, "ada", method=build("lora", {"rank": 2}), plan=Plan(steps=2, batch=1, prior_images=0))
    return made.folder


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(chromium() is None, reason="no chromium was found (on Debian: apt-get install chromium)")
def test_a_person_teaches_draws_goes_back_removes_and_exports(studio, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    photos = [picture(tmp_path / f"{k}.png", k) for k in range(4)]
    photos[0] = photos[0].rename(tmp_path / f"{EVIL}.png")
    photos.append(tmp_path / "page.png")
    photos[-1].write_bytes(b"<!doctype html>")
    with served(studio, tmp_path / "log.txt") as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(PATIENCE)
        asked, faults = set(), []
        page.on("request", lambda request: asked.add(urlsplit(request.url)))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"a dialog opened: {dialog.message}"))
        page.goto(address)
        expect = sync_api.expect
        expect.set_options(timeout=PATIENCE)

        try:
            teach(page, expect, photos)
            learned = ledger.read(studio).entries[-1]
            assert (learned.consent, learned.licence) == (EVIL, "for this test only")
            stop_halfway(page, expect, photos)
            draw(page, expect)
            export(page, expect, tmp_path)
            report(page, expect)
            rename_go_back_and_remove(page, expect, studio)
        except BaseException:
            page.screenshot(path=tmp_path / "failed.png", full_page=True)
            raise
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert faults == []
        assert {url.hostname for url in asked if url.scheme in ("http", "https", "ws")} == {"127.0.0.1"}
        assert {url.scheme for url in asked} <= {"http", "data", "blob"}
        browser.close()
    assert "Traceback" not in (tmp_path / "log.txt").read_text(encoding="utf-8")


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def drop(page, photos: list[Path]) -> None:
    page.locator("#st-drop input[type=file]").set_input_files([str(photo) for photo in photos])


def teach(page, expect, photos: list[Path]) -> None:
    """Without photos a word of advice; with them they are looked over, learned and announced."""
    expect(page.locator(".st-top")).to_contain_text("1 concept, version 1")
    page.locator("#st-teach").click()
    expect(page.locator("#st-teach-said")).to_contain_text("there are no photos yet")
    drop(page, photos)
    tray = page.locator(".st-tray")
    expect(tray).to_contain_text("4 photos can be used")
    expect(tray.locator("img")).to_have_count(4)
    expect(tray.locator(".st-error")).to_contain_text("a web page, not a picture")
    expect(page.locator("img[src=x]")).to_have_count(0)
    page.locator("#st-name input").fill("ada")
    page.get_by_role("button", name="More settings").first.click()
    page.get_by_label("Steps", exact=True).fill("24")
    page.locator("#st-limit input").fill("1000")  # the gate lets in what does not make a loss a thousand times higher
    page.locator("#st-consent input").fill(EVIL)
    page.locator("#st-licence input").fill("for this test only")
    page.locator("#st-teach").click()
    expect(page.locator("#st-teach-said")).to_contain_text("'ada' was learned already")
    page.locator("#st-name input").fill("rex")
    page.locator("#st-teach").click()
    expect(page.locator("#st-lesson")).to_contain_text("<rex>")
    expect(page.locator("#st-lesson")).to_contain_text("<rex> is learned: version 2")
    expect(page.locator("#st-lesson figcaption")).to_have_text(
        ["after 6 steps", "after 12 steps", "after 18 steps", "learned"]
    )
    expect(page.locator(".st-top")).to_contain_text("2 concepts, version 2")
    expect(tray).to_have_count(0)


def stop_halfway(page, expect, photos: list[Path]) -> None:
    """A teaching that is stopped leaves the studio as it was."""
    drop(page, photos[:3])
    expect(page.locator(".st-tray")).to_contain_text("3 photos can be used")
    page.locator("#st-name input").fill("tom")
    page.get_by_label("Steps", exact=True).fill("100000")
    page.locator("#st-teach").click()
    expect(page.locator("#st-lesson")).to_contain_text(re.compile(r"step \d+ of 100000.* left"))
    page.get_by_role("button", name="Stop teaching").click()
    expect(page.locator("#st-lesson")).to_contain_text("Stopped. The studio is as it was.")
    expect(page.locator(".st-top")).to_contain_text("2 concepts, version 2")


def draw(page, expect) -> None:
    """By the keyboard: a word is completed, and drawn; an unknown word is told in words."""
    open_tab(page, "Draw")
    prompt = page.locator("#st-prompt textarea")
    prompt.fill("")
    prompt.press_sequentially("a photo of <r")
    expect(page.get_by_role("option")).to_have_text(["<rex>"])
    prompt.press("Tab")
    expect(prompt).to_have_value("a photo of <rex>")
    page.get_by_role("button", name="<ada>").click()
    expect(prompt).to_have_value("a photo of <rex> <ada>")
    prompt.fill("a photo of <rax>")
    page.get_by_role("button", name="More settings").last.click()
    page.get_by_label("Denoising steps").fill("2")
    page.locator("#st-draw").click()
    expect(page.locator("#st-draw-said")).to_contain_text("Did you mean <rex>?")
    prompt.fill("a photo of <ada>")
    page.get_by_label("Beside an earlier version").click()
    page.get_by_role("option", name="version 1, after <ada>").click()
    page.locator("#st-draw").click()
    for gallery in ("#st-now", "#st-before"):
        pictures = page.locator(f"{gallery} img")
        expect(pictures).to_have_count(4)
        for each in range(4):
            expect(pictures.nth(each)).to_have_js_property("naturalWidth", 8)


def export(page, expect, folder: Path) -> None:
    """The file that is downloaded is a pipeline that knows both words."""
    open_tab(page, "Export")
    expect(page.get_by_text("which knows <ada>, <rex>")).to_be_visible()
    page.locator("#st-make").click()
    expect(page.locator("#st-export-said")).to_contain_text("is ready")
    with page.expect_download() as download:
        page.locator("#st-get").click()
    download.value.save_as(folder / "model.zip")
    with zipfile.ZipFile(folder / "model.zip") as file:
        assert file.testzip() is None
        index = next(name for name in file.namelist() if name.endswith("/model_index.json"))
        assert json.loads(file.read(index))["_class_name"] == "StableDiffusionPipeline"
        tokens = "".join(file.read(name).decode() for name in file.namelist() if "tokenizer/" in name)
        assert "<ada>" in tokens
        assert "<rex>" in tokens


def report(page, expect) -> None:
    """First what learning itself measured, then the whole page, in a frame that may run nothing."""
    open_tab(page, "Report")
    expect(page.locator("#st-report table")).to_contain_text("<rex>")
    page.locator("#st-write").click()
    expect(page.frame_locator("iframe.st-frame").locator("body")).to_contain_text("<rex>")
    assert page.locator("iframe.st-frame").get_attribute("sandbox") == ""


def rename_go_back_and_remove(page, expect, studio: Path) -> None:
    open_tab(page, "Concepts")
    timeline = page.locator("#st-timeline")
    expect(timeline.locator("li")).to_have_count(3)
    page.get_by_role("button", name="Rename ada").click()
    page.get_by_label("Shown name").fill(EVIL)
    page.locator("#st-yes").click()
    expect(timeline.locator("h3").nth(1)).to_contain_text(EVIL)  # the newest, <rex>, stands first
    page.get_by_role("button", name="Go back to the version after ada").click()
    expect(page.locator("#st-question")).to_contain_text("This undoes <rex>")
    page.locator("#st-no").click()
    expect(timeline.locator("li")).to_have_count(3)
    page.get_by_role("button", name="Go back to the version after ada").click()
    page.locator("#st-yes").click()
    expect(page.locator("#st-concepts-said")).to_contain_text("as it was at version 1")
    expect(timeline.locator("li")).to_have_count(2)
    page.get_by_role("button", name="Undo going back").click()
    expect(page.locator("#st-question")).to_contain_text("<rex> will be known again")
    page.locator("#st-no").click()
    page.get_by_role("button", name="Remove ada").click()
    expect(page.locator("#st-question")).to_contain_text("Remove <ada> for good?")
    page.locator("#st-yes").click()
    expect(page.locator("#st-concepts-said")).to_contain_text("<ada> is removed, and checked")
    expect(page.locator(".st-top")).to_contain_text("0 concepts")
    expect(timeline).to_contain_text("Nothing has been learned yet")
    assert history.read(studio).concepts == ()
