"""The rows of a table of methods: which there are, which the command line names, and with what settings each runs.

A row is a method with settings (`methods.variants`), or one of three bounds. Its settings are the preset's for its
method, then the row's own, then those that `stamina bench tune` chose, whose file may also define new rows:

version = 1
[row."c-lora"]                # fields of the method or the plan
rate = 1e-3
[row."stamina, half the steps"]
of = "stamina"
steps = 50
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError, nearest
from ..methods.variants import ABLATIONS, OURS, PAPER, SIBLINGS, VARIANTS
from ..settings import Resolved, resolve
from ..toml_tables import read_toml, table

JOINT, SEPARATE, FROZEN = "joint training", "one lora each", "frozen base"
BOUNDS: dict[str, tuple[str, dict[str, Any]]] = {
    JOINT: ("custom-diffusion", {}),
    SEPARATE: ("lora", {}),
    FROZEN: ("lora", {}),
}
"""No continual methods: all concepts at once; for each a LoRA of its own, so not one model; nothing learned at all."""

ROWS = {**BOUNDS, **VARIANTS}
GROUPS = {
    "all": ROWS,
    "bounds": BOUNDS,
    "paper": PAPER,
    "ablations": ABLATIONS,
    "siblings": SIBLINGS,
    "ours": OURS,
}
"""What `--methods` may name beside rows."""


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    of: str
    """The row of `ROWS` that it is, or that it is a variation of."""
    method: str
    settings: tuple[tuple[str, str], ...] = ()
    """Fields of the method or the plan, as text."""

    def resolve(self, preset: str, overrides: Mapping[str, str], seed: int) -> Resolved:
        """Its method and plan; its own settings win over `overrides`. Raises SettingsError for what no field takes."""
        try:
            return resolve(preset, self.method, overrides={**overrides, **dict(self.settings)}, seed=seed)
        except SettingsError as error:
            raise SettingsError(f"row {self.name!r}: {error.what}", where=error.where, do=error.do) from error


def chosen(asked: str, tuned: Mapping[str, Mapping[str, Any]] | None = None) -> list[Row]:
    """The rows that `a,b|paper|all` names, in the table's order, each once; names of rows may hold commas.

    `tuned` is what `read_tuned` gives. Raises SettingsError with the nearest name.

    >>> [row.name for row in chosen("c-lora, class word,lora")]
    ['lora', 'c-lora, class word']
    """
    tuned = tuned or {}
    known = [*ROWS, *(name for name in tuned if name not in ROWS)]
    parts, names = [part.strip() for part in asked.split(",")], []
    while parts:
        for count in range(len(parts), 0, -1):
            name = ", ".join(parts[:count])
            if name in known or name in GROUPS:
                names += GROUPS.get(name, [name])
                parts = parts[count:]
                break
        else:
            near = nearest(parts[0], [*known, *GROUPS])
            hint = f"Did you mean {near!r}? " if near else ""
            do = f"{hint}Groups: {', '.join(GROUPS)}. Rows: {'; '.join(known)}."
            raise SettingsError(f"there is no method {parts[0]!r}", where="--methods", do=do)
    return [row_of(name, tuned) for name in known if name in names]


def row_of(name: str, tuned: Mapping[str, Mapping[str, Any]]) -> Row:
    """One row with what was tuned for it, or else for the row that it varies."""
    own = dict(tuned.get(name, {}))
    of = str(own.pop("of", name))
    method, settings = ROWS[of]
    inherited: dict[str, Any] = {}
    for ancestor in (plain_row(of), of):
        if ancestor is not None and ancestor != name:
            inherited |= {key: value for key, value in tuned.get(ancestor, {}).items() if key != "of"}
    return Row(name, of, method, tuple((key, _text(value)) for key, value in {**inherited, **settings, **own}.items()))


def plain_row(name: str) -> str | None:
    """The row that a row varies: of the same method, or of the one that it holds, with no settings of its own.

    >>> plain_row("c-lora, class word"), plain_row("guard over lora"), plain_row("joint training")
    ('c-lora', 'lora', 'custom diffusion')
    """
    method, settings = ROWS[name]
    method = settings.get("over", method)
    return next((row for row, (of, said) in VARIANTS.items() if of == method and not said), None)


def _text(value: Any) -> str:
    """A plain value as `--set` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value)


def read_tuned(path: Path | None) -> dict[str, dict[str, Any]]:
    """The tables of a file of tuned settings, by row; {} where there is none.

    Raises SettingsError for rows of nothing known and values that no setting takes.
    """
    if path is None:
        return {}
    found = table(read_toml(path, ["row", "made"]).get("row", {}), "[row]", path)
    rows = {}
    for name, values in found.items():
        values = dict(table(values, f'[row."{name}"]', path))
        values.pop("scores", None)
        of = values.get("of", name)
        if of not in ROWS:
            near = nearest(str(of), ROWS)
            hint = f" Did you mean {near!r}?" if near else ""
            do = f"Give it of = '...', one of: {'; '.join(ROWS)}.{hint}"
            raise SettingsError(f"there is no row {of!r}", where=path, do=do)
        for key, value in values.items():
            if not isinstance(value, str | int | float | bool):
                raise SettingsError(f"row {name!r}: {key} is {value!r}", where=path, do="Give a number or a word.")
        rows[name] = values
    return rows
