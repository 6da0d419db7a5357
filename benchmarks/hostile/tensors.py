"""Bad safetensors: lying headers, wrong shapes and types, pickles under another name; in every file that is one."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import visits
from .cases import Case, Expect, Place, draw, learn, pickled

Spoil = Callable[[bytes, Place], bytes]
"""A good file's bytes → a bad one's."""


def packed(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file by hand, so that its header may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parted(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def first(header: dict[str, Any]) -> str:
    return sorted(name for name in header if name != "__metadata__")[0]


def edited(change: Callable[[dict[str, Any], str], Any]) -> Spoil:
    """A file whose header was changed at its first tensor; the tensors' bytes stay."""

    def spoil(data: bytes, place: Place) -> bytes:
        header, rest = parted(data)
        change(header, first(header))
        return packed(header, rest)

    return spoil


def entry(**values: Any) -> Spoil:
    return edited(lambda header, name: header[name].update(values))


def repeated(data: bytes, place: Place) -> bytes:
    header, rest = parted(data)
    name = first(header)
    text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
    return packed(text.encode(), rest)


def zipped(data: bytes, place: Place) -> bytes:
    """What torch.save writes: an archive with a pickle in it."""
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(place))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def filled(number: bytes) -> Spoil:
    """A file in which every float32 is the same."""

    def spoil(data: bytes, place: Place) -> bytes:
        header, rest = parted(data)
        return packed(header, number * (len(rest) // 4))

    return spoil


def shifted(header: dict[str, Any], name: str) -> None:
    begin, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = [begin + 4, end + 4]


def overlapping(header: dict[str, Any], name: str) -> None:
    names = sorted(key for key in header if key != "__metadata__")
    header[names[-1]]["data_offsets"] = header[name]["data_offsets"]


SPOILED: tuple[tuple[str, Expect, Spoil], ...] = (
    ("nothing", "refused", lambda data, place: b""),
    ("seven bytes", "refused", lambda data, place: data[:7]),
    ("only a length", "refused", lambda data, place: data[:8]),
    ("half", "refused", lambda data, place: data[: len(data) // 2]),
    ("one byte short", "refused", lambda data, place: data[:-1]),
    ("one byte long", "refused", lambda data, place: data + b"\0"),
    ("zeros", "refused", lambda data, place: b"\0" * 4096),
    ("length of 2^64 - 1", "refused", lambda data, place: b"\xff" * 8 + data[8:]),
    ("length of 2^63", "refused", lambda data, place: struct.pack("<Q", 2**63) + data[8:]),
    ("length of 100 MB", "refused", lambda data, place: struct.pack("<Q", 100_000_000) + data[8:]),
    ("length past the end", "refused", lambda data, place: struct.pack("<Q", len(data)) + data[8:]),
    ("length of nothing", "refused", lambda data, place: struct.pack("<Q", 0) + data[8:]),
    ("a header of noise", "refused", lambda data, place: packed(b"\xff\xfe" * 50, data)),
    ("a header of spaces", "refused", lambda data, place: packed(b" " * 90_000)),
    ("a header that is a list", "refused", lambda data, place: packed([1, 2])),
    ("a header that is null", "refused", lambda data, place: packed(None)),
    ("a header as deep as a well", "refused", lambda data, place: packed(b'{"a":' * 100_000)),
    ("no tensors", "refused", lambda data, place: packed({})),
    ("only metadata", "refused", lambda data, place: packed({"__metadata__": {"a": "b"}})),
    ("metadata of numbers", "refused", edited(lambda header, name: header.update(__metadata__={"a": 1}))),
    ("metadata that nests", "refused", edited(lambda header, name: header.update(__metadata__={"a": {"b": "c"}}))),
    ("an unknown type", "refused", entry(dtype="F7")),
    ("a type that is a number", "refused", entry(dtype=3)),
    ("a type of Python's", "refused", entry(dtype="__import__('os').system('touch TRAP')")),
    ("integers for floats", "refused", entry(dtype="I32")),
    ("offsets beyond the end", "refused", entry(data_offsets=[0, 2**40])),
    ("offsets backwards", "refused", entry(data_offsets=[8, 0])),
    ("offsets below zero", "refused", entry(data_offsets=[-8, 8])),
    ("offsets of 2^64", "refused", entry(data_offsets=[0, 2**64])),
    ("offsets of text", "refused", entry(data_offsets=["0", "8"])),
    ("three offsets", "refused", entry(data_offsets=[0, 4, 8])),
    ("offsets with a gap", "refused", edited(shifted)),
    ("offsets that overlap", "refused", edited(overlapping)),
    ("a shape too large", "refused", entry(shape=[2**40])),
    ("a shape that overflows", "refused", entry(shape=[2**32, 2**32, 2**32])),
    ("a shape below zero", "refused", entry(shape=[-1, -16])),
    ("a shape of text", "refused", entry(shape="16")),
    ("a shape of nothing", "refused", entry(shape=[])),
    (
        "a shape of a thousand ones",
        "refused",
        edited(lambda header, name: header[name].update(shape=[1] * 1000 + header[name]["shape"])),
    ),
    ("a shape turned", "refused", edited(lambda header, name: header[name].update(shape=[1, *header[name]["shape"]]))),
    ("no shape", "refused", edited(lambda header, name: header[name].pop("shape"))),
    ("the first tensor missing", "refused", edited(lambda header, name: header.update({"x" * 99: header.pop(name)}))),
    ("a name with a path", "refused", edited(lambda header, name: header.update({"../../x": header.pop(name)}))),
    (
        "a name of an attribute",
        "refused",
        edited(lambda header, name: header.update({"unet.__class__": header.pop(name)})),
    ),
    ("the same tensor twice", "either", repeated),
    ("a pickle", "refused", lambda data, place: pickled(place)),
    ("an archive of torch", "refused", zipped),
    ("a numpy file", "refused", lambda data, place: b"\x93NUMPY\x01\0" + b"\0" * 99),
    ("an HDF5 file", "refused", lambda data, place: b"\x89HDF\r\n\x1a\n" + b"\0" * 99),
    ("a web page", "refused", lambda data, place: b"<!DOCTYPE html>"),
    ("no numbers at all", "refused", filled(struct.pack("<f", float("nan")))),
    ("endless numbers", "refused", filled(struct.pack("<f", float("inf")))),
)


def seal(studio: Path, file: str, data: bytes) -> None:
    """Put `data` in the place of the first concept's file, and its hash into the ledger: all checks of hashes pass."""
    from stamina_diffusion.studio import Studio

    from .studios import rewrite

    (entry,) = Studio.open(studio).entries
    path = studio / "concepts" / entry.folder / file
    path.write_bytes(data)
    from stamina_diffusion import files

    rewrite(studio, lambda body: body["concepts"][0]["files"].update({file: files.sha256(path)}))


def concept_file(place: Place, spoil: Spoil, file: str, sealed: bool) -> None:
    path = next((place.studio / "concepts").rglob(file))
    data = spoil(path.read_bytes(), place)
    if sealed:
        seal(place.studio, file, data)
    else:
        path.write_bytes(data)


def library(place: Place) -> None:
    from stamina_diffusion.studio import Studio

    studio = Studio.open(place.studio)
    studio.backbone()
    studio.memory()


def cases() -> Iterator[Case]:
    yield from loras()
    teach = partial(learn_good)
    for name, expect, spoil in SPOILED:
        prepare = partial(concept_file, spoil=spoil, file="change.safetensors", sealed=True)
        yield Case("safetensors", f"change: {name}", prepare, (draw, teach), (library,), expect, (visits.looked_at,))
    for name, expect, spoil in SPOILED:
        prepare = partial(concept_file, spoil=spoil, file="memory.safetensors", sealed=True)
        yield Case("safetensors", f"memory: {name}", prepare, (teach,), (library,), expect=expect)
    for name, _, spoil in SPOILED[::4]:
        prepare = partial(concept_file, spoil=spoil, file="change.safetensors", sealed=False)
        yield Case(
            "safetensors", f"change, not sealed: {name}", prepare, (draw,), (library,), "refused", (visits.looked_at,)
        )


KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_{}.weight"
SHAPES = {"A": [2, 16], "B": [16, 2]}


def a_lora(shapes: dict[str, list[int]], said: dict[str, Any] | None = None, **more: Any) -> bytes:
    """A LoRA file of one layer, of ones; `said` is its adapter's metadata."""
    header: dict[str, Any] = {"__metadata__": {"lora_adapter_metadata": json.dumps(said or {})}} | more
    at = 0
    for part, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[KEY.format(part)] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return packed(header, struct.pack("<f", 0.01) * (at // 4))


LORAS: tuple[tuple[str, Expect, bytes], ...] = (
    ("a good one", "taken", a_lora(SHAPES)),
    ("no rank", "refused", a_lora({"A": [0, 16], "B": [16, 0]})),
    ("one dimension", "refused", a_lora({"A": [16], "B": [16]})),
    ("no dimension", "refused", a_lora({"A": [], "B": []})),
    ("many dimensions", "refused", a_lora({"A": [2, 16, 1, 1, 1, 1, 1, 1, 1], "B": [16, 2]})),
    ("turned", "refused", a_lora({"A": [16, 2], "B": [2, 16]})),
    ("one half", "refused", a_lora({"A": [2, 16]})),
    ("a rank above the layer's", "refused", a_lora({"A": [9000, 16], "B": [16, 9000]})),
    ("an alpha of text", "refused", a_lora(SHAPES, {"unet.lora_alpha": "x"})),
    ("an alpha without end", "refused", a_lora(SHAPES, {"unet.lora_alpha": 1e308})),
    ("an alpha of a list", "refused", a_lora(SHAPES, {"unet.lora_alpha": [1]})),
    ("patterns that are a list", "refused", a_lora(SHAPES, {"unet.alpha_pattern": ["x"]})),
    ("metadata that is a list", "refused", a_lora(SHAPES, __metadata__={"lora_adapter_metadata": "[1]"})),
    ("metadata as deep as a well", "refused", a_lora(SHAPES, __metadata__={"lora_adapter_metadata": "[" * 90_000})),
    (
        "a trigger that a terminal obeys",
        "either",
        a_lora(SHAPES, __metadata__={"modelspec.trigger_phrase": "\x1b[2J\x07 {0.x}"}),
    ),
)


def loras() -> Iterator[Case]:
    """LoRA files, which are adopted as concepts."""

    def adopt(place: Place) -> list[str]:
        more = ("--name=tom", "--class=dog", "--no-report")
        return ["learn", str(place.studio), "--from-lora", str(place.root / "a.safetensors"), *more]

    def call(place: Place) -> None:
        from stamina_diffusion import loras
        from stamina_diffusion.studio import Studio

        loras.read(place.root / "a.safetensors", Studio.open(place.studio).backbone())

    def put(place: Place, make: Spoil) -> None:
        (place.root / "a.safetensors").write_bytes(make(a_lora(SHAPES), place))

    made = [(name, expect, spoil) for name, expect, spoil in SPOILED]
    made += [(name, expect, lambda _, place, d=data: d) for name, expect, data in LORAS]
    for name, expect, make in made:
        # A tensor of another name may still be a whole LoRA of fewer layers.
        yield Case("loras", name, partial(put, make=make), (adopt,), (call,), expect=expect)


def learn_good(place: Place) -> list[str]:
    return learn(place, "--no-report", photos=place.good)
