# ruff: noqa: RUF005  (long tuples are easier to read in parts)
"""Bad words: names of concepts, prompts, captions, class words, and numbers and places given on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import visits
from .cases import Case, Expect, Place, draw, learn
from .images import noise, saved

if TYPE_CHECKING:
    from .page import Page

NAMES = (
    ("", "..", ".", "../up", "a/b", "/etc/passwd", "a\\b", "..\\up", "C:", "\\\\host\\share", "~root", "-rf", "--help")
    + (
        "a\0b",
        "a\nb",
        "a\rb",
        "a\tb",
        "\x1b[2J",
        "\x7f",
        "a b",
        "a\u00a0b",
        "a\u200bb",
        "a\u202eb",
        "\ufeffrex",
        "\U000e0041",
    )
    + (
        "é",
        "ｒｅｘ",
        "rеx",
        "𝔯𝔢𝔵",
        "rex̲",
        "İ",
        "ß",
        "\ud800",
        "💥",
        "a" * 41,
        "a" * 100_000,
        "1st",
        "_a",
        "<rex>",
        "<a",
        "a>",
    )
    + (
        "a.b",
        "a,b",
        "a;b",
        "a|b",
        "a&b",
        "$(touch TRAP)",
        "`touch TRAP`",
        "{0.__class__}",
        "%s%n",
        "[bold]",
        "<|endoftext|>",
    )
    + ("a</w>", "rex.", "rex ", " rex", "REX", "rex")
)
"""None of these may name a new concept."""

RESERVED = (
    "con",
    "NUL",
    "aux",
    "com1",
    "endoftext",
    "startoftext",
    "unk",
    "pad",
    "a" * 40,
    "__class__"[2:-2],
    "a-_-_-",
)
"""Strange names that are plain words."""

PROMPTS = (
    (
        "",
        " ",
        "\0",
        "\x1b[2J\x07",
        "\ud800",
        "\udcff",
        "\ufffe",
        "\u202e<rex>",
        "a\r\nb",
        "\u0000<rex>\u0000",
        "💥" * 2000,
    )
    + (
        "<nobody>",
        "<Rex>",
        "<rex",
        "rex>",
        "<<rex>>",
        "<rex><rex>",
        "< rex >",
        "<rex/>",
        "<r\u0435x>",
        "<rex\u200b>",
        "<>",
        "<|endoftext|>",
    )
    + (
        "<|startoftext|>" * 50,
        "<|endoftext|>" * 200,
        "<rex>" * 500,
        "<" * 50_000,
        ">" * 50_000,
        "<a" * 20_000,
        "((((" * 10_000,
    )
    + (
        "[" * 100_000,
        "a" * 100_000,
        "word " * 100_000,
        "{}{0}{rex}{0.__class__}",
        "%s%n%x",
        "$(touch TRAP)",
        "[trigger]",
        "--help",
        "-n",
    )
    + (
        "Z̴̛" * 3000,
        "\u0301" * 5000,
        "<script>alert(1)</script>",
        "'; DROP TABLE concepts; --",
        "(rex:1.5) AND [a:b:0.5]",
    )
)


def names() -> Iterator[Case]:
    def call(place: Place, name: str) -> None:
        from stamina_diffusion.methods import build
        from stamina_diffusion.photos import collect
        from stamina_diffusion.plan import Plan
        from stamina_diffusion.studio import Studio

        found = collect(place.good, resolution=8)
        plan = Plan(steps=1, batch=1, prior_images=0)
        Studio.open(place.studio).learn(found, name, method=build("stamina", {"rank": 2}), plan=plan)

    for some, expect in ((NAMES, "refused"), (RESERVED, "either")):
        for name in some:
            command = partial(_learn_named, name=name)
            calls, visit = (partial(call, name=name),), partial(_named, name=name)
            yield Case("names", repr(name)[:60], commands=(command,), calls=calls, visits=(visit,), expect=expect)  # type: ignore[arg-type]
    for word in ("", "../up", "{0.__class__}", "{}", "<rex>", "<nobody>", "\0", "\ud800", "a" * 100_000, "\x1b[2J"):
        for start in ("random", "class"):

            def classed(place: Place, word: str = word, start: str = start) -> list[str]:
                return learn(place, f"--class={word}", "--set", f"word_start={start}", "--no-report", photos=place.good)

            visit = (partial(_named, name="tom", class_word=word),) if start == "random" else ()
            yield Case("names", f"class word {word!r}"[:50] + f", {start}", commands=(classed,), visits=visit)


def _named(page: Page, place: Place, name: str, class_word: str = "") -> dict[str, Any]:
    photos = [(path.name, path.read_bytes()) for path in sorted(place.good.iterdir())]
    return visits.dropped(page, place, photos, name, class_word)


def _learn_named(place: Place, name: str) -> list[str]:
    return learn(place, "--no-report", photos=place.good, name=name)


def prompts() -> Iterator[Case]:
    def call(place: Place, prompt: str) -> None:
        from stamina_diffusion.studio import Studio

        Studio.open(place.studio).backbone().draw([prompt], [0], steps=1)

    for prompt in PROMPTS:
        unknown = prompt in ("<nobody>", "<Rex>", "<r\u0435x>", "<rex\u200b>", "<rex/>")
        yield Case(
            "prompts",
            repr(prompt)[:60],
            commands=(partial(draw, prompt=prompt),),
            calls=(partial(call, prompt=prompt),),
            visits=(partial(visits.drawn, prompt=prompt),),
            expect="refused" if unknown else "either",
        )


CAPTIONS: tuple[tuple[str, bytes], ...] = (
    ("binary", bytes(range(256)) * 8),
    ("zeros", b"\0" * 4096),
    ("huge", b"word " * 2_000_000),
    ("just under the limit", b"a" * 65_536),
    ("many places for the word", b"{}" * 30_000),
    ("many triggers", b"[trigger]" * 7_000),
    ("format tricks", b"{0.__class__.__mro__} {:>999999999} {!r}"),
    ("unknown words", b"a photo of <nobody> and <|endoftext|>"),
    ("half a character", b"caf\xc3"),
    ("utf-16 cut off", b"\xff\xfea"),
    ("utf-16", "<rex> on a table".encode("utf-16")),
    ("utf-32", "<rex> on a table".encode("utf-32")),
    ("surrogates", b"\xed\xa0\x80\xed\xb0\x80"),
    ("overlong", b"\xc0\xaf\xe0\x80\xaf"),
    ("controls", b"\x1b[2J\x07\x08 a photo \x7f"),
    ("marks", "\ufeff\u202e\u200b{}".encode()),
    ("one long line", "Z̴̛".encode() * 9_000),
    ("only spaces", b" \n\t\r " * 999),
)


def captions() -> Iterator[Case]:
    def call(place: Place) -> None:
        from stamina_diffusion.concepts import Concept
        from stamina_diffusion.photos import collect

        found = collect(place.photos, resolution=8)
        concept = Concept("tom", tuple(photo.load(8) for photo in found), tuple(photo.caption for photo in found))
        assert all(concept.prompts(["a photo of {}"], with_class=False))

    def written(place: Place, data: bytes) -> None:
        (place.photos / "a.png").write_bytes(saved(noise(16, 16), "PNG"))
        (place.photos / "a.txt").write_bytes(data)

    def linked(place: Place, target: str) -> None:
        (place.photos / "a.png").write_bytes(saved(noise(16, 16), "PNG"))
        (place.photos / "a.txt").symlink_to(target)

    def piped(place: Place) -> None:
        (place.photos / "a.png").write_bytes(saved(noise(16, 16), "PNG"))
        os.mkfifo(place.photos / "a.txt")

    commands = (
        lambda place: ["doctor", str(place.photos), "--resolution", "8"],
        lambda place: learn(place, "--no-report"),
    )
    made = [(name, partial(written, data=data)) for name, data in CAPTIONS]
    made += [(f"a link to {to}", partial(linked, target=to)) for to in ("a.txt", "nothing", "/dev/zero", "..")]
    made += [("a pipe", piped)]
    for name, prepare in made:
        yield Case("captions", name, prepare, commands, (call,), "taken")


NUMBERS: tuple[tuple[Expect, list[str]], ...] = (
    ("refused", ["--seed", "-1"]),
    ("either", ["--seed", str(2**63 - 1)]),
    ("refused", ["--seed", str(2**64)]),
    ("refused", ["--seed", "9" * 400]),
    ("refused", ["--seed", "1.5"]),
    ("refused", ["--steps", "0"]),
    ("refused", ["--steps", "1001"]),
    ("refused", ["--steps", "9" * 30]),
    ("refused", ["-n", "0"]),
    ("refused", ["-n", "99999999999"]),
    ("refused", ["-n", "9" * 30]),
    ("refused", ["--guidance", "nan"]),
    ("refused", ["--guidance", "-inf"]),
    ("refused", ["--guidance", "inf"]),
    ("refused", ["--guidance", "1e400"]),
    ("either", ["--guidance", "1e30"]),
)

PLACES = (
    "a.xyz",
    "a.png/",
    "a\0.png",
    "\ud800.png",
    "x" * 300 + ".png",
    "/dev/full",
    ".png",
)
"""Where pictures and exports cannot be put."""


def options() -> Iterator[Case]:
    for expect, given in NUMBERS:
        yield Case(
            "options", " ".join(["draw", *given])[:60], commands=(partial(_draw_with, given=given),), expect=expect
        )
    for where in PLACES:

        def pictures(place: Place, where: str = where) -> list[str]:
            return ["draw", str(place.studio), "a cat", "-n", "1", "--steps", "1", "--out", str(Path(place.out, where))]

        def model(place: Place, where: str = where) -> list[str]:
            return ["export", str(place.studio), "--to", "diffusers", str(Path(place.out, where))]

        yield Case("options", f"out {where!r}"[:60], commands=(pictures, model))
    for kind, make in (
        ("a link to itself", lambda place: (place.out / "loop.png").symlink_to("loop.png")),
        ("a folder", lambda place: (place.out / "loop.png").mkdir()),
        ("a pipe", lambda place: os.mkfifo(place.out / "loop.png")),
    ):
        yield Case("options", f"out is {kind}", make, (_draw_there, _export_there))


def _draw_with(place: Place, given: list[str]) -> list[str]:
    return ["draw", str(place.studio), "a cat", "--out", str(place.out / "a.png"), "-n", "1", "--steps", "1", *given]


def _draw_there(place: Place) -> list[str]:
    return ["draw", str(place.studio), "a cat", "-n", "1", "--steps", "1", "--out", str(place.out / "loop.png")]


def _export_there(place: Place) -> list[str]:
    return ["export", str(place.studio), "--to", "diffusers", str(place.out / "loop.png")]


def cases() -> Iterator[Case]:
    yield from names()
    yield from prompts()
    yield from captions()
    yield from options()
