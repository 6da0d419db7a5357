"""A vision transformer of transformers' library (`ViTForImageClassification`) as a classifier that learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from .. import files
from ..errors import BaseModelError
from . import timm_layout
from .classifier import MATRICES, Classifier, Matrix, Softmax, empty_head
from .seeing import Sight

PROJECTIONS: dict[Matrix, str] = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}


class VisionTransformer(Classifier):
    """A ViT; its features are the class token after the last norm."""

    network: ViTForImageClassification

    def __init__(
        self,
        network: ViTForImageClassification,
        sight: Sight | None = None,
        classes: Sequence[str] = (),
        *,
        matrices: Sequence[Matrix] = MATRICES,
        softmax: Softmax = "local",
    ) -> None:
        """Without `classes` the network's own head, of whatever it was pre-trained to tell apart, is dropped."""
        if not classes:
            network.classifier = empty_head(network.config.hidden_size).to(network.device)
        side: Any = network.config.image_size
        sight = sight or Sight(side=side)
        super().__init__(network, sight, classes, matrices=matrices, softmax=softmax)
        self.describe_classes()

    @property
    def head(self) -> nn.Linear:
        return self.network.classifier  # pyright: ignore[reportReturnType]

    def replace_head(self, head: nn.Linear) -> None:
        self.network.classifier = head

    def describe_classes(self) -> None:
        config: Any = self.network.config
        config.id2label = dict(enumerate(self.learned))
        config.label2id = {name: place for place, name in enumerate(self.learned)}
        self.network.num_labels = len(self.learned)

    def attention(self) -> Mapping[nn.Module, Matrix]:
        return {
            getattr(layer.attention, name): matrix
            for layer in self.network.vit.layers
            for matrix, name in PROJECTIONS.items()
        }

    def encoded(self, pixels: Tensor) -> Tensor:
        return self.network.vit(pixel_values=pixels).last_hidden_state[:, 0]

    def logits(self, pixels: Tensor) -> Tensor:
        return self.network(pixel_values=pixels).logits

    def save(self, folder: Path) -> None:
        """Write the plain network as transformers' `from_pretrained` reads it: configuration, weights, processor."""
        self.network.save_pretrained(folder)
        files.write_json(folder / "preprocessor_config.json", processor_of(self.sight))

    def save_timm(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json` as `timm.create_model(...)` and `load_state_dict` take them."""
        folder.mkdir(parents=True, exist_ok=True)
        state = timm_layout.to_timm(self.network.state_dict())
        files.write_tensors(folder / "model.safetensors", state, {"format": "pt"})
        described = timm_layout.described(self.network.config, self.learned, self.sight)
        files.write_json(folder / "config.json", described)


def load(
    source: str | Path,
    *,
    sight: Sight | None = None,
    keep_classes: bool = False,
    matrices: Sequence[Matrix] = MATRICES,
    softmax: Softmax = "local",
) -> VisionTransformer:
    """A ViT by its id on the hub, its folder, or the folder of a timm checkpoint.

    With `keep_classes` the head and the names of its classes stay; else the classifier begins with none. Raises
    BaseModelError for what is no ViT, lacks a weight, or has a head that does not fit its names.
    """
    folder = Path(source)
    network: Any
    if folder.is_dir() and timm_layout.is_timm(folder):
        network = timm_layout.read(folder)
        found = timm_layout.sight_of(folder)
    else:
        network = _from_transformers(source)
        found = _sight_of(source, network.config.image_size)
    names = tuple(network.config.id2label[place] for place in sorted(network.config.id2label))
    classes = names if keep_classes else ()
    if classes and not (isinstance(network.classifier, nn.Linear) and len(network.classifier.weight) == len(classes)):
        has = f"{len(network.classifier.weight)} rows" if isinstance(network.classifier, nn.Linear) else "no head"
        raise BaseModelError(f"it names {len(classes)} classes and has {has}", where=source, do="Export it again.")
    return VisionTransformer(network.float(), sight or found, classes, matrices=matrices, softmax=softmax)


def _from_transformers(source: str | Path) -> ViTForImageClassification:
    try:
        config = ViTConfig.from_pretrained(source)
        if config.model_type != "vit" or not isinstance(config, ViTConfig):
            raise BaseModelError(f"its model type is {config.model_type!r}, not 'vit'", where=source, do="Take a ViT.")
        loaded: Any = ViTForImageClassification.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
        network, told = loaded
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        do = "Give a hub id, a folder of transformers' layout, or one of timm's (config.json, model.safetensors)."
        raise BaseModelError(f"no ViT can be read: {error}", where=source, do=do) from error
    for key, stored, wanted in told["mismatched_keys"]:
        if key.startswith("classifier."):
            do = "Mend id2label in its config.json, or export it again."
            what = f"it names {wanted[0]} classes and its head has {stored[0]} rows"
            raise BaseModelError(what, where=source, do=do)
    absent = sorted({*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])})
    broken = [key for key in absent if not key.startswith("classifier.")]
    if broken:
        raise BaseModelError(
            f"{len(broken)} weights are missing or do not fit, among them {broken[0]}",
            where=source,
            do="Take a whole checkpoint.",
        )
    if absent:
        network.classifier = empty_head(config.hidden_size)
    return network


def processor_of(sight: Sight) -> dict[str, Any]:
    """transformers' own description of how a picture is judged, for `preprocessor_config.json`."""
    side = {"height": sight.side, "width": sight.side}
    described: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": side if sight.resize is None else {"shortest_edge": sight.resize},
        "resample": {"bilinear": 2, "bicubic": 3}[sight.filter],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(sight.mean),
        "image_std": list(sight.spread),
    }
    return described | ({} if sight.resize is None else {"do_center_crop": True, "crop_size": side})


def _sight_of(source: str | Path, side: int) -> Sight:
    """How a checkpoint wants its pictures: its own processor's mean and scale, its size from the network."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(str(source), "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
        told = files.read_json(Path(path)) if path else {}
    except (OSError, ValueError):
        told = {}
    size = told.get("size")
    return Sight(
        side=side,
        resize=size.get("shortest_edge") if isinstance(size, dict) else None,
        mean=told.get("image_mean") or (0.5, 0.5, 0.5),
        spread=told.get("image_std") or (0.5, 0.5, 0.5),
        filter="bicubic" if told.get("resample") == 3 else "bilinear",
    )
