"""The state of an unfinished training as one safetensors file: parameters, optimizer, and how far it is.

Random states are not stored: every draw derives from its step (see `seeds`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .errors import DamagedError
from .files import write_tensors


def save(
    path: Path,
    *,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, Any],
) -> None:
    """Write `parameters`, the optimizer's state of each parameter by its place, and `progress` (JSON) to `path`.

    A digest of all of it goes along: a run that went on from a flipped bit would end in another concept, unnoticed.
    """
    tensors = {f"parameter/{name}": value for name, value in parameters.items()}
    for place, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{place}/{key}": torch.as_tensor(value) for key, value in state.items()}
    said = json.dumps(dict(progress))
    write_tensors(path, tensors, {"progress": said, "digest": _digest(tensors, said)})


def _digest(tensors: Mapping[str, Tensor], progress: str) -> str:
    """One hash of every tensor's name, type, shape and bytes, and of the progress."""
    whole = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        whole.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def load(
    path: Path, *, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Copy a checkpoint's values into `parameters` and `optimizer`; the answer is its `progress`.

    Raises KeyError when the checkpoint is not of this training, DamagedError when it is not what was written; nothing
    is copied then.
    """
    tensors, progress = _read(path)
    for name, parameter in parameters.items():
        found = tensors.get(f"parameter/{name}")
        if found is None or found.shape != parameter.shape:
            wanted = f"parameter/{name} of {list(parameter.shape)}"
            raise KeyError(f"{path} is a checkpoint of another training: it has no {wanted}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key in sorted(tensors):
        if key.startswith("optimizer/"):
            _, place, what = key.split("/", 2)
            state.setdefault(int(place), {})[what] = tensors[key]
    if optimizer is not None:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        for parameter, known in optimizer.state.items():
            for key, value in known.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    # Of a network in channels_last: fused optimizers on a GPU refuse two layouts.
                    known[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return progress


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's tensors and progress, if they are what was written. Raises DamagedError."""
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # Runs of the base's recipe that were begun before there was a digest go on without one.
        if "digest" in said and said["digest"] != _digest(tensors, said["progress"]):
            raise ValueError("its digest does not fit")
        return tensors, json.loads(said["progress"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
        what = f"the checkpoint is damaged: {error}"
        raise DamagedError(what, where=path, do="Delete it; the same command then begins again.") from error


def named_tensors(**modules: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of `modules`, as '<module>.<name>'."""
    return {
        f"{prefix}.{name}": value.data
        for prefix, module in modules.items()
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }
