"""What does the web studio look like? Pictures of every tab, on a desk and on a phone, from a studio that is at work.

    python benchmarks/ui/screenshots.py [--studio DIR] [--out docs/images] [--dark]

Teaches three concepts of the procedural world to the embedded base (or takes a studio that has them), begins to teach
a fourth in the browser, and photographs each tab at 1280 and at 390 pixels. Needs the extra `ui`, playwright, chromium.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from stamina_diffusion import demo

PATIENCE = 600_000
Look = tuple[str, Literal["light", "dark"], tuple[int, int]]
"""Its name, the colours that the visitor's system asks for, and the window's width and height."""
LOOKS: tuple[Look, ...] = (("desktop", "light", (1280, 860)), ("phone", "light", (390, 844)))
DARK: Look = ("dark", "dark", (1280, 860))
LARGEST = 200_000
"""Bytes of one picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studio", type=Path, help="a studio of the embedded base that knows <ruby> and <span>")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--steps", type=int, default=100, help="of each concept that is taught")
    parser.add_argument("--dark", action="store_true", help="the desk as it looks in the dark as well")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        photos = {story.name: demo.photograph(story, place / "photos", 64) for story in demo.STORIES}
        studio = place / "my-studio"
        if given.studio:
            shutil.copytree(given.studio, studio)
        else:
            prepare(studio, photos, given.steps)
        with served(studio) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            visit(
                page,
                photos["otto"],
                partial(shoot, page, (*LOOKS, DARK) if given.dark else LOOKS, given.out),
                given.steps,
            )
            browser.close()


def prepare(studio: Path, photos: dict[str, Path], steps: int) -> None:
    """A studio that has learned three concepts."""
    stamina("init", studio)
    for story in demo.STORIES:
        if story.name != "otto":
            kind = story.thing.class_word
            stamina("learn", studio, photos[story.name], "--name", story.name, "--class", kind, "--steps", steps)


def stamina(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "stamina_diffusion", *map(str, arguments)], check=True)


@contextmanager
def served(studio: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "stamina_diffusion", "ui", str(studio), "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{port}/"
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


def visit(page: Page, photos: Path, shoot: Callable[[str], None], steps: int) -> None:
    """Use every tab as a person would, and photograph each."""
    page.locator(".st-top").wait_for()
    tab(page, "Draw")
    page.locator("#st-prompt textarea").fill("a photo of <ruby> smiling on a blue background")
    page.get_by_label("Beside an earlier version").click()
    page.get_by_role("option", name="version 1, after <ruby>").click()
    page.locator("#st-draw").click()
    page.wait_for_function("document.querySelectorAll('#st-before img').length >= 4")
    shoot("draw")
    tab(page, "Concepts")
    shoot("concepts")
    page.get_by_role("button", name="Remove span").click()
    page.get_by_text("Yes, remove <span>").wait_for()
    shoot("remove")
    page.locator("#st-no").click()
    tab(page, "Report")
    if not page.locator("iframe.st-frame").count():  # a studio that was given may have its report
        page.locator("#st-write").click()
    page.frame_locator("iframe.st-frame").get_by_text("What is still known").first.wait_for()
    shoot("report")
    tab(page, "Export")
    page.locator("#st-make").click()
    page.get_by_text("is ready").wait_for()
    shoot("export")
    tab(page, "Teach")
    page.locator("#st-drop input[type=file]").set_input_files(sorted(map(str, photos.glob("*.png"))))
    page.locator(".st-tray").wait_for()
    page.locator("#st-name input").fill("otto")
    page.get_by_role("button", name="More settings").first.click()
    page.get_by_label("Steps", exact=True).fill(str(steps))
    page.get_by_role("button", name="More settings").first.click()
    page.locator("#st-teach").click()
    page.locator("#st-lesson figcaption").nth(1).wait_for()
    shoot("teach")
    page.get_by_role("button", name="Stop teaching").click()
    page.get_by_text("Stopped. The studio is as it was.").wait_for()


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def shoot(page: Page, looks: Sequence[Look], out: Path, name: str) -> None:
    """What is on the page now, in every look."""
    for kind, scheme, (width, height) in looks:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(1500)  # layout and fonts settle
        save(page, out / f"ui-{name}-{kind}.png")
    page.emulate_media(color_scheme="light")


def save(page: Page, path: Path) -> None:
    """The whole page, at most three screens high, in few enough colours to be small."""
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as shot:
        shot = shot.convert("RGB").crop((0, 0, shot.width, min(shot.height, 2200)))
        for colours in (256, 128, 64):
            shot.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
            if path.stat().st_size < LARGEST:
                return


if __name__ == "__main__":
    main()
