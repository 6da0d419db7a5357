"""A TOML file of this program: its version, and tables whose values are those that a dataclass's fields take.

A value may also come as text, as `--set KEY=VALUE` has it. What does not fit is refused with the nearest that does.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from .errors import Notice, SettingsError, nearest
from .method import Method
from .methods import METHODS, method_class

VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Version → what makes of a file's tables those of the next one; version 1 is the first. The file stays as it is."""
LARGEST = 2**20
"""Bytes of a file."""

LEAST = {
    **dict.fromkeys(("rank", "mask_rank", "word_width", "samples", "batch", "accumulation", "resolution"), 1),
    **dict.fromkeys(("pictures", "directions", "batches", "tasks"), 1),
    "concepts": 2,
    **dict.fromkeys(("rate", "word_rate", "mask_rate", "magnitude_rate", "strength", "sparsity", "guidance"), 0),
    **dict.fromkeys(("seed", "validation_every", "prior_images", "prior_weight", "replay_images", "replay_weight"), 0),
    **dict.fromkeys(("clip_norm", "weight_decay", "ridge", "decay", "step", "plain", "score_weight"), 0),
}
"""The smallest value of a field, wherever it stands. Plan checks some again, for those who build one in Python."""

ABOVE_ZERO = ("temperature",)


def read_toml(path: Path, known: typing.Iterable[str]) -> dict[str, Any]:
    """A TOML file of this program without its version; it may hold the keys `known`.

    One of an earlier version is read as if it were of ours, with a notice. Raises SettingsError.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ValueError("it is no plain file")
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST // 2**10} KiB")
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise SettingsError(f"this is no TOML file: {error}", where=path, do="Mend the line that it names.") from error
    except OSError as error:
        raise SettingsError(f"it cannot be read ({error.strerror})", where=path) from error
    found = _migrated(found, path)
    for key in found:
        if key not in (allowed := ["version", *known]):
            raise SettingsError(unknown(key, allowed, "there is no", "The file takes"), where=path)
    return {key: value for key, value in found.items() if key != "version"}


def _migrated(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """A file's tables as our version has them. Raises SettingsError for a version that we cannot read."""
    version = found.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < min([VERSION, *MIGRATIONS]):
        have = f"version is {version!r}" if "version" in found else "the line with the version is missing"
        raise SettingsError(have, where=path, do=f"Write 'version = {VERSION}' at its top.")
    if version > VERSION:
        do = f"Update stamina-diffusion, which reads versions up to {VERSION}, or take a preset of an earlier one."
        raise SettingsError(f"version is {version}: it was written for a newer stamina-diffusion", where=path, do=do)
    for step in range(version, VERSION):
        found = MIGRATIONS[step](found)
    if version < VERSION:
        warnings.warn(f"{path}: version {version} is read as version {VERSION}", Notice, stacklevel=2)
    return found


def table(values: Any, title: str, path: Path) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise SettingsError(
            f"{title} is {values!r}", where=path, do=f"Make it a table: a line {title}, its keys below."
        )
    return values


@cache
def model_of(cls: type) -> type[BaseModel]:
    """A pydantic model with the fields of a dataclass, and nothing else."""
    hints = typing.get_type_hints(cls)
    fields: dict[str, Any] = {}
    for field in (field for field in dataclasses.fields(cls) if field.init):
        if hints[field.name] is Method:
            fields[field.name] = (str | dict[str, Any], None)
            continue
        limit: dict[str, Any] = {"gt": 0} if field.name in ABOVE_ZERO else {}
        least = 1 if field.name == "steps" else LEAST.get(field.name)
        if least is not None and field.name not in ABOVE_ZERO:
            limit = {"ge": least}
        fields[field.name] = (Annotated[hints[field.name], Field(**limit)], field.default)
    return create_model(cls.__name__, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def checked(cls: type, title: str, values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values of a TOML table, each of the type of the dataclass's field; a held method as a table with its name.

    Raises SettingsError for others.
    """
    model = model_of(cls)
    for key in values:
        if key not in model.model_fields:
            raise SettingsError(unknown(key, model.model_fields, f"{title} has no field", "It takes"), where=path)
    try:
        found = model.model_validate_json(json.dumps(values, default=str), strict=True).model_dump(exclude_unset=True)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = str(wrong["loc"][0])
        what = f"{title} {key} is {values[key]!r}"
        raise SettingsError(what, where=path, do=f"{wrong['msg'].replace('Input', key)}.") from error
    return found | {"over": _checked_held(found["over"], f"{title} over", path)} if "over" in found else found


def _checked_held(over: str | dict[str, Any], title: str, path: Path) -> dict[str, Any]:
    """A held method as a table with its name and its checked settings."""
    values = {"name": over} if isinstance(over, str) else dict(over)
    name = values.pop("name", None)
    if name is None:
        do = 'Write over = "lora", or over = {name = "lora", rank = 8}.'
        raise SettingsError(f"{title} names no method", where=path, do=do)
    if name not in METHODS:
        raise SettingsError(unknown(str(name), METHODS, f"{title} has no method", "Methods:"), where=path)
    return {"name": name, **checked(method_class(name), title, values, path)}


def from_text(model: type[BaseModel], key: str, text: str) -> Any:
    """What `--set key=text` means for a field of this model; 'none' is None where None is allowed."""
    optional = type(None) in typing.get_args(model.model_fields[key].annotation)
    value: Any = None if optional and text.casefold() == "none" else text
    if typing.get_origin(model.model_fields[key].annotation) is tuple:
        value = _list(key, text)
    try:
        return getattr(model.model_validate({key: value}), key)
    except ValidationError as error:
        message = error.errors()[0]["msg"].replace("Input", key).split(", unable")[0]
        raise SettingsError(f"{key} is {text!r}", where=f"--set {key}={text}", do=f"{message}.") from error


def _list(key: str, text: str) -> list[str]:
    """One value, or several in the form of a TOML list."""
    if not text.lstrip().startswith("["):
        return [text]
    try:
        return tomllib.loads(f"list = {text}")["list"]
    except (ValueError, RecursionError) as error:
        do = f"""Write it as --set '{key}=["one", "another"]'."""
        raise SettingsError(f"{text!r} is no list", where=f"--set {key}", do=do) from error


def changed(defaults: Any, overrides: Mapping[str, str]) -> Any:
    """A dataclass's instance with some fields from text. Raises SettingsError for an unknown field or a bad value."""
    model = model_of(type(defaults))
    for key in overrides:
        if key not in model.model_fields:
            raise SettingsError(
                unknown(key, model.model_fields, "there is no setting", "It takes"), where=f"--set {key}"
            )
    values = {key: from_text(model, key, text) for key, text in overrides.items()}
    return dataclasses.replace(defaults, **values)


def unknown(key: str, known: typing.Iterable[str], what: str, takes: str) -> str:
    """`[method.c-lora] has no field 'rnak'. It takes rank, strength. Did you mean 'rank'?`"""
    known = list(known)
    near = nearest(key, known)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"{what} {key!r}. {takes} {', '.join(known)}.{hint}"
