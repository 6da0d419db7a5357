"""The rows of the classification table: an adapter, and what becomes of each task's change; every head judges each.

`--methods` takes rows and groups by commas. A row is an adapter ("stamina") or an adapter under a merge ("stamina,
averaged"); the table has it once for each head. Its settings are the preset's for its method, then the row's own, then
those of a file of tuned settings:

version = 1
[row."c-lora"]
strength = 1e3
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backbones.classifier import Softmax
from ..errors import SettingsError, nearest
from ..method import Method
from ..methods.variants import ADAPTERS, CLASSIFICATION, MERGES, SEEN_SOFTMAX, merged
from ..settings import Resolved, resolve
from ..toml_tables import read_toml, table

JOINT, FROZEN = "joint", "frozen"
BOUNDS: dict[str, tuple[str, dict[str, Any]]] = {JOINT: ("lora", {}), FROZEN: ("textual-inversion", {})}
"""All classes at once; and the head alone, which under the nearest mean is SimpleCIL (arXiv 2303.07338)."""

MERGED = {f"{adapter}, {merge}": merged(adapter, merge) for adapter in ADAPTERS for merge in MERGES if merge != "sum"}
ROWS = {**BOUNDS, **CLASSIFICATION, **MERGED}
GROUPS: dict[str, Iterable[str]] = {
    "all": ROWS,
    "bounds": BOUNDS,
    "paper": [JOINT, FROZEN, "ft", "ft++", "lwf", "ewc", "lora", "c-lora", "stamina"],
    "rivals": ["lora, averaged", "lora, perturb-and-merge", "o-lora", "inflora", "sd-lora", "slca"],
    "grid": [*ADAPTERS, *MERGED],
}
"""What `--methods` may name beside rows."""


@dataclass(frozen=True)
class ClassRow:
    """One adapter under one merge."""

    name: str
    of: str
    """The row of `ROWS` that it is, or that it is a trial of."""
    method: str
    settings: tuple[tuple[str, str], ...] = ()
    """Fields of the method or the plan, as text."""

    @property
    def adapter(self) -> str:
        return self.of.rpartition(", ")[0] if self.merge != "sum" else self.of

    @property
    def merge(self) -> str:
        last = self.of.rpartition(", ")[2]
        return last if last in MERGES else "sum"

    @property
    def joint(self) -> bool:
        return self.of == JOINT

    @property
    def softmax(self) -> Softmax:
        return "seen" if self.of in SEEN_SOFTMAX else "local"

    def resolve(self, preset: str, overrides: Mapping[str, str], seed: int, tasks: int) -> Resolved:
        """Its method and plan; its own settings win over `overrides`, and `tasks`, the stream's, over the preset's.

        Raises SettingsError for what no field takes.
        """
        given = {**overrides, **dict(self.settings)}
        try:
            found = resolve(preset, self.method, overrides=given, seed=seed)
        except SettingsError as error:
            raise SettingsError(f"row {self.name!r}: {error.what}", where=error.where, do=error.do) from error
        if any(key.rpartition(".")[2] == "tasks" for key in given):
            return found
        return dataclasses.replace(found, method=told(found.method, tasks))


def chosen(asked: str, tuned: Mapping[str, Mapping[str, Any]] | None = None) -> list[ClassRow]:
    """The rows that `a,b|paper|all` names, in the table's order, each once. Raises SettingsError with the nearest name.

    >>> [row.name for row in chosen("stamina, averaged,lora")]
    ['lora', 'stamina, averaged']
    """
    parts, names = [part.strip() for part in asked.split(",")], set()
    while parts:
        for count in (2, 1):
            name = ", ".join(parts[:count])
            if name in ROWS or name in GROUPS:
                names |= set(GROUPS.get(name, [name]))
                parts = parts[count:]
                break
        else:
            near = nearest(parts[0], [*ROWS, *GROUPS])
            hint = f"Did you mean {near!r}? " if near else ""
            do = f"{hint}Groups: {', '.join(GROUPS)}. Rows: {'; '.join(ROWS)}."
            raise SettingsError(f"there is no method {parts[0]!r}", where="--methods", do=do)
    return [row_of(name, tuned or {}) for name in ROWS if name in names]


def row_of(name: str, tuned: Mapping[str, Mapping[str, Any]]) -> ClassRow:
    """One row with what was tuned for it; under a merge with what was tuned for its adapter, if nothing of its own."""
    method, settings = ROWS[name]
    row = ClassRow(name, name, method)
    found = {**flat(settings), **{key: _text(value) for key, value in tuned.get(name, {}).items()}}
    if row.merge != "sum" and name not in tuned:
        found |= {_held(key): _text(value) for key, value in tuned.get(row.adapter, {}).items()}
    return dataclasses.replace(row, settings=tuple(found.items()))


def told(method: Method, tasks: int) -> Method:
    """A method that counts on a number of tasks (InfLoRA, held or not) with that of the stream."""
    changes: dict[str, Any] = {"tasks": tasks} if any(one.name == "tasks" for one in dataclasses.fields(method)) else {}
    if isinstance(held := getattr(method, "over", None), Method):
        changes["over"] = told(held, tasks)
    return dataclasses.replace(method, **changes)


def _held(key: str) -> str:
    plan = key in ("epochs", "steps", "batch", "clip_norm", "weight_decay", "schedule")
    return key if plan else f"over.{key}"


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """A method's settings as `--set` takes them; a held method first, then its own fields.

    >>> flat({"over": {"name": "lora", "rank": 8}})
    {'over': 'lora', 'over.rank': '8'}
    """
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            inside = {inner: told for inner, told in value.items() if inner != "name"}
            found |= {f"{before}{key}": str(value["name"]), **flat(inside, f"{before}{key}.")}
        else:
            found[f"{before}{key}"] = _text(value)
    return found


def _text(value: Any) -> str:
    """A plain value as `--set` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value)


def read_tuned(path: Path | None) -> dict[str, dict[str, Any]]:
    """The tables of a file of tuned settings, by row; {} where there is none. Raises SettingsError for unknown rows."""
    if path is None:
        return {}
    found = table(read_toml(path, ["row", "made"]).get("row", {}), "[row]", path)
    rows = {name: dict(table(values, f'[row."{name}"]', path)) for name, values in found.items()}
    for name, values in rows.items():
        values.pop("scores", None)
        if name not in ROWS:
            near = nearest(name, ROWS)
            hint = f" Did you mean {near!r}?" if near else ""
            raise SettingsError(f"there is no row {name!r}", where=path, do=f"Rows: {'; '.join(ROWS)}.{hint}")
        for key, value in values.items():
            if not isinstance(value, str | int | float | bool):
                raise SettingsError(f"row {name!r}: {key} is {value!r}", where=path, do="Give a number or a word.")
    return rows
