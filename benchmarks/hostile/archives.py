"""Bad packed studios: members that lead out, links, bombs, lists that lie, and files that are no archives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import visits
from .cases import Case, Expect, Place
from .studios import KEPT, rewrite

if TYPE_CHECKING:
    from .page import Page

Members = list[tuple[zipfile.ZipInfo, bytes]]
FILE = "given.stamina"


def packed(place: Place) -> bytes:
    """The case's good studio as a packed one."""
    from stamina_diffusion.packing import pack
    from stamina_diffusion.studio import Studio

    out = place.root / "tmp" / "good.stamina"
    pack(Studio.open(place.studio), out)
    data = out.read_bytes()
    out.unlink()
    (place.studio / ".lock").unlink(missing_ok=True)
    return data


def members(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def zipped(found: Members, *, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = comment
        for info, data in found:
            archive.writestr(info, data)
    return buffer.getvalue()


def listed(found: Members, change: Callable[[dict[str, Any]], object] = lambda body: None) -> Members:
    """The members with a list that is right, but for a change."""
    rest = [(info, data) for info, data in found if info.filename != "pack.json"]
    names = {info.filename: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for info, data in rest}
    body: dict[str, Any] = {"format": 1, "files": names}
    change(body)
    return [(zipfile.ZipInfo("pack.json"), json.dumps(body).encode()), *rest]


def added(name: str, data: bytes = b"TRAP", attributes: int = 0, method: int = zipfile.ZIP_STORED) -> Members:
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr, info.compress_type = name, attributes, method
    return [(info, data)]


LEADING_OUT = (
    "../../TRAP",
    "../TRAP",
    "/TRAP",
    "//TRAP",
    "concepts/../../TRAP",
    "concepts/0001-rex/../../../TRAP.safetensors",
    "concepts/0001-rex/..",
    "..\\TRAP",
    "C:\\TRAP",
    "concepts\\..\\..\\TRAP",
    "samples/../../TRAP.png",
    "samples/..png/../../TRAP.png",
    "measured/..",
    "./TRAP",
    "concepts/",
    "concepts/0001-rex",
    "ledger.json/x",
    ".lock",
    "unfinished/x/checkpoint.safetensors",
    "model.py",
    "samples/x.svg",
    "samples/\x1b[2J.png",
    "samples/a\nb.png",
    "samples/" + "x" * 5000 + ".png",
    "samples/\u202egnp.png",
    "LEDGER.JSON",
    "forgetting.json",
    "",
)
"""Names of members that no pack holds."""


def spoiled() -> Iterator[tuple[str, Expect, Callable[[bytes], bytes]]]:
    yield "nothing", "refused", lambda data: b""
    yield "zeros", "refused", lambda data: b"\0" * 4096
    yield "half", "refused", lambda data: data[: len(data) // 2]
    yield "one byte short", "refused", lambda data: data[:-1]
    yield "an empty archive", "refused", lambda data: zipped([])
    yield "a picture before it", "either", lambda data: b"\x89PNG\r\n\x1a\n" + data
    yield "a comment", "either", lambda data: zipped(members(data), comment=b"\x1b[2J" * 99)
    for place in range(1, 10):

        def flipped(data: bytes, place: int = place) -> bytes:
            at = len(data) * place // 10
            return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

        # A bit of a date or of an attribute says nothing.
        yield f"one bit, at {place} tenths", "either", flipped
    for name in LEADING_OUT:
        yield f"a member {name!r}"[:60], "refused", lambda data, n=name: zipped(listed([*members(data), *added(n)]))
    yield "a member not listed", "refused", lambda data: zipped([*members(data), *added("samples/x.png")])
    yield (
        "a member listed and missing",
        "refused",
        lambda data: zipped(
            listed(members(data), lambda body: body["files"].update({"samples/x.png": {"sha256": "0", "size": 1}}))
        ),
    )
    yield "a member twice", "refused", lambda data: zipped(listed([*members(data), *added("ledger.json", b"{}")]))
    link = "concepts/0001-rex/link.safetensors"
    yield (
        "a link",
        "either",
        lambda data: zipped(listed([*members(data), *added(link, b"/etc/passwd", 0o120777 << 16)])),
    )
    yield "a device", "either", lambda data: zipped(listed([*members(data), *added(link, b"", 0o020666 << 16)]))
    bomb = added("samples/bomb.png", b"\0" * 50_000_000, method=zipfile.ZIP_DEFLATED)
    yield "a bomb", "refused", lambda data: zipped(listed([*members(data), *bomb]))
    yield (
        "a thousand more",
        "either",
        lambda data: zipped(listed([*members(data), *(one for n in range(1000) for one in added(f"samples/{n}.png"))])),
    )
    yield "an encrypted member", "refused", lambda data: _flagged(zipped(listed(members(data))), 1)
    yield "an unknown method", "refused", lambda data: _method(zipped(listed(members(data))), 97)
    yield "sizes that lie", "refused", lambda data: _sizes(zipped(listed(members(data))), 2**32 - 2)
    yield "a list that is none", "refused", lambda data: _with_list(data, b"[]")
    yield "a list as deep as a well", "refused", lambda data: _with_list(data, b"[" * 200_000)
    yield "a list of a long number", "refused", lambda data: _with_list(data, b'{"format": ' + b"9" * 9000 + b"}")
    yield "a list of noise", "refused", lambda data: _with_list(data, b"\xff\xfe\0")
    yield "no list", "refused", lambda data: zipped([m for m in members(data) if m[0].filename != "pack.json"])
    for key, value in (
        ("format", 99),
        ("format", True),
        ("format", "1"),
        ("format", None),
        ("files", []),
        ("files", 1),
    ):
        yield (
            f"a list with {key} = {value!r}",
            "refused",
            lambda data, k=key, v=value: zipped(listed(members(data), lambda body: body.update({k: v}))),
        )
    for value in (-1, 10**30, "1", None, True, 1.5):
        yield (
            f"a size of {value!r}"[:40],
            "refused",
            lambda data, v=value: zipped(
                listed(members(data), lambda body: body["files"]["ledger.json"].update(size=v))
            ),
        )
    yield (
        "a hash that is none",
        "refused",
        lambda data: zipped(listed(members(data), lambda body: body["files"]["ledger.json"].update(sha256=None))),
    )
    for number, text in enumerate(KEPT[:8]):
        yield (
            f"bad kept.json {number}",
            "either",
            lambda data, t=text: zipped(
                listed([*(m for m in members(data) if m[0].filename != "kept.json"), *added("kept.json", t)])
            ),
        )
    yield "a tape archive that leads out", "refused", lambda data: _tape("../TRAP")
    yield "a tape archive with a link", "refused", lambda data: _tape("TRAP", link="/etc/passwd")
    yield "a pickle", "refused", lambda data: b"\x80\x02cos\nsystem\nX\x0a\0\0\0touch TRAP\x85R."


def _with_list(data: bytes, text: bytes) -> bytes:
    return zipped([(info, text if info.filename == "pack.json" else body) for info, body in members(data)])


def _patched(data: bytes, at_local: int, at_central: int, value: bytes) -> bytes:
    """Every header of an archive changed at a place."""
    found = bytearray(data)
    for mark, at in ((b"PK\x03\x04", at_local), (b"PK\x01\x02", at_central)):
        place = found.find(mark)
        while place >= 0:
            found[place + at : place + at + len(value)] = value
            place = found.find(mark, place + 4)
    return bytes(found)


def _flagged(data: bytes, flags: int) -> bytes:
    return _patched(data, 6, 8, struct.pack("<H", flags))


def _method(data: bytes, method: int) -> bytes:
    return _patched(data, 8, 10, struct.pack("<H", method))


def _sizes(data: bytes, size: int) -> bytes:
    return _patched(data, 22, 24, struct.pack("<I", size))


def _tape(name: str, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        archive.addfile(info, io.BytesIO())
    return buffer.getvalue()


def open_it(place: Place) -> list[str]:
    return ["unpack", str(place.root / FILE), str(place.root / "new"), "--base", str(place.base)]


def library(place: Place) -> None:
    from stamina_diffusion.packing import unpack

    unpack(place.root / FILE, place.root / "new", base=str(place.base)).backbone()


def uploaded(page: Page, place: Place) -> dict[str, Any]:
    """Dropped among the photos, under the name of one: the page opens no packs."""
    found = visits.dropped(page, place, [("given.png", (place.root / FILE).read_bytes())])
    return found | {"wrong": [*found["wrong"], *([] if found["code"] else ["a pack is taken for a photo"])]}


def put(place: Place, change: Callable[[bytes], bytes]) -> None:
    (place.root / FILE).write_bytes(change(packed(place)))


def sealed(place: Place, change: Callable[[dict[str, Any]], object]) -> None:
    """A pack whose ledger was changed by someone who knows how its hashes are made."""
    data = members(packed(place))
    rewrite(place.studio, change)
    text = (place.studio / "ledger.json").read_bytes()
    found = [(info, text if info.filename == "ledger.json" else body) for info, body in data]
    (place.root / FILE).write_bytes(zipped(listed(found)))


SEALED: tuple[tuple[str, Callable[[dict[str, Any]], object]], ...] = (
    ("a name that leads out", lambda body: body["concepts"][0].update(name="../../x", word="<../../x>")),
    ("a file that leads out", lambda body: body["concepts"][0]["files"].update({"../../x.safetensors": "0" * 64})),
    ("a file that is missing", lambda body: body["concepts"][0]["files"].update({"x.safetensors": "0" * 64})),
    ("a base elsewhere", lambda body: body["base"].update(source="/etc")),
    ("another base", lambda body: body["base"].update(hash="0" * 64)),
    ("a base of the hub", lambda body: body["base"].update(kind="hub", source="evil/model", hash="0" * 64)),
    ("photos of the machine", lambda body: body["concepts"][0].update(photos=[{"path": "/etc/passwd", "sha256": "0"}])),
)


def cases() -> Iterator[Case]:
    for name, expect, change in spoiled():
        yield Case("archives", name, partial(put, change=change), (open_it,), (library,), expect, (uploaded,))
    for name, change in SEALED:
        expect: Expect = "either" if name in ("photos of the machine", "a base elsewhere") else "refused"
        yield Case("archives", f"a ledger with {name}", partial(sealed, change=change), (open_it,), (library,), expect)

    def thing(name: str, act: Callable[[Path], object]) -> Case:
        return Case("archives", name, lambda place: act(place.root / FILE), (open_it,), (library,), expect="refused")

    yield thing("a folder", lambda path: path.mkdir())
    yield thing("a pipe", lambda path: os.mkfifo(path))
    yield thing("a link to itself", lambda path: path.symlink_to(path.name))
    yield thing("/dev/zero", lambda path: path.symlink_to("/dev/zero"))
    yield thing("a sparse file of 40 GB", lambda path: _sparse(path))


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(40 * 2**30)
