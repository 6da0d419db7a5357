"""Bad base models: pickled weights, missing parts, foreign classes, waiting code, sizes that fill a machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .cases import Case, Expect, Place
from .tensors import SPOILED, packed, pickled, zipped

Spoil = Callable[[Path, Place], object]
"""Spoils a good pipeline's folder."""


def edit(file: str, **values: Any) -> Spoil:
    """Some fields of a JSON file, changed."""

    def spoil(folder: Path, place: Place) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return spoil


def put(file: str, data: bytes) -> Spoil:
    def spoil(folder: Path, place: Place) -> None:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return spoil


def drop(file: str) -> Spoil:
    def spoil(folder: Path, place: Place) -> None:
        path = folder / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(folder: Path, place: Place) -> None:
        for one in spoils:
            one(folder, place)

    return spoil


def code(file: str) -> Spoil:
    """A module that springs the trap when it is imported."""

    def spoil(folder: Path, place: Place) -> None:
        text = f"import os\nos.system({place.payload!r})\nclass Evil:\n    pass\n"
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return spoil


def weights(part: str, change: Callable[[bytes, Place], bytes]) -> Spoil:
    def spoil(folder: Path, place: Place) -> None:
        (path,) = (folder / part).glob("*.safetensors")
        path.write_bytes(change(path.read_bytes(), place))

    return spoil


def as_pickle(part: str, name: str, keep: bool, make: Callable[[bytes, Place], bytes]) -> Spoil:
    """Weights as a pickle, beside or instead of the good ones."""

    def spoil(folder: Path, place: Place) -> None:
        (path,) = (folder / part).glob("*.safetensors")
        (folder / part / name).write_bytes(make(b"", place))
        if not keep:
            path.unlink()

    return spoil


def decoy(part: str, name: str) -> Spoil:
    """A pickle under the name that is looked for, and a safetensors file of nothing to pass for it."""

    def spoil(folder: Path, place: Place) -> None:
        (path,) = (folder / part).glob("*.safetensors")
        path.unlink()
        (folder / part / "decoy.safetensors").write_bytes(packed({}))
        (folder / part / name).write_bytes(zipped(b"", place))

    return spoil


