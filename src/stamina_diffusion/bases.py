"""Where a base model is, whether it is one that we can teach, and whether it is still the same."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import files, single_files
from .backbones.diffusion import families
from .errors import BaseChangedError, BaseModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_WHOLE_NUMBERS = ("float32", "float16", "bfloat16")
_STORED = {"F64", "F32", "F16", "BF16", "I64", "I32", "BOOL"}
"""What a safetensors file of a base may hold: weights in float16 or more, and positions."""


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
    network: Literal["pipeline", "vit"] = "pipeline"
    """What is taught: a text-to-image pipeline, or a classifier."""

    def record(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "network" or value != "pipeline"}

    def family(self) -> families.Family | None:
        """Its family, by the index of its pipeline alone; None for a classifier, and where no index is at hand."""
        if self.network == "vit" or not (index := self._index()):
            return None
        try:
            return families.recognise(index.parent)
        except BaseModelError:
            return None  # whoever loads it says why

    def _index(self) -> Path | None:
        if self.kind == "embedded":
            from . import embedded

            return embedded.folder() / families.INDEX
        if self.kind == "file":
            return single_files.unpacked_folder(self.hash) / families.INDEX
        if self.kind == "folder":
            return Path(self.source) / families.INDEX
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.source, families.INDEX, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def folder(self) -> Path:
        """The folder of the base, after a check that it is the one of the record.

        Raises BaseModelError when it is not there, BaseChangedError when its files are others.
        """
        if self.kind == "file":
            return self._unpacked()
        if self.network == "vit":
            folder = _locate_vit(self.kind, self.source, self.revision)
        else:
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
    if _exists(source) and Path(source).expanduser().is_file():
        return _single(Path(source).expanduser().resolve(), config)
    kind, source = _place(source, "the folder of a diffusers pipeline, or a hub id such as owner/model")
    folder = _locate(kind, source, revision, variant)
    if kind == "hub":
        # A hub snapshot's folder is named after its commit: what was loaded today is what is loaded tomorrow.
        revision = folder.name
    return Base(kind, source, hash_of(folder), revision, variant)


def find_vit(source: str, *, revision: str | None = None) -> Base:
    """The classifier that `source` names: 'embedded', a folder of transformers' or timm's layout, or a hub id.

    Raises BaseModelError.
    """
    kind, source = _place(source, "the folder of a ViT, or a hub id such as google/vit-base-patch16-224-in21k")
    folder = _locate_vit(kind, source, revision)
    return Base(kind, source, hash_of(folder), folder.name if kind == "hub" else revision, network="vit")


def _place(source: str, others: str) -> tuple[Literal["embedded", "folder", "hub"], str]:
    """What kind of place `source` names, and its one spelling. Raises BaseModelError, which says what `others` fit."""
    if source == "embedded":
        return "embedded", source
    if _exists(source):
        return "folder", str(Path(source).expanduser().resolve())
    if _HUB_ID.fullmatch(source):
        return "hub", source
    what = "there is no such folder, and it is no hub id"
    raise BaseModelError(what, where=source, do=f"Give 'embedded', {others}.")


def _locate_vit(kind: str, source: str, revision: str | None) -> Path:
    if kind == "embedded":
        from . import embedded

        return embedded.vit_folder()
    if kind == "folder":
        folder = Path(source)
    else:
        from huggingface_hub import snapshot_download

        try:
            wanted = ["config.json", "preprocessor_config.json", "*.safetensors"]
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=wanted))
        except Exception as error:  # the hub's client raises a dozen kinds, from network to licence
            what, do = _explained(error, revision, None)
            raise BaseModelError(what, where=source, do=do) from error
    if not (folder / "config.json").is_file() or not sorted(folder.glob("*.safetensors")):
        raise BaseModelError(
            "holds no ViT: config.json and safetensors weights are wanted",
            where=folder,
            do="Give a folder that transformers' save_pretrained wrote, or a checkpoint of timm as safetensors.",
        )
    return folder


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
    from diffusers import DiffusionPipeline
    from huggingface_hub import hf_hub_download

    try:
        # The index first: a family that we cannot teach is refused before gigabytes are fetched.
        index = hf_hub_download(source, families.INDEX, revision=revision)
        families.family_of(files.read_json(Path(index)), source)
        return Path(DiffusionPipeline.download(source, revision=revision, variant=variant, use_safetensors=True))
    except BaseModelError:
        raise
    except Exception as error:  # the hub's client raises a dozen kinds, from network to licence
        what, do = _explained(error, revision, variant)
        raise BaseModelError(what, where=source, do=do) from error


def _explained(error: Exception, revision: str | None, variant: str | None) -> tuple[str, str]:
    """What went wrong with the hub, and what to do about it."""
    from huggingface_hub import errors, is_offline_mode

    if isinstance(error, errors.GatedRepoError):
        return (
            "is gated: its owner wants a licence accepted first",
            "Accept it on the model's page on the hub, log in here with 'hf auth login', and try again.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}", "Give a branch, a tag or a commit of it, or leave --revision out."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "is not on the hub, or is private",
            "Check the name; for a private model log in with 'hf auth login'.",
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        why = "HF_HUB_OFFLINE is set" if is_offline_mode() else "the hub cannot be reached"
        return (
            f"is not on this machine, and {why}",
            "Go online once to fetch it, or download it elsewhere and give its folder.",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return (
            "is no diffusers pipeline: it has no model_index.json",
            "Take the model's diffusers version; a single-file checkpoint has to be converted first.",
        )
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    hint = f" or without --variant {variant}" if variant else ""
    return f"cannot be had from the hub: {said}", f"Check the name and the network, try again{hint}; or give a folder."


def check_folder(folder: Path) -> None:
    """Raise BaseModelError unless `folder` is a diffusers pipeline that we can teach, with safetensors weights."""
    if not folder.is_dir():
        raise BaseModelError("there is no such folder", where=folder, do="Give the folder of a diffusers pipeline.")
    if not (folder / families.INDEX).is_file():
        raise BaseModelError(
            "is not a pipeline folder: it has no model_index.json",
            where=folder,
            do="Give a folder that diffusers' save_pretrained wrote, such as one with vae/ and text_encoder/.",
        )
    for component in families.networks_in(folder):
        part = folder / component
        if not (part / "config.json").is_file():
            raise BaseModelError(f"has no {component}/config.json", where=folder, do="Restore the pipeline's files.")
        weights = sorted(part.glob("*.safetensors"))
        if weights:
            _check_precision(part, weights)
            continue
        pickled = sorted(path.name for path in part.iterdir() if path.suffix in _PICKLES)
        if pickled:
            raise BaseModelError(
                f"has pickled weights ({pickled[0]}), which can run code when they are opened",
                where=part,
                do="Convert them where you trust them: load the pipeline, then call its save_pretrained.",
            )
        raise BaseModelError("has no safetensors weights", where=part, do="Restore the pipeline's files.")


def _check_precision(part: Path, weights: list[Path]) -> None:
    """Raise BaseModelError for weights in 8 bits or fewer: what is learned would vanish in their rounding."""
    from safetensors import SafetensorError, safe_open

    do = f"Take the model's weights in one of {', '.join(_WHOLE_NUMBERS)}: small changes are lost in coarser numbers."
    try:
        config = files.read_json(part / "config.json")
        quantised = config.get("quantization_config")
        for path in weights:
            with safe_open(path, framework="numpy") as file:
                found = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no mapping)
            if found - _STORED:
                raise BaseModelError(f"has weights in {sorted(found - _STORED)[0]}", where=path, do=do)
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise BaseModelError(f"is damaged: {error}", where=part, do="Restore the pipeline's files.") from error
    if quantised:
        kind = quantised.get("quant_method", "some method") if isinstance(quantised, dict) else quantised
        raise BaseModelError(f"is quantised ({kind})", where=part, do=do)


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
