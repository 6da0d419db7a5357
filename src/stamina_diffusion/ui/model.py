"""The model that the page draws with: the studio's last committed version, apart from any that is being taught."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import ledger

if TYPE_CHECKING:
    from PIL import Image

    from ..backbones.diffusion.text_to_image import TextToImage
    from ..settings import Draw
    from ..studio import Studio


class Model:
    """Holds one backbone of the newest version and at most one of an earlier version, to compare with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._studio: Studio | None = None
        self._head = ""
        self._warming: threading.Thread | None = None
        self._earlier: tuple[str, int, TextToImage] | None = None

    def warm(self) -> None:
        """Load the newest version in the background, so that the first picture does not wait for the imports."""
        self._warming = threading.Thread(target=self._warm, name="warming", daemon=True)
        self._warming.start()

    def close(self) -> None:
        """Wait until nothing is being loaded: Python cannot end cleanly in the middle of an import."""
        if self._warming is not None:
            self._warming.join(60)

    def _warm(self) -> None:
        import contextlib

        with contextlib.suppress(Exception):  # whoever draws is told
            self.resolution()

    def studio(self) -> Studio:
        """The studio as it is on the disk now."""
        with self._lock:
            return self._newest()

    def resolution(self) -> int:
        """Pixels of a side of what the base draws."""
        with self._lock:
            return self._newest().backbone().resolution

    def defaults(self) -> Draw:
        """How the studio's base draws when nothing else is said."""
        from ..settings import draw_settings, preset_for

        return draw_settings(preset_for(self.studio().base))

    def draw(
        self, prompt: str, seeds: Sequence[int], *, steps: int, guidance: float, version: int | None = None
    ) -> list[Image.Image]:
        """Pictures by the newest version, or by an earlier one. Raises UnknownWordError and what loading raises."""
        with self._lock:
            backbone = self._at(version)
            return backbone.draw([prompt] * len(seeds), list(seeds), steps=steps, guidance=guidance)

    def _newest(self) -> Studio:
        from ..cli import console

        console.quiet()  # before the model libraries are imported
        from ..studio import Studio

        head = ledger.read(self.folder).head if (self.folder / ledger.FILE).is_file() else ""
        if self._studio is None or head != self._head:
            self._studio, self._head, self._earlier = Studio.open(self.folder), head, None
        return self._studio

    def _at(self, version: int | None) -> TextToImage:
        studio = self._newest()
        if version is None or version == studio.version:
            return studio.backbone()
        if self._earlier is None or self._earlier[:2] != (self._head, version):
            self._earlier = None  # the old one is let go before a new one is built
            self._earlier = (self._head, version, studio.rebuilt(version))
        return self._earlier[2]