def sharded(part: str, stem: str, target: str) -> Spoil:
    """An index of shards that names something else as a shard."""

    def spoil(folder: Path, place: Place) -> None:
        (path,) = (folder / part).glob("*.safetensors")
        header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
        names = [name for name in header if name != "__metadata__"]
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, target)}
        (folder / part / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
        path.rename(folder / part / "other.safetensors")
        (folder / part / "evil.bin").write_bytes(zipped(b"", place))

    return spoil


INDEX = "model_index.json"
VAST = 2**40


def wordless(folder: Path, place: Place) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    found = json.loads(path.read_text())
    found["model"] |= {"vocab": {}, "merges": []}
    path.write_text(json.dumps(found))


BROKEN: tuple[tuple[str, Expect, Spoil], ...] = (
    ("no index", "refused", drop(INDEX)),
    ("an empty index", "refused", put(INDEX, b"")),
    ("an index of noise", "refused", put(INDEX, b"\xff\xfe\0\x01" * 50)),
    ("an index as deep as a well", "refused", put(INDEX, b"[" * 200_000)),
    ("an index of a long number", "refused", put(INDEX, b"9" * 9000)),
    ("an index that is a list", "refused", put(INDEX, b"[]")),
    ("a class that is a number", "refused", edit(INDEX, _class_name=1)),
    ("a class of Python's", "refused", edit(INDEX, _class_name="__import__('os').system('touch TRAP')")),
    ("a class that is a path", "refused", edit(INDEX, _class_name="../../x")),
    ("a class of its own", "refused", both(edit(INDEX, _class_name=["pipeline", "Evil"]), code("pipeline.py"))),
    ("another family", "refused", edit(INDEX, _class_name="FluxPipeline")),
    ("an inpainting model", "refused", edit(INDEX, _class_name="StableDiffusionInpaintPipeline")),
    ("no text encoder", "refused", drop("text_encoder")),
    ("no tokenizer", "refused", drop("tokenizer")),
    ("no scheduler", "refused", drop("scheduler")),
    ("no vae configuration", "refused", drop("vae/config.json")),
    ("a part that is a file", "refused", both(drop("unet"), put("unet", b"x"))),
    ("the unet is null", "refused", edit(INDEX, unet=[None, None])),
    ("the unet is a number", "refused", edit(INDEX, unet=3)),
    ("the unet is os.system", "refused", edit(INDEX, unet=["os", "system"])),
    ("the unet is subprocess.Popen", "refused", edit(INDEX, unet=["subprocess", "Popen"])),
    ("the unet is a path above", "refused", edit(INDEX, unet=["../../evil", "Evil"])),
    ("the unet's code is beside it", "refused", both(edit(INDEX, unet=["evil", "Evil"]), code("unet/evil.py"))),
    (
        "the scheduler's code is beside it",
        "refused",
        both(edit(INDEX, scheduler=["evil", "Evil"]), code("scheduler/evil.py")),
    ),
    (
        "the tokenizer's code is beside it",
        "refused",
        both(edit(INDEX, tokenizer=["evil", "Evil"]), code("tokenizer/evil.py")),
    ),
    (
        "code in the folder itself",
        "either",
        both(code("evil.py"), code("torch.py"), code("unet/diffusers.py"), code("pipeline.py")),
    ),
    (
        "code named after a module",
        "either",
        both(code("transformers.py"), code("unet/__init__.py"), code("sitecustomize.py")),
    ),
    (
        "an auto map",
        "either",
        both(
            edit("text_encoder/config.json", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}),
            code("text_encoder/evil.py"),
        ),
    ),
    (
        "a tokenizer's auto map",
        "either",
        both(
            edit("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}),
            code("tokenizer/evil.py"),
        ),
    ),
    ("a part that is not ours", "either", both(edit(INDEX, extra=["evil", "Evil"]), code("extra/evil.py"))),
    ("an unknown tokenizer class", "either", edit("tokenizer/tokenizer_config.json", tokenizer_class="Evil")),
    ("an unknown scheduler", "refused", edit(INDEX, scheduler=["diffusers", "Evil"])),
    ("an unknown prediction", "refused", edit("scheduler/scheduler_config.json", prediction_type="evil")),
    ("a schedule without end", "refused", edit("scheduler/scheduler_config.json", num_train_timesteps=VAST)),
    ("a schedule of text", "refused", edit("scheduler/scheduler_config.json", num_train_timesteps="1000")),
    ("a schedule of nothing", "refused", edit("scheduler/scheduler_config.json", num_train_timesteps=0)),
    ("betas that are no numbers", "either", edit("scheduler/scheduler_config.json", beta_start=float("nan"))),
    ("pictures without end", "refused", edit("unet/config.json", sample_size=VAST)),
    ("pictures of nothing", "refused", edit("unet/config.json", sample_size=0)),
    ("pictures of text", "refused", edit("unet/config.json", sample_size="8")),
    ("a network without end", "refused", edit("unet/config.json", block_out_channels=[VAST])),
    ("a text encoder without end", "refused", edit("text_encoder/config.json", hidden_size=VAST)),
    ("layers without end", "refused", edit("text_encoder/config.json", num_hidden_layers=10**9)),
    ("words without end", "refused", edit("text_encoder/config.json", vocab_size=VAST)),
    ("a decoder without end", "refused", edit("vae/config.json", block_out_channels=[VAST, VAST])),
    ("heads of nothing", "refused", edit("unet/config.json", attention_head_dim=0)),
    ("a configuration of noise", "refused", put("unet/config.json", b"\xff\0\xff")),
    ("a configuration that is a list", "refused", put("unet/config.json", b"[]")),
    ("a configuration as deep as a well", "refused", put("unet/config.json", b"[" * 200_000)),
    ("no words", "refused", wordless),
    ("no words beside", "either", put("tokenizer/vocab.json", b"{}")),
    ("a pickle instead of weights", "refused", as_pickle("unet", "diffusion_pytorch_model.bin", False, zipped)),
    (
        "an old pickle instead of weights",
        "refused",
        as_pickle("text_encoder", "pytorch_model.bin", False, lambda d, p: pickled(p)),
    ),
    ("a pickle beside the weights", "either", as_pickle("unet", "diffusion_pytorch_model.bin", True, zipped)),
    ("a checkpoint beside the weights", "either", as_pickle("vae", "model.ckpt", True, zipped)),
    ("a pickle and a decoy", "refused", decoy("unet", "diffusion_pytorch_model.bin")),
    ("a pickle and a decoy for the text", "refused", decoy("text_encoder", "pytorch_model.bin")),
    ("shards that are a pickle", "refused", sharded("unet", "diffusion_pytorch_model", "evil.bin")),
    ("text shards that are a pickle", "refused", sharded("text_encoder", "model", "evil.bin")),
    ("shards that lie above", "refused", sharded("unet", "diffusion_pytorch_model", "../../../../etc/passwd")),
    ("shards that are a device", "refused", sharded("unet", "diffusion_pytorch_model", "/dev/zero")),
    (
        "a pipe as configuration",
        "refused",
        both(drop("unet/config.json"), lambda folder, place: os.mkfifo(folder / "unet/config.json")),
    ),
    ("a pipe beside", "either", lambda folder, place: os.mkfifo(folder / "unet/x.json")),
    ("a link to /dev/zero beside", "either", lambda folder, place: (folder / "unet/x.json").symlink_to("/dev/zero")),
    ("a folder that is a link to itself", "either", lambda folder, place: (folder / "loop").symlink_to(folder)),
    ("a file that is a link to itself", "either", lambda folder, place: (folder / "loop.json").symlink_to("loop.json")),
)


def spoiled(place: Place, spoil: Spoil) -> None:
    folder = place.root / "base"
    shutil.copytree(place.base, folder)
    shutil.rmtree(place.studio)
    spoil(folder, place)


def begin(place: Place) -> list[str]:
    return ["init", str(place.studio), "--base", str(place.root / "base")]


def library(place: Place) -> None:
    """Make a studio on it and draw, which is where its files are opened."""
    from stamina_diffusion.studio import Studio

    Studio.create(place.studio, str(place.root / "base")).backbone().draw(["a cat"], [0], steps=1)


def cases() -> Iterator[Case]:
    for name, expect, spoil in BROKEN:
        # `init` need not open everything; the library's route does, and there the expectation holds.
        prepare = partial(spoiled, spoil=spoil)
        yield Case("bases", name, prepare, (begin,))
        yield Case("bases", f"{name}, drawn", prepare, (), (library,), expect)
    for name, expect, spoil in SPOILED:
        for part in ("unet", "text_encoder"):
            # Numbers that are none are the base's own; nothing is promised about its pictures.
            wanted = "either" if "numbers" in name or name == "integers for floats" else expect
            prepare = partial(spoiled, spoil=weights(part, spoil))
            yield Case("bases", f"{part}: {name}", prepare, (), (library,), wanted)
    for source in (
        "",
        "\0",
        "\ud800",
        "../..",
        "/dev/zero",
        "owner/../model",
        "-x/y",
        "a/b/c",
        "https://example.org/x",
        "file:///etc",
        "~",
        "x" * 5000,
    ):

        def command(place: Place, source: str = source) -> list[str]:
            return ["init", str(place.root / "new"), f"--base={source}"]

        def call(place: Place, source: str = source) -> None:
            from stamina_diffusion.studio import Studio

            Studio.create(place.root / "new", source)

        yield Case("bases", f"source {source!r}"[:60], commands=(command,), calls=(call,), expect="refused")
