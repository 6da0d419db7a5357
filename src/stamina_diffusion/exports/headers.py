"""What the header of an exported file says of it, in the words that hosts read: modelspec, kohya's ss_, and our own.

ModelSpec 1.0.1 names the architecture and the trigger words; A1111 and kohya's tools read `ss_*`; the record of what
was learned stands under `stamina.ledger`, without paths of the machine that learned it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from . import hosts
from .source import Source


def base_name(base: Mapping[str, Any]) -> str:
    """A base's name for others: a hub id, or the last part of a path, since a path tells of the machine."""
    source = str(base["source"])
    return source if base["kind"] in ("hub", "embedded") else Path(source).name


def header(source: Source, tensors: Mapping[str, Tensor], *, kind: str = "", rank: int | None = None) -> dict[str, str]:
    """The header of a file with these tensors; `kind` is "lora" for what a host adds to a model of its own."""
    studio, entries = source.studio, source.studio.entries
    architecture, version = hosts.architecture(source.now)
    words = ", ".join(entry.word for entry in entries)
    found = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/{kind}" if kind else architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": f"{studio.folder.resolve().name}, version {studio.version}",
        "modelspec.resolution": f"{source.now.resolution}x{source.now.resolution}",
        "modelspec.description": f"Learned one after another on {base_name(studio.base)}: {words or 'nothing yet'}",
        "modelspec.trigger_phrase": words,
        "modelspec.merged_from": ", ".join(entry.name for entry in entries),
        "modelspec.hash_sha256": f"0x{hash_of(tensors)}",
        "stamina.ledger": json.dumps(record(source), sort_keys=True, ensure_ascii=False),
    }
    if source.now.denoiser_name == "unet":
        found["modelspec.prediction_type"] = str(source.now.pipeline.scheduler.config.get("prediction_type", "epsilon"))
    if entries:
        # Of the newest concept and not of today: the same studio gives the same bytes tomorrow.
        found["modelspec.date"] = entries[-1].learned
    if source.wanted.licence:
        found["modelspec.license"] = source.wanted.licence
    if kind == "lora":
        found |= {
            "ss_v2": str(version.startswith("sd_v2")),
            "ss_base_model_version": version,
            "ss_network_module": hosts.known(source.now).kohya_module,
            "ss_network_dim": str(rank) if rank else "Dynamic",
            "ss_network_alpha": str(float(rank)) if rank else "Dynamic",
            "ss_network_args": "{}",
            "ss_output_name": studio.folder.resolve().name,
            "ss_sd_model_name": base_name(studio.base),
        }
    return found


def record(source: Source) -> dict[str, Any]:
    """The ledger as others may see it: no paths, no names of photos."""
    keys = ("name", "word", "class_word", "method", "steps", "seed", "version", "hash", "learned")
    return {
        "base": {"source": base_name(source.studio.base), "hash": source.studio.base["hash"]},
        "concepts": [{key: getattr(entry, key) for key in keys} for entry in source.studio.entries],
        "made_by": f"stamina-diffusion {metadata.version('stamina-diffusion')}",
    }


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes in the order of the names: the same wherever and whenever it is written."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        whole.update(tensor.view(-1).numpy().tobytes())
    return whole.hexdigest()
