"""Presets are typed, versioned TOML: what a run takes from one, and what the command line changes in it.

A preset holds its `version` and any of the tables `[plan]`, `[draw]`, `[report]` and `[method.<name>]`, and may say
which preset it `extends`. What both leave out keeps its default; a key it should not have is refused with the nearest
one that it may have.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from .bases import Base
from .errors import Notice, SettingsError, nearest
from .held import holds, in_order, place_in_held, with_held
from .method import Method
from .methods import METHODS, build, method_class
from .plan import Plan, Storage

VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Version → what makes of a file's tables those of the next one; version 1 is the first. The file stays as it is."""
LARGEST = 2**20
"""Bytes of a preset."""
FOLDER = Path(__file__).parent / "presets"

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


@dataclass(frozen=True)
class Draw:
    """How pictures are drawn when the command line does not say."""

    steps: int = 50
    guidance: float = 6.0
    storage: Storage = "float32"
    """What the weights are stored in, as in the plan: the same model for less memory, but no longer to the bit."""


@dataclass(frozen=True)
class Report:
    """The pictures drawn after each concept, for the sheet and for how well it is kept."""

    samples: int = 4
    """Pictures of each concept."""
    steps: int = 25
    validation_every: int = 0
    """While a concept is learned, draw samples of it after every so many steps; 0 for never."""


@dataclass(frozen=True)
class Resolved:
    """Everything that a run of `learn` needs to know beside its photos."""

    preset: str
    method: Method
    plan: Plan
    draw: Draw
    report: Report


def presets() -> list[str]:
    """The names of the presets that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def preset_for(base: Mapping[str, Any]) -> str:
    """The preset to take for a studio's base when none is named: its family's."""
    if base.get("kind") == "embedded":
        return "embedded"
    family = Base(**base).family()
    return family.preset if family else "paper"


def resolve(
    preset: str | Path,
    method: str,
    *,
    overrides: Mapping[str, str] | None = None,
    steps: int | None = None,
    seed: int | None = None,
) -> Resolved:
    """The settings of `preset` for `method`, changed by `overrides` (fields of the method or the plan, as text).

    `steps` and `seed` win over both. Raises SettingsError that names the place, what was found and what it may be.
    """
    path, values = read(preset)
    cls = method_class(method)
    tables = {"plan": _model(Plan), "method": _model(cls), "draw": _model(Draw), "report": _model(Report)}
    chosen = {
        "plan": dict(values.get("plan", {})),
        "method": with_held(method, dict(values["method"].get(method, {})), values["method"]),
        "draw": values.get("draw", {}),
        "report": values.get("report", {}),
    }
    for key, text in in_order(overrides or {}):
        own = any(key in tables[name].model_fields for name in ("method", "plan"))
        held = key if key.split(".")[0] == "over" else None if own else place_in_held(chosen["method"], key)
        if held:
            _set_held(chosen["method"], method, held, text, values["method"])
            continue
        table = next((name for name in ("method", "plan") if key in tables[name].model_fields), None)
        if table is None:
            known = [*tables["method"].model_fields, *tables["plan"].model_fields]
            raise SettingsError(unknown(key, known, "there is no setting", f"{method} takes"), where=f"--set {key}")
        chosen[table][key] = _from_text(tables[table], key, text)
    given = {"steps": steps, "seed": seed}
    chosen["plan"] |= {key: value for key, value in given.items() if value is not None}
    place = "--set prompts" if "prompts" in (overrides or {}) else path
    try:
        plan = Plan(**{**chosen["plan"], **_tuples(chosen["plan"])})
    except SettingsError as error:
        raise SettingsError(error.what, where=error.where or place, do=error.do) from error
    for prompt in plan.prompts:
        # Not by trying: a field such as {0.x} or {:>999999999} means something to Python, and none of it is wanted.
        if "{" in prompt.replace("{}", "") or "}" in prompt.replace("{}", ""):
            do = "Write {} once for the word, and no other braces."
            raise SettingsError(f"the prompt {prompt!r} has braces that mean nothing", where=place, do=do)
    built = build(method, chosen["method"])
    if built.scope == "network" and plan.storage != "float32":
        do = "Add --set storage=float32, or take a method that changes keys and values."
        raise SettingsError(f"{method} changes every weight, so none can be in {plan.storage}", where=place, do=do)
    return Resolved(str(preset), built, plan, Draw(**chosen["draw"]), Report(**chosen["report"]))


def _set_held(values: dict[str, Any], method: str, key: str, text: str, tables: Mapping[str, dict[str, Any]]) -> None:
    """Change the settings of a method that holds another by `--set over=c-lora` or `--set over.rank=8`."""
    place, inside, field = f"--set {key}", values, key
    while holds(method) and field.startswith("over."):
        inside, field = inside["over"], field.removeprefix("over.")
        method = inside["name"]
    model = _model(method_class(method))
    if field not in model.model_fields:
        raise SettingsError(unknown(field, model.model_fields, "there is no setting", f"{method} takes"), where=place)
    if field != "over":
        inside[field] = _from_text(model, field, text)
    elif text in METHODS:
        inside["over"] = with_held(text, {"name": text, **tables.get(text, {})}, tables)
    else:
        raise SettingsError(unknown(text, METHODS, "there is no method", "Methods:"), where=f"{place}={text}")


def changed(defaults: Any, overrides: Mapping[str, str]) -> Any:
    """A dataclass's instance with some fields from text. Raises SettingsError for an unknown field or a bad value."""
    model = _model(type(defaults))
    for key in overrides:
        if key not in model.model_fields:
            raise SettingsError(
                unknown(key, model.model_fields, "there is no setting", "It takes"), where=f"--set {key}"
            )
    values = {key: _from_text(model, key, text) for key, text in overrides.items()}
    return dataclasses.replace(defaults, **values)


