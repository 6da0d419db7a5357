# ruff: noqa: RUF005  (long tuples are easier to read in parts)
"""Bad studios: ledgers with every field spoiled, other files of a studio, and the leftovers of an unfinished run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .cases import Case, Place, draw, learn
from .tensors import SPOILED, Spoil, learn_good, library
from .visits import looked_at

Body = dict[str, Any]


def rewrite(studio: Path, change: Callable[[Body], object], events: Callable[[list[Body]], object] = list) -> None:
    """Change a ledger and give it the hashes that fit: what someone who knows the format would send.

    `change` gets its format, its base and its concepts; `events` the list of what happened.
    """
    from stamina_diffusion import ledger

    path = studio / ledger.FILE
    body = json.loads(path.read_text())
    body.pop("checksum")
    view = {"format": body["format"], "base": body["base"], "concepts": [event["private"] for event in body["events"]]}
    change(view)
    body |= {key: view[key] for key in ("format", "base")}
    if isinstance(view["concepts"], list):
        first = body["events"][0]
        body["events"] = [first | {"private": concept, "version": n + 1} for n, concept in enumerate(view["concepts"])]
        events(body["events"])
    else:
        body["events"] = view["concepts"]
    previous = body["base"].get("hash") if isinstance(body.get("base"), dict) else None
    for event in body["events"] if isinstance(body["events"], list) else ():
        previous = _sealed(previous, event)
    path.write_text(json.dumps(body | {"checksum": _checksum(body)}))


def _sealed(previous: Any, event: Body) -> Any:
    """Give an event its seal and its hash, as far as it has what they are made of."""
    from stamina_diffusion import events

    try:
        if event["private"] is not None:
            event["seal"] = events.seal(event["private"])
        event["hash"] = events.event_hash(previous, events.Event(**event))
        return event["hash"]
    except (KeyError, TypeError, AttributeError, ValueError):
        return previous


def _checksum(body: Body) -> str:
    from stamina_diffusion import ledger

    try:
        return ledger._checksum(body)
    except ValueError:  # half a surrogate pair has no UTF-8
        return "0" * 64


WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../../TRAP",
    "/etc/passwd",
    "\x1b[2J\x07",
    "a\0b",
) + ("\ud800", "a" * 200_000, [], {}, [[]], {"a": {"b": "c"}}, [None], ["../x"], {"../x": "y"}, [{"sha256": 1}])
"""What may stand where something else should."""

FIELDS = (
    "name",
    "word",
    "class_word",
    "method",
    "settings",
    "plan",
    "steps",
    "seed",
    "photos",
    "density",
    "final_loss",
    "files",
) + ("seconds", "learned", "versions", "consent", "licence")
EVENT_FIELDS = ("kind", "version", "branch", "time", "what", "private", "seal", "hash")
BASE_FIELDS = ("kind", "source", "hash", "revision", "variant")


def spoiled_fields() -> Iterator[tuple[str, Callable[[Body], object]]]:
    """Each field with some wrong values; which ones differs from field to field, so that all are tried."""

    def at(body: Body, field: str, value: Any) -> None:
        body["concepts"][0][field] = value

    for number, field in enumerate(FIELDS):
        for value in [*WRONG[number % 3 :: 3][:5], "../../../TRAP", None][: 5 if number % 2 else 6]:
            yield f"{field} = {value!r}"[:60], partial(at, field=field, value=value)
        yield f"no {field}", lambda body, f=field: body["concepts"][0].pop(f)
    for number, field in enumerate(BASE_FIELDS):
        for value in WRONG[number % 4 :: 4]:
            yield f"base {field} = {value!r}"[:60], lambda body, f=field, v=value: body["base"].update({f: v})
    for value in ([], None, "x", [1], [[]], [None], {"a": 1}):
        yield f"concepts = {value!r}", lambda body, v=value: body.update(concepts=v)
        yield f"base = {value!r}", lambda body, v=value: body.update(base=v)
    for value in (0, -1, 99, 10**30, True, 1.5, "1", None, [], {}):
        yield f"format = {value!r}"[:60], lambda body, v=value: body.update(format=v)
    for name in ("../../x", "/abs", "a/b", "..", "a\0b", "x" * 300, "\x1b[2J", "con", ""):

        def renamed(body: Body, name: str = name) -> None:
            body["concepts"][0].update(name=name, word=f"<{name}>")

        yield f"name and word {name!r}"[:60], renamed
    for word in ("<|endoftext|>", "a", "", "<rex", "\ud800", "<a b>"):
        yield f"word {word!r}", lambda body, w=word: body["concepts"][0].update(word=w)
    for file in ("../../../../etc/passwd", "/etc/passwd", "", ".", "change.safetensors/x"):
        yield f"a file {file!r}", lambda body, f=file: body["concepts"][0]["files"].update({f: "0" * 64})
    yield "a hub model", lambda body: body["base"].update(kind="hub", source="evil/model", revision=None)
    yield "the same concept twice", lambda body: body["concepts"].append(dict(body["concepts"][0]))
    yield (
        "a thousand concepts",
        lambda body: body["concepts"].extend(dict(body["concepts"][0]) for _ in range(1000)),
    )
    yield "a field too many", lambda body: body["concepts"][0].update(__class__="x", evil=1)


def spoiled_events() -> Iterator[tuple[str, Callable[[list[Body]], object]]]:
    """Events with wrong values, and events that were made up."""

    def at(events: list[Body], field: str, value: Any) -> None:
        events[0][field] = value

    for number, field in enumerate(EVENT_FIELDS):
        for value in WRONG[number % 3 :: 3]:
            yield f"event {field} = {value!r}"[:60], partial(at, field=field, value=value)
        yield f"no event {field}", lambda events, f=field: events[0].pop(f)
    made: tuple[tuple[str, Body], ...] = (
        ("rollback", {"to": 99}),
        ("rollback", {"to": -1}),
        ("rollback", {"to": "0"}),
        ("rollback", {"to": None}),
        ("rollback", {"to": 10**30}),
        ("rollback", {}),
        ("forget", {"of": [99], "files": {}, "name": "x", "reason": None}),
        ("forget", {"of": "all", "files": [], "name": 1, "reason": "\x1b[2J"}),
        ("forget", {"of": [], "files": {"1": {"../../x": "y"}}, "name": "x", "reason": None}),
        ("forget", {"of": [], "files": {"1": {"memory-../../x.safetensors": "y"}}, "name": "x", "reason": None}),
        ("forget", {"of": [1], "files": {"x": 1}, "name": "x", "reason": "a" * 100_000}),
        ("rename", {"of": 99}),
        ("rename", {"of": [1]}),
        ("branch", {"name": "../../x", "at": 0}),
        ("branch", {"name": "\x1b[2J", "at": 0}),
        ("branch", {"name": ["x"], "at": 0}),
        ("branch", {"name": "main", "at": -1}),
        ("switch", {"from": {"a": "b"}}),
        ("delete-branch", {"name": "main", "at": 0}),
        ("delete-branch", {"name": "nothing", "at": 0}),
        ("__class__", {}),
    )
    for kind, what in made:

        def add(events: list[Body], kind: str = kind, what: Body = what) -> None:
            events.append(events[0] | {"kind": kind, "what": what, "private": None, "seal": None, "version": 2})

        yield f"an event {kind} {what!r}"[:60], add
    for shown in ("\x1b[2J", "[bold]", "a" * 100_000, "", None, 1, ["x"], "\u202e", "a\nb"):

        def rename(events: list[Body], shown: Any = shown) -> None:
            more = {"kind": "rename", "what": {"of": 1}, "private": {"shown": shown, "salt": "x"}, "version": 2}
            events.append(events[0] | more)

        yield f"shown as {shown!r}"[:60], rename


def texts() -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Ledgers that are spoiled as files."""
    yield "nothing", lambda data: b""
    yield "zeros", lambda data: b"\0" * 4096
    yield "half", lambda data: data[: len(data) // 2]
    yield "one byte short", lambda data: data[:-3]
    yield "two of them", lambda data: data + data
    yield "a word", lambda data: b"null"
    yield "a number", lambda data: b"1"
    yield "a list", lambda data: b"[]"
    yield "an empty object", lambda data: b"{}"
    yield "deep lists", lambda data: b"[" * 200_000
    yield "deep objects", lambda data: b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    yield (
        "deep within",
        lambda data: data.replace(b'"settings": {', b'"settings": {"a": ' + b"[" * 50_000 + b"]" * 50_000 + b",", 1),
    )
    yield "a long number", lambda data: b'{"format": ' + b"9" * 100_000 + b"}"
    yield "a long number within", lambda data: data.replace(b'"steps": 1', b'"steps": ' + b"1" * 5000, 1)
    yield "no number", lambda data: b'{"format": NaN}'
    yield "endless", lambda data: b'{"format": 1e999}'
    yield "format twice", lambda data: data.replace(b'"format": 2', b'"format": 99, "format": 2', 1)
    yield "events twice", lambda data: data.replace(b'"events":', b'"events": [], "events":', 1)
    yield "not UTF-8", lambda data: data.replace(b"rex", b"r\xe9x", 1)
    yield "utf-16", lambda data: data.decode().encode("utf-16")
    yield "a mark before", lambda data: b"\xef\xbb\xbf" + data
    yield "half a pair", lambda data: data.replace(b'"rex"', b'"\\ud800"', 1)
    yield "half a pair as a key", lambda data: data.replace(b'"events"', b'"\\udfff": 1, "events"', 1)
    yield "a comment", lambda data: b"// hello\n" + data
    yield "python", lambda data: b"__import__('os').system('touch TRAP')"
    yield "a million keys", lambda data: b"{" + b",".join(b'"k%d":1' % n for n in range(1_000_000)) + b"}"


def _rewritten_events(place: Place, change: Callable[[list[Body]], object]) -> None:
    rewrite(place.studio, lambda body: None, change)


def show(place: Place) -> list[str]:
    return ["log", str(place.studio)]


def show_json(place: Place) -> list[str]:
    return ["log", str(place.studio), "--json"]


def ledgers() -> Iterator[Case]:
    ways = (show, show_json, draw, learn_good)
    seen: set[str] = set()
    for name, change in spoiled_fields():
        if name not in seen:
            # All by the ways that read most, every third by the others too.
            some = ways if len(seen) % 3 == 0 else (show, draw)
            yield Case(
                "ledgers", name, lambda place, c=change: rewrite(place.studio, c), some, (library,), visits=(looked_at,)
            )
        seen.add(name)

    for name, change in spoiled_events():
        yield Case(
            "ledgers",
            name,
            lambda place, c=change: rewrite(place.studio, lambda body: None, c),
            (show, draw),
            (library,),
            visits=(looked_at,),
        )

    def written(place: Place, change: Callable[[bytes], bytes]) -> None:
        path = place.studio / "ledger.json"
        path.write_bytes(change(path.read_bytes()))

    for name, change in texts():
        yield Case("ledgers", name, partial(written, change=change), (show, draw), (library,), "refused", (looked_at,))

    def instead(place: Place, act: Callable[[Path], object]) -> None:
        path = place.studio / "ledger.json"
        path.unlink()
        act(path)

    for name, act in (
        ("a folder", lambda path: path.mkdir()),
        ("a pipe", lambda path: os.mkfifo(path)),
        ("a link to itself", lambda path: path.symlink_to(path.name)),
        ("a link to /dev/zero", lambda path: path.symlink_to("/dev/zero")),
        ("a link to /etc/passwd", lambda path: path.symlink_to("/etc/passwd")),
        ("a sparse file of 40 GB", lambda path: _sparse(path)),
    ):
        yield Case("ledgers", name, partial(instead, act=act), (show, draw), (library,), "refused", (looked_at,))


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(40 * 2**30)


KEPT: tuple[bytes, ...] = (
    b"",
    b"\0" * 999,
    b"[]",
    b"[" * 200_000,
    b'{"format": 1}',
    b'{"format": 1, "versions": []}',
    b'{"format": 1, "versions": {"x": {}}}',
    b'{"format": 1, "versions": {"1": {"rows": [{"name": "rex"}]}}}',
    b'{"format": 1, "versions": {"1": {"rows": [{"name": "rex", "word": "<rex>", "kept": "x", "photos": []}]}}}',
    b'{"format": 1, "versions": {"1": {"rows": [{"name": [], "word": "<rex>", "kept": null, "photos": null}]}}}',
    b'{"format": 1, "versions": {"1": {"rows": [{"name": "rex", "word": 1, "kept": NaN, "photos": 1e999}]}}}',
    b'{"format": 1, "versions": {"1": {"rows": [{"name": "rex", "word": "\\u001b[2J\\ud800", "kept": 1}]}}}',
    b'{"format": 1, "versions": {"' + b"9" * 5000 + b'": {"rows": []}}}',
    b'{"format": 1, "versions": {"1": {"sheet": "../../x", "rows": []}}}',
)
"""Bad `kept.json`; no concept depends on it."""


def others() -> Iterator[Case]:
    """Everything else that lies in a studio."""
    for number, data in enumerate(KEPT):
        prepare = partial(_put, name="kept.json", data=data)
        yield Case(
            "studios",
            f"kept.json {number}: {data[:40]!r}",
            prepare,
            (show, show_json, _reported),
            visits=(looked_at,),
            expect="taken",
        )

    def act(name: str, do: Callable[[Path], object]) -> Case:
        return Case("studios", name, lambda place: do(place.studio), (draw, learn_good, show), visits=(looked_at,))

    yield act("a file among the concepts", lambda folder: (folder / "concepts" / ".DS_Store").write_bytes(b"x"))
    yield act("a link among the concepts", lambda folder: (folder / "concepts" / "x").symlink_to("/etc"))
    yield act(
        "a link among the concepts to the studio's parent",
        lambda folder: (folder / "concepts" / "x").symlink_to("../.."),
    )
    yield act("a pipe among the concepts", lambda folder: os.mkfifo(folder / "concepts" / "x"))
    yield act("the concepts are a link", lambda folder: _moved(folder / "concepts"))
    yield act("the unfinished is a link", lambda folder: (folder / "unfinished").symlink_to("../base-link"))
    yield act("the unfinished is a file", lambda folder: (folder / "unfinished").write_bytes(b"x"))
    yield act("the unfinished concept is a link", lambda folder: _linked(folder / "unfinished" / "tom", "../../.."))
    yield act("the samples are a file", lambda folder: (folder / "samples").write_bytes(b"x"))
    drawn = (_reported,)
    yield Case("studios", "the samples are a link out", lambda place: _linked(place.studio / "samples", ".."), drawn)
    yield act("the lock is a folder", lambda folder: _folder_for(folder / ".lock"))
    yield act("the lock is a link out", lambda folder: _linked(folder / ".lock", "../locked"))
    yield act("the lock is a pipe", lambda folder: _pipe_for(folder / ".lock"))
    yield act("a concept's file is a folder", lambda folder: _folder_for(next(folder.rglob("change.safetensors"))))
    yield act("a concept's file is a pipe", lambda folder: _pipe_for(next(folder.rglob("change.safetensors"))))
    yield act("a concept's file is /dev/zero", lambda folder: _zero_for(next(folder.rglob("change.safetensors"))))


def _reported(place: Place) -> list[str]:
    return learn(place, photos=place.good)


def _put(place: Place, name: str, data: bytes) -> None:
    (place.studio / name).write_bytes(data)


def _moved(path: Path) -> None:
    away = path.parent.parent / "away"
    shutil.move(path, away)
    path.symlink_to(away)


def _linked(path: Path, target: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _folder_for(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _pipe_for(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _zero_for(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def unfinished() -> Iterator[Case]:
    """The state of a run that was stopped after its first step of two, spoiled."""

    def resume(place: Place) -> list[str]:
        return learn(place, "--no-report", "--steps", "2", photos=place.good)

    def spoil_checkpoint(place: Place, spoil: Spoil) -> None:
        shutil.copytree(place.base.parent / "unfinished", place.studio / "unfinished")
        path = place.studio / "unfinished" / "tom" / "checkpoint.safetensors"
        path.write_bytes(spoil(path.read_bytes(), place))

    for name, _, spoil in SPOILED:
        prepare = partial(spoil_checkpoint, spoil=spoil)
        yield Case("unfinished", f"checkpoint: {name}", prepare, (resume,), expect="taken")

    def spoil_request(place: Place, data: bytes) -> None:
        shutil.copytree(place.base.parent / "unfinished", place.studio / "unfinished")
        (place.studio / "unfinished" / "tom" / "request.json").write_bytes(data)

    for data in (b"", b"null", b"[" * 200_000, b"\xff\xfe", b"{}", b"9" * 9000, b'{"parent": NaN}'):
        prepare = partial(spoil_request, data=data)
        yield Case("unfinished", f"request: {data[:20]!r}", prepare, (resume, show), expect="taken")


def cases() -> Iterator[Case]:
    yield from ledgers()
    yield from others()
    yield from unfinished()
