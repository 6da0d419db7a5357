"""A hostile case: something bad in a folder of its own, and the routes by which the program meets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .page import Page

Expect = Literal["refused", "taken", "either"]


@dataclass(frozen=True)
class Place:
    """The folder in which one case is played; nothing outside of it may change."""

    root: Path
    base: Path
    """A small pipeline, shared by all cases."""
    good: Path
    """A folder with two good photos, shared by all cases."""

    @property
    def studio(self) -> Path:
        """A studio of this case's own, which has learned <rex>."""
        return self.root / "studio"

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def preset(self) -> Path:
        return self.root / "tiny.toml"

    @property
    def trap(self) -> Path:
        """The file that every payload would make: where it is, something was executed."""
        return self.root / "TRAP"

    @property
    def payload(self) -> str:
        """A shell command that springs the trap."""
        return f"touch {self.trap}"


Arguments = Callable[[Place], list[str]]
Call = Callable[[Place], object]
Visit = Callable[["Page", Place], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One bad input; `prepare` puts it into its place."""

    kind: str
    name: str
    prepare: Callable[[Place], object] = field(default=lambda place: None)
    commands: tuple[Arguments, ...] = ()
    """What is given to the command line."""
    calls: tuple[Call, ...] = ()
    """What is asked of the library."""
    expect: Expect = "either"
    """'either' where the program may take it as long as it does no harm."""
    visits: tuple[Visit, ...] = ()
    """What is done on the web page."""


PRESET = """version = 1
[plan]
steps = 1
batch = 2
prior_images = 0
[draw]
steps = 1
[report]
samples = 1
steps = 1
[method.stamina]
rank = 2
"""


def learn(place: Place, *more: str, photos: Path | None = None, name: str = "tom") -> list[str]:
    """The arguments that teach the case's studio something."""
    given = place.photos if photos is None else photos
    return ["learn", str(place.studio), str(given), f"--name={name}", "--preset", str(place.preset), *more]


def draw(place: Place, prompt: str = "a photo of <rex>", *more: str) -> list[str]:
    """The arguments that draw one picture with the case's studio."""
    out = ["--out", str(place.out / "a.png"), "-n", "1", "--steps", "1"]
    return ["draw", str(place.studio), *out, *more, "--", prompt]


def pickled(place: Place) -> bytes:
    """A pickle that springs the trap when it is opened."""
    return b"\x80\x02cos\nsystem\nX" + len(place.payload).to_bytes(4, "little") + place.payload.encode() + b"\x85R."
