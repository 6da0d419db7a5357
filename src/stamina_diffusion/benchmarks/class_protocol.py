"""The protocol of the classification benchmark: the `[classification]` table of a preset, with a stream's own values.

[classification]
base = "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"
sight = { resize = 256, training = "crop", mirror = true, mean = [0, 0, 0], spread = [1, 1, 1] }
[classification.stream.atlas]      # what is otherwise on this stream
base = "embedded"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..backbones.classifier import MATRICES, Matrix
from ..class_streams import ClassStream, Order
from ..class_streams.atlas import CLASSES, TEST, TRAIN, Atlas, atlas
from ..errors import SettingsError, nearest
from ..settings import preset_path
from ..toml_tables import changed, checked, read_toml, table, unknown

STREAMS = ("atlas", "tuning", "digits", "imagenet-r", "cifar-100", "domainnet", "cub-200")
"""Those of the world and scikit-learn need nothing; the others a folder or a hub id (`source`)."""


@dataclass(frozen=True)
class ClassProtocol:
    """How a stream of classes is learned and judged, whatever the method."""

    base: str = "embedded"
    """'embedded', a hub id, or a folder of transformers' or timm's layout."""
    epochs: int = 5
    """How often a task's pictures are seen."""
    order: Order = "coda"
    """How a seed orders the classes."""
    matrices: tuple[Matrix, ...] = MATRICES
    """Which of the attention's weights change."""
    sight: dict[str, Any] = field(default_factory=dict)
    """Fields of `seeing.Sight` beside what the checkpoint says of itself."""
    source: str = ""
    """Of a real data set: its folder or hub id; the usual hub id when empty."""
    split: str = ""
    """A folder of lists that tell train from test, such as CODA-Prompt's; a split of our own when empty."""
    classes: int = CLASSES
    """Of the atlas: how many; fewer are a smaller benchmark, with results of its own."""
    train: int = TRAIN
    """Of the atlas: views of a class to learn from."""
    test: int = TEST
    """Of the atlas: views of a class to judge by."""
    similar: int = 0
    """Of the atlas: how many parts siblings differ in; 0 for classes that are no siblings."""
    negative: bool = False
    """Of the atlas: every picture as its photographic negative, of which the embedded ViT's features are poor."""
    batch_of_test: int = 128

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < (0 if one.name == "similar" else 1):
                raise SettingsError(f"{one.name} is {value}", do=f"Give {one.name} a value of 1 or more.")

    def settings(self) -> dict[str, Any]:
        return asdict(self) | {"matrices": list(self.matrices)}

    def stream(self, name: str, cache: Path | None = None) -> ClassStream:
        """The stream of a name. Raises SettingsError for one that there is not, and what its reader raises."""
        if name in ("atlas", "tuning"):
            pool = "stream" if name == "atlas" else "tuning"
            return atlas(Atlas(self.classes, self.train, self.test, pool, self.similar, self.negative), cache)
        if name == "digits":
            from ..class_streams.digits import digits

            return digits()
        if name not in STREAMS:
            near = nearest(name, STREAMS)
            hint = f"Did you mean {near!r}? " if near else ""
            do = f"{hint}Streams: {', '.join(STREAMS)}."
            raise SettingsError(f"there is no stream {name!r}", where="--stream", do=do)
        from ..class_streams.real import read

        return read(name, self.source or None, Path(self.split) if self.split else None)


def read_protocol(preset: str | Path, stream: str, overrides: Mapping[str, str] | None = None) -> ClassProtocol:
    """The protocol of a preset for a stream, changed by `--set` values. Raises SettingsError."""
    path = preset_path(preset)
    found = read_toml(path, ["extends", "plan", "draw", "report", "method", "classification"])
    values = table(found.get("classification", {}), "[classification]", path)
    streams = table(values.pop("stream", {}), "[classification.stream]", path)
    for name in streams:
        if name not in STREAMS:
            raise SettingsError(unknown(name, STREAMS, "[classification.stream] has no", "Streams:"), where=path)
    title = f"[classification.stream.{stream}]"
    own = table(streams.get(stream, {}), title, path)
    try:
        base = {**checked(ClassProtocol, "[classification]", values, path), **checked(ClassProtocol, title, own, path)}
        if "matrices" in base:
            base["matrices"] = tuple(base["matrices"])
        return changed(ClassProtocol(**base), overrides or {})
    except SettingsError as error:
        raise SettingsError(error.what, where=error.where or path, do=error.do) from error


def fields_of_protocol() -> list[str]:
    """What `--set` may change of a protocol."""
    return [one.name for one in fields(ClassProtocol)]
