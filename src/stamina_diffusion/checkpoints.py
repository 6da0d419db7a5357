"""The state of an unfinished training as one safetensors file: parameters, optimizer, and how far it is.

Random states are not stored: every draw derives from its step (see `seeds`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from .files import write_tensors


def save(
    path: Path,
    *,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, Any],
) -> None:
    """Write `parameters`, the optimizer's state of each parameter by its place, and `progress` (JSON) to `path`."""
    tensors = {f"parameter/{name}": value for name, value in parameters.items()}
    for place, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{place}/{key}": torch.as_tensor(value) for key, value in state.items()}
    write_tensors(path, tensors, {"progress": json.dumps(dict(progress))})


def load(
    path: Path, *, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Copy a checkpoint's values into `parameters` and `optimizer`; the answer is its `progress`.

    Raises KeyError when the checkpoint is not of this training.
    """
    state: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for name, parameter in parameters.items():
            key = f"parameter/{name}"
            if key not in names or file.get_slice(key).get_shape() != list(parameter.shape):
                raise KeyError(
                    f"{path} is a checkpoint of another training: it has no {key} of {list(parameter.shape)}"
                )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(file.get_tensor(f"parameter/{name}"))
        for key in sorted(names):
            if key.startswith("optimizer/"):
                _, place, what = key.split("/", 2)
                state.setdefault(int(place), {})[what] = file.get_tensor(key)
        progress = json.loads(file.metadata()["progress"])
    if optimizer is not None:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def named_tensors(**modules: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of `modules`, as '<module>.<name>'."""
    return {
        f"{prefix}.{name}": value.data
        for prefix, module in modules.items()
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }
