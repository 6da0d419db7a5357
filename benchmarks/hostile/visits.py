"""What a hostile visitor does with the web page, and what came of it: bad input of every kind, and raw requests.

All routes share one server, as all visitors do; after each it must still serve, and the studio must be as it was.
"""

from __future__ import annotations

import html
import http.client
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .cases import Case, Expect, Place
from .judging import Route, contents, judged
from .page import FILE, Page, Refused

UNKNOWN = "Something went wrong inside the program"
"""What the page says to an error that nobody thought of."""
EVIL = re.compile(r"<script|<svg|<[a-z][^<>]*\son[a-z]+=|=[\"']?javascript:", re.IGNORECASE)
"""What must not stand in the page unescaped; nothing of the page's own does."""

LIGHT = ["stamina", "embedded", "1", "0", "", "", ""]
"""The settings of a short teaching."""

Answer = dict[str, Any]
Photos = list[tuple[str, bytes]]
"""Names and bytes."""


def shown(value: Any) -> str:
    """What a person reads of a piece of the page; nothing of what is left as it was."""
    if isinstance(value, dict):
        value = value.get("value") or ""
    if not isinstance(value, str):
        return ""
    text = re.sub(r"<[^>]*>", " ", value)
    return re.sub(r"\s+", " ", html.unescape(text)).strip()


def unescaped(values: list[Any]) -> bool:
    """Whether something that a person typed stands in the page as more than text."""
    return any(isinstance(value, str) and EVIL.search(re.sub(r'srcdoc="[^"]*"', "", value)) for value in values)


def answer(code: int, *values: Any) -> Answer:
    """What the page said, as the other ways in say it: 0 for taken, 2 for refused."""
    said = " ".join(filter(None, map(shown, values)))
    wrong = ["text of a person is not escaped"] if unescaped(list(values)) else []
    wrong += ["the page admits an unknown error"] if UNKNOWN in said else []
    return {"code": code, "said": f"error: {said}" if code and said else said, "out": "", "wrong": wrong}


def dropped(page: Page, place: Place, files: Photos, name: str = "tom", class_word: str = "") -> Answer:
    """Drop photos, give a name, press Teach; a teaching that begins is stopped at once."""
    session = secrets.token_hex(8)
    given = [page.upload(called, data) for called, data in files]
    _, _, checked, said = page.ask("take", [given, None], session)
    _, refused, *_ = page.ask("begin", [None, name, class_word, *LIGHT], session)
    if shown(refused):
        return answer(2, checked, said, refused)
    page.stop_lesson()
    return answer(0, checked, said)


def drawn(page: Page, place: Place, prompt: Any, *settings: Any) -> Answer:
    """Write a prompt and press Draw."""
    many, seed, compare, steps, guidance = settings or (1, 0, -1, "1", "")
    said, pictures, *_ = page.ask("make", [prompt, many, seed, compare, steps, guidance], secrets.token_hex(8))
    return answer(0 if isinstance(pictures, dict) and pictures.get("visible") else 2, said)


def looked_at(page: Page, place: Place) -> Answer:
    """Load the page over a bad studio, and draw with it."""
    there = page.ask("look", [""], secrets.token_hex(8))
    found = drawn(page, place, "a photo of <rex>")
    return answer(found["code"], *there[1:]) | {"said": found["said"], "wrong": found["wrong"]}


def pressed(page: Page, place: Place, event: Any, shown_name: Any = "x") -> Answer:
    """Press a button of the timeline with any data in it, and say yes to what is asked then."""
    session = secrets.token_hex(8)
    _, said, *_ = page.ask("ask", [], session, event)
    if shown(said):
        return answer(2, said)
    _, done, _, timeline = page.ask("carry_out", [None, shown_name], session)
    found = answer(0 if 'role="status"' in str(done) else 2, done)
    return found | {"wrong": [*found["wrong"], *answer(0, timeline)["wrong"]]}


def requested(page: Page, place: Place, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """Any request at all: an answer below 500, or one in words, and never a file of this machine."""
    status, found = page.fetch(method, quote(path, safe="/=?&%:"), body or None, headers)
    said = found.decode("utf-8", "replace")
    wrong = ["a file of this machine is shown"] if "root:" in said else []
    return {"code": 0 if status < 400 else 2, "said": f"error: {status} {said[:300]}", "out": "", "wrong": wrong}


def given(page: Page, place: Place, file: Any) -> Answer:
    """Say that something was uploaded which was not."""
    _, _, checked, said = page.ask("take", [file, None], secrets.token_hex(8))
    return answer(2 if "can be used" not in shown(checked) else 0, checked, said)


def taught(page: Page, place: Place, files: Photos, name: str) -> Answer:
    """Drop photos and let the teaching come to its end."""
    session = secrets.token_hex(8)
    _, _, checked, said = page.ask("take", [[page.upload(*file) for file in files], None], session)
    _, refused, *_ = page.ask("begin", [None, name, "", *LIGHT], session)
    if shown(refused):
        return answer(2, checked, said, refused)
    over = page.lesson_over()
    return answer(0 if "is learned" in shown(over) else 2, checked, said, over)


def set_up(page: Page, place: Place, *settings: Any) -> Answer:
    """Two good photos, and any settings."""
    session = secrets.token_hex(8)
    files = [page.upload(path.name, path.read_bytes()) for path in sorted(place.good.iterdir())]
    page.ask("take", [files, None], session)
    _, refused, *_ = page.ask("begin", [None, "tom", "", *settings, *LIGHT[len(settings) :]], session)
    if shown(refused):
        return answer(2, refused)
    page.stop_lesson()
    return answer(0)


def exported(page: Page, place: Place, to: Any) -> Answer:
    said, button = page.ask("pack", [to], secrets.token_hex(8))
    return answer(0 if button.get("visible") else 2, said)


def renamed(page: Page, place: Place, text: Any) -> Answer:
    """Show <rex> under another name."""
    return pressed(page, place, {"act": "rename", "name": "rex"}, text)


# -- the routes, one after another ---------------------------------------------------------------------------------


def play_all(routes: list[Route], work: Path) -> Iterator[tuple[Route, Answer, float, float]]:
    """Every route of this way: its answer with all that is wrong, the server's CPU seconds, and its memory so far."""
    place = Place(work / "page", work / "base", work / "good")
    for folder in (place.photos, place.out, place.root / "tmp"):
        folder.mkdir(parents=True)
    shutil.copy(work / "tiny.toml", place.preset)
    page, good = None, contents(work / "studio")
    try:
        for route in routes:
            _afresh(work, place, good)
            if page is None or not page.lives():
                page = _opened(place)
                _afresh(work, place, good)
            route.case.prepare(place)
            before, began, cpu = _seen(place), time.monotonic(), page.cpu()
            found: Answer = {"code": 2, "said": "", "out": "", "wrong": []}
            try:
                found = route.case.visits[route.number](page, place)
            except Refused as error:
                found |= {"said": f"error: {error}"}
            except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
                found |= {"wrong": [f"no answer: {error!r} after {time.monotonic() - began:.0f} s"]}
            spent, memory = (page.cpu() - cpu, page.mebibytes()) if page.lives() else (0.0, 0.0)
            found["wrong"] = [*found["wrong"], *page.seen(), *_state(page)]
            said = page.complaints()
            # The guard stands around all of Gradio, whose own tracebacks to made-up requests are its own.
            if "Traceback" in said and "/stamina_diffusion/" in said.replace("stamina_diffusion/ui/doors.py", ""):
                found["wrong"].append(f"a traceback in the terminal: {said[-700:]}")
            found["wrong"] += judged(route, place, found, before, _seen(place))
            if found["wrong"]:  # whatever it has left behind is not the next one's fault
                page.close()
                page = None
            yield route, found, spent, memory
    finally:
        if page is not None:
            page.close()


def _seen(place: Place) -> dict[str, str]:
    """Everything around the server but its own files."""
    found = {}
    for part in sorted(place.root.iterdir()):
        if part.is_dir() and not part.is_symlink() and part.name != "tmp":
            found |= {f"{part.name}/{name}": held for name, held in contents(part).items()}
        found[part.name] = "there"
    return found


def _afresh(work: Path, place: Place, good: dict[str, str]) -> None:
    """The studio as it was in the beginning, and nothing beside it that a case has put there."""
    if {name: held for name, held in contents(place.studio).items() if name != ".lock"} != good:
        shutil.rmtree(place.studio, ignore_errors=True)
        shutil.copytree(work / "studio", place.studio)
    for left in place.root.iterdir():
        if left not in (place.studio, place.photos, place.out, place.root / "tmp", place.preset):
            left.unlink() if left.is_symlink() or not left.is_dir() else shutil.rmtree(left)


def _opened(place: Place) -> Page:
    """A page on which everything was done once with good input; what its server does from then on is watched."""
    page = Page(place)
    good = [(path.name, path.read_bytes()) for path in sorted(place.good.iterdir())]
    for found in (dropped(page, place, good), drawn(page, place, "a photo of <rex>"), looked_at(page, place)):
        if found["code"] or found["wrong"]:
            raise SystemExit(f"the page does not take good input: {found}")
    page.complaints()
    page.watch()
    return page


def _state(page: Page) -> list[str]:
    """Whether the server still serves."""
    if not page.lives():
        return ["the server has died"]
    try:
        status, _ = page.fetch("GET", "/")
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        return [f"the server does not serve any more: {error!r}"]
    return [] if status == 200 else [f"the server answers {status} to the next visitor"]


# -- what only a page can be given ---------------------------------------------------------------------------------

DRAWINGS: tuple[tuple[Expect, str, list[Any]], ...] = (
    ("refused", "no pictures", [0, 0, -1, "1", ""]),
    ("refused", "too many pictures", [10**9, 0, -1, "1", ""]),
    ("refused", "words of pictures", ["a", 0, -1, "1", ""]),
    ("either", "half a picture", [1.5, 0, -1, "1", ""]),
    ("refused", "a list of pictures", [[1], 0, -1, "1", ""]),
    ("refused", "a seed below nothing", [1, -1, -1, "1", ""]),
    ("refused", "a long seed", [1, 10**30, -1, "1", ""]),
    ("refused", "a seed of text", [1, "../x", -1, "1", ""]),
    ("either", "no seed", [1, None, -1, "1", ""]),
    ("refused", "a version that never was", [1, 0, -5, "1", ""]),
    ("refused", "a version of text", [1, 0, "../x", "1", ""]),
    ("refused", "a version of a list", [1, 0, [0], "1", ""]),
)

STEPS = ("0", "-1", "9999", "nan", "inf", "x", "9" * 400)
GUIDANCE = ("-1", "nan", "-inf", "1e400", "<b>")

TEACHINGS: tuple[tuple[Expect, str, list[Any]], ...] = (
    ("refused", "a method that is none", ["../../x", "embedded", "1", "0"]),
    ("refused", "a preset that is a path", ["stamina", "/etc/passwd", "1", "0"]),
    ("refused", "a preset that is a list", ["stamina", ["embedded"], "1", "0"]),
    ("refused", "no steps", ["stamina", "embedded", "-3", "0"]),
    ("refused", "steps that are none", ["stamina", "embedded", "nan", "0"]),
    ("refused", "a seed below nothing", ["stamina", "embedded", "1", "-1"]),
    ("refused", "a seed without end", ["stamina", "embedded", "1", "1e400"]),
    ("either", "steps for a year", ["stamina", "embedded", "99999999", "0"]),
    ("refused", "a limit below nothing", ["stamina", "embedded", "1", "0", "-1"]),
    ("refused", "a limit that is none", ["stamina", "embedded", "1", "0", "nan"]),
    ("either", "a limit without end", ["stamina", "embedded", "1", "0", "9" * 400]),
    ("either", "a consent of markup", ["stamina", "embedded", "1", "0", "", "<script>alert(1)</script>"]),
    ("either", "a licence of controls", ["stamina", "embedded", "1", "0", "", "", "\x1b[2J\0\u202e"]),
    ("either", "a long consent", ["stamina", "embedded", "1", "0", "", "a" * 1_000_000]),
)

EVENTS: tuple[Any, ...] = (
    None,
    [],
    [1],
    "x",
    7,
    {},
    {"act": "x"},
    {"act": ["forget"]},
    {"act": "forget", "name": "nobody"},
    {"act": "forget", "name": {"a": 1}},
    {"act": "forget", "name": "../../x"},
    {"act": "forget", "name": "<script>alert(1)</script>"},
    {"act": "rollback", "version": "99"},
    {"act": "rollback", "version": "-1"},
    {"act": "rollback", "version": "9" * 5000},
    {"act": "rollback", "version": "²"},
    {"act": "rollback", "version": [1]},
    {"act": "rollback", "version": True},
    {"act": "rename", "name": "nobody"},
)
"""What a press of a button in the timeline may carry."""

SHOWN: tuple[Any, ...] = ("", " ", "a" * 81, "a\nb", "\x1b[2J", "\u202ex", "\0", None)
TAKEN: tuple[Any, ...] = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{0.__class__}", "é" * 80, "[1]")
"""Names under which a concept cannot be shown, and strange ones under which it can."""

UPLOADS = (
    "../../TRAP",
    "../../TRAP.png",
    "/TRAP.png",
    "..\\TRAP.png",
    "a\0b.png",
    "x" * 5000 + ".png",
    "\ud800.png",
    ".png",
    "a.png/../../TRAP.png",
)
"""Names under which a good photo is uploaded."""

PATHS = (
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=../../../../../../etc/passwd",
    "/gradio_api/file=/proc/self/environ",
    "/gradio_api/file=/dev/zero",
    "/gradio_api/file=http://127.0.0.1:9/",
    "/gradio_api/file/etc/passwd",
    "/gradio_api/proxy=http://127.0.0.1:9/",
    "/gradio_api/custom_component/x/client/component/../../../../etc/passwd",
    "/gradio_api/stream/x/y/0/playlist-file",
    "/assets/../../../../../../etc/passwd",
    "/static/../../../../../../etc/passwd",
    "/svelte/../../../../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/../studio/ledger.json",
    "/docs",
    "/openapi.json",
    "/gradio_api/openapi.json",
    "/monitoring",
    "/gradio_api/token",
    "/x" * 4000,
    "/?__theme=<script>",
    "/gradio_api/queue/data?session_hash=" + "x" * 9000,
    "/gradio_api/heartbeat_/x",
)
"""What is asked for."""

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
PARTS = "multipart/form-data; boundary=x"
HALF = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'
BODIES: tuple[tuple[str, str, str, bytes], ...] = (
    ("no JSON", JOIN, "application/json", b"[["),
    ("deep JSON", JOIN, "application/json", b"[" * 200_000),
    ("much JSON", JOIN, "application/json", b'{"data": [' + b"0," * 4_000_000 + b"0]}"),
    ("no session", JOIN, "application/json", b'{"data": [], "fn_index": 0}'),
    ("a function that is none", JOIN, "application/json", b'{"data":[],"fn_index":999,"session_hash":"x"}'),
    ("a function below nothing", JOIN, "application/json", b'{"data":[],"fn_index":-1,"session_hash":"x"}'),
    ("too few values", JOIN, "application/json", b'{"data":[],"fn_index":6,"session_hash":"x"}'),
    ("half a pair", JOIN, "application/json", b'{"data":["\\ud800"],"fn_index":4,"session_hash":"\\ud800"}'),
    ("past the queue", "/gradio_api/run/make", "application/json", b'{"data":["a cat",1,0,-1,"1",""]}'),
    ("an upload of nothing", UPLOAD, PARTS, b""),
    ("an upload without a border", UPLOAD, "multipart/form-data", b"x" * 1000),
    ("an upload that never ends", UPLOAD, PARTS, HALF),
    ("an upload with a long head", UPLOAD, PARTS, b"--x\r\n" + b"a: b\r\n" * 50_000 + b"\r\n"),
    ("an upload of JSON", UPLOAD, "application/json", b'{"files": ["/etc/passwd"]}'),
    (
        "a component's server",
        "/gradio_api/component_server",
        "application/json",
        b'{"session_hash":"x","component_id":1,"fn_name":"__init__","data":[]}',
    ),
    ("a cancel", "/gradio_api/cancel", "application/json", b'{"session_hash":"x","fn_index":0,"event_id":"x"}'),
    ("a reset", "/gradio_api/reset", "application/json", b'{"event_id":"x"}'),
    ("a login", "/login", "application/x-www-form-urlencoded", b"username=x&password=x"),
)
"""What is sent, as what, and where to."""


def cases() -> Iterator[Case]:
    """Raw requests, and values that the page's own fields would not let through."""
    for expect, name, settings in DRAWINGS:
        visit = lambda page, place, s=settings: drawn(page, place, "a cat", *s)  # noqa: E731
        yield Case("page", f"draw: {name}", visits=(visit,), expect=expect)
    for steps, guidance in (*((text, "") for text in STEPS), *(("1", text) for text in GUIDANCE)):
        visit = lambda page, place, s=(1, 0, -1, steps, guidance): drawn(page, place, "a cat", *s)  # noqa: E731
        yield Case("page", f"draw: steps {steps!r}, guidance {guidance!r}"[:60], visits=(visit,), expect="refused")
    for value in (None, 7, ["x"], {"a": 1}, True):
        visit = lambda page, place, v=value: drawn(page, place, v)  # noqa: E731
        yield Case("page", f"draw: a prompt {value!r}", visits=(visit,))
    for expect, name, settings in TEACHINGS:
        yield Case(
            "page", f"teach: {name}", visits=(lambda page, place, s=settings: set_up(page, place, *s),), expect=expect
        )
    for number, event in enumerate(EVENTS):
        visit = lambda page, place, e=event: pressed(page, place, e)  # noqa: E731
        yield Case("page", f"a press {number}: {event!r}"[:60], visits=(visit,), expect="refused")
    for expect, names in (("refused", SHOWN), ("taken", TAKEN)):
        for text in names:
            visit = lambda page, place, t=text: renamed(page, place, t)  # noqa: E731
            yield Case("page", f"shown as {text!r}"[:60], visits=(visit,), expect=expect)  # type: ignore[arg-type]
    for to in ("../../x", "/etc", "pickle", None, ["diffusers"], 7, ""):
        yield Case(
            "page", f"export to {to!r}", visits=(lambda page, place, t=to: exported(page, place, t),), expect="refused"
        )
    for path in PATHS:
        visit = lambda page, place, p=path: requested(page, place, "GET", p)  # noqa: E731
        yield Case("page", f"get {path}"[:60], visits=(visit,))
    for name, path, kind, body in BODIES:
        sent = {"method": "POST", "path": path, "body": body, "content-type": kind}
        visit = lambda page, place, s=sent: requested(page, place, **s)  # noqa: E731
        yield Case("page", f"post {name}", visits=(visit,))
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost:x", "[::1"):
        visit = lambda page, place, h=host: requested(page, place, "GET", "/", host=h)  # noqa: E731
        yield Case("page", f"called {host!r}", visits=(visit,), expect="refused")
    for name, told in (
        ("a file of this machine", lambda place: "/etc/passwd"),
        ("the ledger", lambda place: str(place.studio / "ledger.json")),
        ("a good photo elsewhere", lambda place: str(sorted(place.good.iterdir())[0])),
        ("a folder", lambda place: str(place.studio)),
        ("an address", lambda place: "http://127.0.0.1:9/a.png"),
        ("a way up", lambda place: "../../../../etc/passwd"),
    ):
        visit = lambda page, place, t=told: given(page, place, [{"path": t(place), "meta": FILE}])  # noqa: E731
        yield Case("page", f"not uploaded: {name}", visits=(visit,), expect="refused")
    for value in ("x", 7, {"path": None}, [None], [[]], [{}], {}):
        yield Case(
            "page",
            f"uploaded: {value!r}",
            visits=(lambda page, place, v=value: given(page, place, v),),
            expect="refused",
        )
    big = ("big.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 41_000_000)
    yield Case("page", "a photo of 41 MB", visits=(lambda page, place: dropped(page, place, [big]),), expect="refused")
    for name in UPLOADS:
        visit = lambda page, place, n=name: dropped(page, place, [(n, _photo(place))])  # noqa: E731
        yield Case("page", f"a photo named {name!r}"[:60], visits=(visit,))
    many = lambda page, place: dropped(page, place, [(f"{k}.png", _photo(place) + bytes([k])) for k in range(60)])  # noqa: E731
    yield Case("page", "sixty photos", visits=(many,), expect="taken")


def _photo(place: Place) -> bytes:
    return min(place.good.iterdir()).read_bytes()
