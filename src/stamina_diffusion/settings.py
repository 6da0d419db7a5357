"""Presets are typed, versioned TOML: what a run takes from one, and what the command line changes in it.

A preset holds its `version` and any of the tables `[learn]`, `[plan]`, `[draw]`, `[report]` and `[method.<name>]`, and
may say which preset it `extends`. What both leave out keeps its default; a key it should not have is refused with the
nearest one that it may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bases import Base
from .errors import SettingsError, nearest
from .held import holds, in_order, place_in_held, with_held
from .method import Method
from .methods import METHODS, build, method_class
from .plan import Plan, Storage
from .toml_tables import checked, from_text, model_of, read_toml, table, unknown

FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Learn:
    """How a concept is learned when the command line does not say."""

    method: str = "stamina"


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
    method: str | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
    steps: int | None = None,
    seed: int | None = None,
) -> Resolved:
    """The settings of `preset` for `method`, changed by `overrides` (fields of the method or the plan, as text).

    Without a method it is the preset's. `steps` and `seed` win over both. Raises SettingsError that names the place,
    what was found and what it may be.
    """
    path, values = read(preset)
    method = method or Learn(**values.get("learn", {})).method
    cls = method_class(method)
    tables = {"plan": model_of(Plan), "method": model_of(cls), "draw": model_of(Draw), "report": model_of(Report)}
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
        chosen[table][key] = from_text(tables[table], key, text)
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
    model = model_of(method_class(method))
    if field not in model.model_fields:
        raise SettingsError(unknown(field, model.model_fields, "there is no setting", f"{method} takes"), where=place)
    if field != "over":
        inside[field] = from_text(model, field, text)
    elif text in METHODS:
        # The one that it holds already keeps the settings that the preset gives it there.
        if text != inside["over"]["name"]:
            inside["over"] = with_held(text, {"name": text, **tables.get(text, {})}, tables)
    else:
        raise SettingsError(unknown(text, METHODS, "there is no method", "Methods:"), where=f"{place}={text}")


def draw_settings(preset: str | Path) -> Draw:
    """How a preset draws."""
    return Draw(**read(preset)[1].get("draw", {}))


def read(preset: str | Path) -> tuple[Path, dict[str, Any]]:
    """A preset's path, and its tables with every value checked, of every method that it or what it extends names."""
    path = preset_path(preset)
    known = ["extends", "learn", "plan", "draw", "report", "method", "classification"]
    found = read_toml(path, known)
    below = _extended(found.pop("extends", None), path)
    tables = {
        name: checked(cls, f"[{name}]", table(found[name], f"[{name}]", path), path)
        for name, cls in (("learn", Learn), ("plan", Plan), ("draw", Draw), ("report", Report))
        if name in found
    }
    if (default := tables.get("learn", {}).get("method", Learn.method)) not in METHODS:
        raise SettingsError(unknown(default, METHODS, "[learn] has no method", "Methods:"), where=path)
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


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
