"""The protocol of the customization benchmark: the same for every method, typed, from a TOML of `protocols/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import SettingsError, nearest
from ..toml_tables import changed, checked, read_toml

FOLDER = Path(__file__).parent / "protocols"
REFERENCES = ("test", "training")
MMD_LEAST = 2


@dataclass(frozen=True)
class Protocol:
    """How a concept is learned and judged, whatever the method."""

    base: str = "embedded"
    """'embedded', a pipeline folder, or a hub id."""
    preset: str = "embedded"
    """Where settings of methods are from that neither the row nor the tuning says."""
    encoder: str = "embedded"
    """What measures pictures: 'embedded' for the embedded base, or the hub id or folder of a CLIP model."""
    views: int = 8
    """Pictures of a concept that are learned from."""
    test_views: int = 32
    """Other pictures of it, which no method sees."""
    steps: int = 100
    batch: int = 8
    samples: int = 16
    """Pictures that are drawn of each concept, when it was just learned and at the end, from the same seeds."""
    context_samples: int = 4
    """Pictures of each concept at the end in each context of its class, for text alignment."""
    sampler_steps: int = 25
    guidance: float = 3.0
    generic_samples: int = 4
    """Pictures of each generic prompt, before the first concept and at the end, for the drift of the base."""
    pairs: int = 0
    """Prompts with two concepts at the end, `samples` pictures each."""
    heldout_views: int = 8
    """Test views whose denoising loss is measured."""
    heldout_draws: int = 2
    """Times and noises for each of them."""
    heldout_every: int = 1
    """The loss of all concepts is measured after every so many; that of the concept itself always, and of all at the
    end."""
    prior_images: int = 8
    """For methods that ask for pictures of the class word."""
    replay_images: int = 2
    """Of each earlier word, for methods that ask for them."""
    reference: str = "test"
    """Which pictures drawn ones are compared with: the test views, or the training views."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = _LEAST.get(field.name, 1)
            if isinstance(value, int | float) and value < least:
                what, do = f"{field.name} is {value}", f"Give {field.name} a value of {least} or more."
                if field.name == "samples":
                    do = "A_mmd, F_mmd and KID need two samples of each concept: give samples 2 or more."
                raise SettingsError(what, do=do)
        if self.reference not in REFERENCES:
            raise SettingsError(f"reference is {self.reference!r}", do=f"Choose one of: {', '.join(REFERENCES)}.")
        if self.heldout_views > self.test_views:
            raise SettingsError(
                f"heldout_views is {self.heldout_views}, and there are {self.test_views} test views",
                do="Give more test_views, or fewer heldout_views.",
            )
        if (self.encoder == "embedded") != (self.base == "embedded"):
            raise SettingsError(
                f"encoder {self.encoder!r} cannot judge pictures of base {self.base!r}",
                do="The embedded encoder judges the embedded base alone: give another base a CLIP model's hub id or "
                "folder, such as openai/clip-vit-base-patch32.",
            )

    def settings(self) -> dict[str, Any]:
        return asdict(self)


_LEAST = {
    "samples": MMD_LEAST,
    "views": MMD_LEAST,
    "test_views": MMD_LEAST,
    "context_samples": 0,
    "generic_samples": 0,
    "pairs": 0,
    "prior_images": 0,
    "replay_images": 0,
    "guidance": 0,
}


def protocols() -> list[str]:
    """The names of the protocols that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_protocol(name: str | Path, overrides: Mapping[str, str] | None = None) -> Protocol:
    """A protocol by name or from a TOML file, changed by `--set` values. Raises SettingsError."""
    path = FOLDER / f"{name}.toml" if str(name) in protocols() else Path(name)
    if not path.is_file():
        near = nearest(str(name), protocols())
        hint = f"Did you mean {near!r}? " if near else ""
        do = f"{hint}Protocols: {', '.join(protocols())}, or the path of a TOML file."
        raise SettingsError(f"there is no protocol {str(name)!r}", where="--protocol", do=do)
    values = checked(Protocol, "the protocol", read_toml(path, [field.name for field in fields(Protocol)]), path)
    try:
        protocol = Protocol(**values)
    except SettingsError as error:
        raise SettingsError(error.what, where=path, do=error.do) from error
    try:
        return changed(protocol, overrides or {})
    except SettingsError as error:
        raise SettingsError(error.what, where=error.where or "--set", do=error.do) from error
