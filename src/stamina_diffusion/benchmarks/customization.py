"""The customization benchmark: a text-to-image model is taught one concept after another, and judged by what it draws.

Every method is taught by `learn`, with the protocol's steps, batches and pictures unless its row says otherwise, and
judged by the same pictures from the same seeds and the same questions of the held-out loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import SettingsError
from ..methods import completed
from ..quieting import quiet
from ..settings import Resolved
from .concept_streams import Subject, check_stream, subjects
from .grid import Benchmark, Cell
from .protocol import Protocol
from .rows import FROZEN, JOINT, ROWS, Row, row_of

if TYPE_CHECKING:
    from ..backbones.diffusion.text_to_image import TextToImage

FULL = Protocol()
PASS_SECONDS = 0.017
"""One picture once through the embedded base's denoiser on one core of a server, for estimates alone."""


@dataclass(frozen=True)
class Customization(Benchmark):
    """What its cells have in common."""

    name: ClassVar[str] = "customization"
    protocol: Protocol = FULL
    rows: tuple[Row, ...] = ()
    """The rows that are run, with their settings; a row of `ROWS` that is not here runs as it stands there."""
    threads: int = 1
    draws: bool = True
    """Whether pictures are drawn and measured; without, only the held-out loss is."""

    def settings(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol.settings(),
            "base_hash": self._base.hash,
            "threads": self.threads,
            "draws": self.draws,
        }

    @cached_property
    def _base(self) -> Any:
        from .. import bases

        return bases.find(self.protocol.base)

    def load_base(self) -> TextToImage:
        """The base as it is before the first concept, on the CPU."""
        from ..backbones.diffusion import families

        quiet()
        return families.load(self._base.folder(), variant=self._base.variant, where=self._base.source)

    def row(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        return row_of(name, {})

    def resolve(self, cell: Cell) -> Resolved:
        """The cell's method and plan: the preset's, then the protocol's, then the row's."""
        protocol = self.protocol
        ours = {name: str(getattr(protocol, name)) for name in ("steps", "batch", "prior_images", "replay_images")}
        return self.row(cell.variant).resolve(protocol.preset, ours, cell.seed)

    def subjects(self, cell: Cell) -> list[Subject]:
        return subjects(cell.stream, cell.length, cell.seed)

    def describe(self, cell: Cell) -> dict[str, Any]:
        row, resolved = self.row(cell.variant), self.resolve(cell)
        described = {
            "of": row.of,
            "method": resolved.method.name,
            "settings": resolved.method.settings(),
            "plan": resolved.plan.settings(),
        }
        return described | {"concepts": [subject.name for subject in self.subjects(cell)]}

    def completed(self, described: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**described, "settings": completed(described["method"], described["settings"])}

    def check(self, cells: Sequence[Cell]) -> None:
        for stream, length in {(cell.stream, cell.length): None for cell in cells}:
            check_stream(stream, length, self.protocol.views, self.protocol.test_views)
        for cell in cells:
            if cell.variant not in ROWS and all(row.name != cell.variant for row in self.rows):
                raise SettingsError(f"there is no method {cell.variant!r}", do=f"Rows: {'; '.join(ROWS)}.")
            self.resolve(cell)
        _ = self._base

    def tasks(self, cell: Cell) -> int:
        return 1 if self.row(cell.variant).of == JOINT else cell.length

    def seconds(self, cell: Cell) -> float:
        return PASS_SECONDS * sum(self.passes(cell).values())

    def passes(self, cell: Cell) -> dict[str, float]:
        """How often a picture goes through the denoiser, forward or backward, by what for."""
        protocol, resolved, count = self.protocol, self.resolve(cell), cell.length
        plan, needs = resolved.plan, resolved.method.needs
        parts, drawn = 1, 0.0
        if "prior images" in needs and plan.prior_images:
            parts, drawn = parts + 1, drawn + 50 * plan.prior_images * count
        if "replay" in needs and plan.replay_images:
            parts, drawn = parts + 1, drawn + 25 * plan.replay_images * count * (count - 1) / 2
        learned = 2 * plan.steps * plan.batch * plan.accumulation * count * parts + drawn
        if resolved.method.turn < 1:
            # Under each word once forward and backward, and once forward by each of two teachers.
            heard = (1 - resolved.method.turn) * plan.steps * plan.batch * plan.accumulation * (count - 1)
            learned += 4 * resolved.method.scored_words * heard
        rows = count / protocol.heldout_every * (count + 1) / 2 + count
        guided = 2 * protocol.sampler_steps
        sequential = self.row(cell.variant).of not in (JOINT, FROZEN)
        return {
            "learning": learned if self.row(cell.variant).of != FROZEN else 0,
            "held-out loss": rows * protocol.heldout_views * protocol.heldout_draws if sequential else count * 8,
            "drawing": self.draws * guided * count * (protocol.samples * (1 + sequential) + protocol.context_samples),
        }

    def open(self, cell: Cell, where: Path) -> Any:
        from .customization_run import CustomizationRun

        return CustomizationRun(self, cell, where)
