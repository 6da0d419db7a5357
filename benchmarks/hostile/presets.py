"""Bad settings: presets that are no TOML, hold what they should not, or are no files; and overrides of one setting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from .cases import PRESET, Case, Expect, Place, learn

HEAD = "version = 1\n"
TEXTS: tuple[tuple[str, Expect, bytes], ...] = (
    ("nothing", "refused", b""),
    ("zeros", "refused", b"\0" * 4096),
    ("binary", "refused", bytes(range(256))),
    ("not UTF-8", "refused", b"version = 1\n# caf\xe9\n"),
    ("a mark before", "either", b"\xef\xbb\xbf" + HEAD.encode()),
    ("utf-16", "refused", HEAD.encode("utf-16")),
    ("deep lists", "refused", b"version = 1\na = " + b"[" * 100_000),
    ("closed deep lists", "refused", b"version = 1\na = " + b"[" * 900 + b"]" * 900),
    ("deep tables", "refused", b"version = 1\na = " + b"{a = " * 5000 + b"1" + b"}" * 5000),
    ("deep keys", "refused", b"version = 1\n" + b".".join([b"a"] * 3000) + b" = 1"),
    ("a long number", "refused", b"version = " + b"9" * 100_000),
    ("a huge version", "refused", b"version = " + b"9" * 400),
    ("version of another type", "refused", b'version = "1"'),
    ("version true", "refused", b"version = true"),
    ("version 1.0", "either", b"version = 1.0"),
    ("version nan", "refused", b"version = nan"),
    ("version a date", "refused", b"version = 1979-05-27T07:32:00Z"),
    ("no version", "refused", b"[plan]\nsteps = 1\n"),
    ("twice the same key", "refused", b"version = 1\nversion = 1\n"),
    ("twice the same table", "refused", b"version = 1\n[plan]\n[plan]\n"),
    ("a long line", "refused", b"version = 1\n" + b"a" * 5_000_000 + b" = 1\n"),
    ("many keys", "refused", HEAD.encode() + b"".join(b"k%d = 1\n" % n for n in range(50_000))),
    ("a long comment", "refused", HEAD.encode() + b"#" + b"a" * 5_000_000),
    ("controls", "refused", b"version = 1\n\x1b[2J = 1\n"),
    ("a key of controls", "refused", b'version = 1\n"\\u001b[2J" = 1\n'),
    ("json", "refused", b'{"version": 1}'),
    ("yaml that runs", "refused", b"version: !!python/object/apply:os.system ['touch TRAP']"),
)

TABLES: tuple[tuple[str, Expect], ...] = (
    ("plan = 1", "refused"),
    ("plan = []", "refused"),
    ("method = 'stamina'", "refused"),
    ("[plan]\nstep = 5", "refused"),
    ("[plan]\nsteps = 0", "refused"),
    ("[plan]\nsteps = -1", "refused"),
    ("[plan]\nsteps = 1.5", "refused"),
    ("[plan]\nsteps = '5'", "refused"),
    ("[plan]\nsteps = true", "refused"),
    ("[plan]\nsteps = nan", "refused"),
    ("[plan]\nsteps = []", "refused"),
    ("[plan]\nsteps = 1979-05-27", "refused"),
    (f"[plan]\nsteps = {2**63}", "either"),
    (f"[plan]\nsteps = {'9' * 4000}", "either"),
    ("[plan]\nseed = -1", "refused"),
    (f"[plan]\nseed = {'9' * 4000}", "either"),
    ("[plan]\nprior_weight = inf", "refused"),
    ("[plan]\nprior_weight = -0.1", "refused"),
    ("[plan]\nclip_norm = nan", "refused"),
    ("[plan]\nprecision = 'fp7'", "refused"),
    ("[plan]\nresolution = 0", "refused"),
    ("[plan]\nresolution = 99999999", "either"),
    ("[plan]\nprompts = []", "refused"),
    ("[plan]\nprompts = 'a photo of {}'", "refused"),
    ("[plan]\nprompts = [1]", "refused"),
    ("[plan]\nprompts = ['no place']", "refused"),
    ("[plan]\nprompts = ['{} {0.__class__.__mro__}']", "refused"),
    ("[plan]\nprompts = ['{} {0.upper}']", "refused"),
    ("[plan]\nprompts = ['{} {0[0]}']", "refused"),
    ("[plan]\nprompts = ['{} {']", "refused"),
    ("[plan]\nprompts = ['{} {:>999999999}']", "refused"),
    ("[plan]\nprompts = ['{} {!r}']", "refused"),
    ("[plan]\nprompts = ['{} {rex}']", "refused"),
    ("[plan]\n__init__ = 1", "refused"),
    ("[draw]\nguidance = inf", "refused"),
    ("[draw]\nsteps = 99999", "either"),
    ("[report]\nsamples = 0", "refused"),
    ("[method.os]\nsystem = 'touch TRAP'", "refused"),
    ("[method.stamina]\nrank = 0", "refused"),
    ("[method.stamina]\nrank = '../../x'", "refused"),
    (f"[method.stamina]\nrank = {2**70}", "either"),
    ("[method.stamina]\nrate = nan", "refused"),
    ("[method.stamina]\nname = 'x'", "refused"),
    ("[method.stamina]\n__class__ = 'x'", "refused"),
    ("[method.stamina]\nword_start = 'evil'", "refused"),
)

OVERRIDES: tuple[tuple[Expect, str], ...] = (
    ("refused", "rank=1e999"),
    ("refused", "rank=nan"),
    ("refused", "rank=" + "9" * 5000),
    ("refused", "rank="),
    ("refused", "=8"),
    ("refused", "rank"),
    ("refused", "rate=inf"),
    ("refused", "__class__=x"),
    ("refused", "seed=-1"),
    ("either", "seed=" + "9" * 400),
    ("refused", "precision=\x1b[2J"),
    ("refused", "prompts=[" + "[" * 5000),
    ("refused", "prompts=[]"),
    ("refused", 'prompts=["{}", 1]'),
    ("refused", 'prompts=["{0.__class__} {}"]'),
    ("refused", "prompts={} {:>999999999}"),
    ("refused", "rank=\ud800"),
    ("refused", "\ud800=1"),
    ("refused", "r\0nk=1"),
)


def library(place: Place) -> None:
    from stamina_diffusion.settings import resolve

    resolve(place.preset, "stamina")


def cases() -> Iterator[Case]:
    yield from streams()

    def plan(place: Place) -> list[str]:
        return learn(place, "--dry-run", photos=place.good)

    made: list[tuple[str, Expect, bytes]] = list(TEXTS)
    made += [(text.replace("\n", " ")[:50], expect, (HEAD + text).encode()) for text, expect in TABLES]
    for name, expect, data in made:
        yield Case("presets", name, lambda place, d=data: place.preset.write_bytes(d), (plan,), (library,), expect)

    def instead(place: Place, act) -> None:
        place.preset.unlink()
        act(place)

    for name, act in (
        ("a folder", lambda place: place.preset.mkdir()),
        ("a pipe", lambda place: os.mkfifo(place.preset)),
        ("a link to itself", lambda place: place.preset.symlink_to(place.preset.name)),
        ("a link to /dev/zero", lambda place: place.preset.symlink_to("/dev/zero")),
        ("a link to /etc/passwd", lambda place: place.preset.symlink_to("/etc/passwd")),
        ("a sparse file of 40 GB", lambda place: _sparse(place)),
    ):
        yield Case("presets", name, partial(instead, act=act), (plan,), (library,), "refused")
    for expect, text in OVERRIDES:

        def command(place: Place, text: str = text) -> list[str]:
            return learn(place, "--dry-run", "--set", text, photos=place.good)

        def call(place: Place, text: str = text) -> None:
            from stamina_diffusion.settings import resolve

            key, _, value = text.partition("=")
            resolve(place.preset, "stamina", overrides={key: value})

        yield Case("settings", f"--set {text!r}"[:60], commands=(command,), calls=(call,), expect=expect)
    for preset in ("../../etc/passwd", "nothing", "\0", "\ud800", "x" * 5000, "paper.toml", "-", ""):

        def named(place: Place, preset: str = preset) -> list[str]:
            return ["learn", str(place.studio), str(place.good), "--name=tom", f"--preset={preset}", "--dry-run"]

        yield Case(
            "settings", f"--preset {preset!r}"[:60], commands=(named,), expect="either" if not preset else "refused"
        )
    for method in ("", "os", "__init__", "../x", "\0", "\ud800", "stamina\n", "[bold]"):

        def by(place: Place, method: str = method) -> list[str]:
            return learn(place, "--dry-run", f"--method={method}", photos=place.good)

        yield Case("settings", f"--method {method!r}", commands=(by,), expect="refused")


STREAMS: tuple[tuple[str, Expect], ...] = (
    ("", "refused"),
    ("concept = 1", "refused"),
    ("concept = []", "refused"),
    ("concept = [1]", "refused"),
    ("[[concept]]", "refused"),
    ("[[concept]]\nname = 1\nphotos = 'good'", "refused"),
    ("[[concept]]\nname = '../up'\nphotos = 'good'", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = '/etc/passwd'", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = '\\u0000'", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = '../../../../etc'", "refused"),
    ('[[concept]]\nname = "tom"\nphotos = "\\u0000"', "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = []", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nset = 1", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nset = { rank = [] }", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nset = { rank = nan }", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nset = { __class__ = 1 }", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nset = { prompts = [1979-05-27] }", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nset = { rate = 1979-05-27 }", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nsteps = -1", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nmethod = 'os'", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\npreset = '/dev/zero'", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\nevil = 1", "refused"),
    ("[[concept]]\nname = 'tom'\nphotos = 'good'\n[[concept]]\nname = 'TOM'\nphotos = 'good'", "refused"),
    ("[[concept]]\nname = 'rex'\nphotos = 'good'", "refused"),
    ("\n".join(f"[[concept]]\nname = 'a{n}'\nphotos = 'nothing'" for n in range(2000)), "refused"),
)


def streams() -> Iterator[Case]:
    """Streams: the same parser on another file, and photos and names that it says."""

    def plan(place: Place) -> list[str]:
        return ["learn", str(place.studio), "--stream", str(place.root / "stream.toml"), "--dry-run"]

    def call(place: Place) -> None:
        from stamina_diffusion.streams import read

        read(place.root / "stream.toml", str(place.preset))

    def written(place: Place, data: bytes) -> None:
        (place.root / "good").symlink_to(place.good)
        (place.root / "stream.toml").write_bytes(data)

    made: list[tuple[str, Expect, bytes]] = [(name, "refused", data) for name, _, data in TEXTS]
    made += [(text.replace("\n", " ")[:70] or "no concept", expect, (HEAD + text).encode()) for text, expect in STREAMS]
    for name, expect, data in made:
        # What is learned already from other photos is found out by the command, which knows the studio.
        wanted = "either" if "'rex'" in name else expect
        yield Case("streams", f"{name}, planned", partial(written, data=data), (plan,), (), expect)
        yield Case("streams", name, partial(written, data=data), (), (call,), wanted)
    pipe = lambda place: os.mkfifo(place.root / "stream.toml")  # noqa: E731
    yield Case("streams", "a pipe", pipe, (plan,), (call,), "refused")


def _sparse(place: Place) -> None:
    with open(place.preset, "wb") as file:
        file.truncate(40 * 2**30)


assert PRESET.startswith(HEAD)
