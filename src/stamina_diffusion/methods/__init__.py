"""Every method by its name, one line each. A method's module is imported when it is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..errors import SettingsError, nearest
from ..method import Method

METHODS = {
    "textual-inversion": "textual_inversion.TextualInversion",
    "fine-tune": "fine_tune.FineTune",
    "dreambooth": "dreambooth.DreamBooth",
    "custom-diffusion": "custom_diffusion.CustomDiffusion",
    "custom-diffusion-merged": "custom_diffusion_merged.CustomDiffusionMerged",
    "lora": "lora.LoRA",
    "lora-merged": "lora_merged.LoRAMerged",
    "lora-continued": "lora_continued.LoRAContinued",
    "lora-orthogonal": "lora_orthogonal.LoRAOrthogonal",
    "o-lora": "o_lora.OLoRA",
    "inflora": "inflora.InfLoRA",
    "sd-lora": "sd_lora.SDLoRA",
    "lwf": "lwf.LwF",
    "slca": "slca.SLCA",
    "averaged": "merged.Averaged",
    "perturb-and-merge": "perturb_and_merge.PerturbAndMerge",
    "ewc": "ewc.EWC",
    "ewc-dc": "ewc_dc.EWCDC",
    "dsc": "dsc.DSC",
    "replay": "replay.Replay",
    "c-lora": "c_lora.CLoRA",
    "stamina": "stamina.Stamina",
    "stamina-held": "stamina_held.StaminaHeld",
    "guard": "guard.Guard",
}
"""Name → module and class in this folder."""


def method_class(name: str) -> type[Method]:
    """The class of a method by its name. Raises SettingsError with the nearest name."""
    if name not in METHODS:
        near = nearest(name, METHODS)
        hint = f"Did you mean {near!r}? " if near else ""
        raise SettingsError(f"there is no method {name!r}", do=f"{hint}Methods: {', '.join(METHODS)}.")
    module, _, attribute = METHODS[name].partition(".")
    return getattr(import_module(f".{module}", __name__), attribute)


def build(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method from its name and plain settings. Raises SettingsError naming an unknown field and the nearest one."""
    cls = method_class(name)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in settings or {}:
        if key not in fields:
            near = nearest(key, fields)
            hint = f" Did you mean {near!r}?" if near else ""
            raise SettingsError(f"method {name} has no field {key!r}", do=f"It takes {', '.join(fields)}.{hint}")
    return cls(**dict(settings or {}))


def completed(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version wrote down, each field it did not have as it was before; else as they are.

    That is the field's default, unless the method says otherwise (`Method.earlier`).

    >>> completed("ewc", {"over": {"name": "lora", "rank": 2}})["over"]["scaling"]
    '1'
    """
    try:
        whole = {**method_class(name).earlier, **settings}
        if isinstance(over := whole.get("over"), Mapping):
            held = dict(over)
            whole["over"] = {"name": over["name"], **completed(held.pop("name"), held)}
        return build(name, whole).settings()
    except SettingsError:
        return dict(settings)