def draw_settings(preset: str | Path) -> Draw:
    """How a preset draws."""
    return Draw(**read(preset)[1].get("draw", {}))


def read(preset: str | Path) -> tuple[Path, dict[str, Any]]:
    """A preset's path, and its tables with every value checked, of every method that it or what it extends names."""
    path = preset_path(preset)
    known = ["extends", "plan", "draw", "report", "method", "classification"]
    found = read_toml(path, known)
    below = _extended(found.pop("extends", None), path)
    tables = {
        name: checked(cls, f"[{name}]", table(found[name], f"[{name}]", path), path)
        for name, cls in (("plan", Plan), ("draw", Draw), ("report", Report))
        if name in found
    }
    tables["method"] = {}
    for name, values in table(found.get("method", {}), "[method]", path).items():
        if name not in METHODS:
            raise SettingsError(unknown(name, METHODS, "[method] has no method", "Methods:"), where=path)
        title = f"[method.{name}]"
        tables["method"][name] = checked(method_class(name), title, table(values, title, path), path)
    return path, _over(below, tables)


def _extended(name: Any, path: Path) -> dict[str, Any]:
    """The tables of the preset that another extends; it is one of ours, so that no two can extend each other."""
    if name is None:
        return {"method": {}}
    if name not in presets():
        raise SettingsError(unknown(str(name), presets(), "extends names no preset", "It takes"), where=path)
    return read(name)[1]


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nests of tables as one; where both have a value, that of `above`."""
    both = {
        key: _over(below[key], value) if isinstance(value, Mapping) and isinstance(below.get(key), Mapping) else value
        for key, value in above.items()
    }
    return {**below, **both}


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


def preset_path(preset: str | Path) -> Path:
    """The file of a preset: one of ours by its name, or a path that ends in .toml."""
    if str(preset) in presets():
        return FOLDER / f"{preset}.toml"
    path = Path(preset)
    if path.is_file():
        return path
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise SettingsError("there is no such preset file", where=path, do=f"Presets by name: {', '.join(presets())}.")
    near = nearest(str(preset), presets())
    hint = f"Did you mean {near!r}? " if near else ""
    do = f"{hint}Presets: {', '.join(presets())}, or the path of a TOML file."
    raise SettingsError(f"there is no preset {str(preset)!r}", do=do)


def table(values: Any, title: str, path: Path) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise SettingsError(
            f"{title} is {values!r}", where=path, do=f"Make it a table: a line {title}, its keys below."
        )
    return values


@cache
def _model(cls: type) -> type[BaseModel]:
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
    model = _model(cls)
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


def _from_text(model: type[BaseModel], key: str, text: str) -> Any:
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


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) for key, value in values.items() if isinstance(value, list)}


def unknown(key: str, known: typing.Iterable[str], what: str, takes: str) -> str:
    """`[method.c-lora] has no field 'rnak'. It takes rank, strength. Did you mean 'rank'?`"""
    known = list(known)
    near = nearest(key, known)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"{what} {key!r}. {takes} {', '.join(known)}.{hint}"
