"""Where a base model is, whether it is one that we can teach, and whether it is still the same."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import files, single_files
from .errors import BaseChangedError, BaseModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_COMPONENTS = ("unet", "vae", "text_encoder")


@dataclass(frozen=True)
class Base:
    """A base model as a studio's ledger names it."""

    kind: Literal["embedded", "folder", "file", "hub"]
    source: str
    """'embedded', an absolute folder or file, or a hub id."""
    hash: str
    """Of every weight, configuration and tokenizer file."""
    revision: str | None = None
    variant: str | None = None
    config: str | None = None
    """Of a single file: the folder with what it does not say of itself; None for its family's own on the hub."""

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def folder(self) -> Path:
        """The folder of the base, after a check that it is the one of the record.

        Raises BaseModelError when it is not there, BaseChangedError when its files are others.
        """
        if self.kind == "file":
            return self._unpacked()
        folder = _locate(self.kind, self.source, self.revision, self.variant)
        found = hash_of(folder)
        if found != self.hash:
            raise BaseChangedError(
                f"the base is not the one this studio was made with (now {found[:12]}, then {self.hash[:12]})",
                where=folder,
                do="Restore the base's files"
                + (
                    ", or install the version of stamina-diffusion that made the studio."
                    if self.kind == "embedded"
                    else "."
                )
                + " Nothing in the studio was changed.",
            )
        return folder

    def _unpacked(self) -> Path:
        path, config = Path(self.source), Path(self.config) if self.config else None
        if not path.is_file() or (config and not config.is_dir()):
            gone = config if path.is_file() else path
            raise BaseModelError("is no longer there; the studio's base is in it", where=gone, do="Put it back.")
        found = single_files.hash_of(path, config)
        if found != self.hash:
            raise BaseChangedError(
                f"the base is not the one this studio was made with (now {found[:12]}, then {self.hash[:12]})",
                where=path,
                do="Restore the file and its configuration. Nothing in the studio was changed.",
            )
        return single_files.unpacked(path, config, found)


def find(source: str, *, revision: str | None = None, variant: str | None = None, config: Path | None = None) -> Base:
    """The base that `source` names: 'embedded', a pipeline folder, a single file or a hub id. Raises BaseModelError."""
    if source == "embedded":
        kind = "embedded"
    elif _exists(source) and Path(source).expanduser().is_file():
        return _single(Path(source).expanduser().resolve(), config)
    elif _exists(source):
        kind, source = "folder", str(Path(source).expanduser().resolve())
    elif _HUB_ID.fullmatch(source):
        kind = "hub"
    else:
        raise BaseModelError(
            "there is no such folder, and it is no hub id",
            where=source,
            do="Give 'embedded', the folder of a diffusers pipeline, or a hub id such as owner/model.",
        )
    folder = _locate(kind, source, revision, variant)
    if kind == "hub":
        # A hub snapshot's folder is named after its commit: what was loaded today is what is loaded tomorrow.
        revision = folder.name
    return Base(kind, source, hash_of(folder), revision, variant)  # type: ignore[arg-type]


def _single(path: Path, config: Path | None) -> Base:
    single_files.check(path)
    config = single_files.config_of(path, config)
    digest = single_files.hash_of(path, config)
    check_folder(single_files.unpacked(path, config, digest))
    return Base("file", str(path), digest, config=str(config) if config else None)


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, the home of nobody
        return False


def _locate(kind: str, source: str, revision: str | None, variant: str | None) -> Path:
    if kind == "embedded":
        from . import embedded

        return embedded.folder()
    folder = _download(source, revision, variant) if kind == "hub" else Path(source)
    check_folder(folder)
    return folder


def _download(source: str, revision: str | None, variant: str | None) -> Path:
    from diffusers import StableDiffusionPipeline

    try:
        return Path(StableDiffusionPipeline.download(source, revision=revision, variant=variant, use_safetensors=True))
    except Exception as error:  # the hub's client raises a dozen kinds, from network to licence
        raise BaseModelError(
            f"cannot be had from the hub: {str(error).splitlines()[0]}",
            where=source,
            do="Check the name and the network; for a gated model accept its licence on the hub and log in with "
            "'hf auth login'; or download it elsewhere and give its folder.",
        ) from error


def check_folder(folder: Path) -> None:
    """Raise BaseModelError unless `folder` is a diffusers pipeline with safetensors weights."""
    index = folder / "model_index.json"
    if not folder.is_dir():
        raise BaseModelError("there is no such folder", where=folder, do="Give the folder of a diffusers pipeline.")
    if not index.is_file():
        raise BaseModelError(
            "is not a pipeline folder: it has no model_index.json",
            where=folder,
            do="Give a folder that diffusers' save_pretrained wrote, such as one with unet/, vae/ and text_encoder/.",
        )
    try:
        class_name = files.read_json(index)["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise BaseModelError("is damaged: it names no pipeline class", where=index, do="Restore the file.") from error
    if class_name != "StableDiffusionPipeline":
        raise BaseModelError(
            f"is a {class_name}", where=folder, do="Stable Diffusion 1.x and 2.x pipelines are supported."
        )
    for component in _COMPONENTS:
        part = folder / component
        if not (part / "config.json").is_file():
            raise BaseModelError(f"has no {component}/config.json", where=folder, do="Restore the pipeline's files.")
        if any(part.glob("*.safetensors")):
            continue
        pickled = sorted(path.name for path in part.iterdir() if path.suffix in _PICKLES)
        if pickled:
            raise BaseModelError(
                f"has pickled weights ({pickled[0]}), which can run code when they are opened",
                where=part,
                do="Convert them where you trust them: load the pipeline, then call its save_pretrained.",
            )
        raise BaseModelError("has no safetensors weights", where=part, do="Restore the pipeline's files.")


def hash_of(folder: Path) -> str:
    """One hash over the pipeline's files: names and contents, whatever their dates."""
    whole = hashlib.sha256()
    relevant = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".json", ".txt", ".model")
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    for path in relevant:
        whole.update(f"{path.relative_to(folder).as_posix()}\0{files.sha256(path)}\n".encode())
    return whole.hexdigest()
