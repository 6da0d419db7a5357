"""Continual diffusion: teach a text-to-image model one concept after another, and forget nothing.

>>> from stamina_diffusion import METHODS
>>> {"c-lora", "lora", "stamina"} <= set(METHODS)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .concepts import Concept
    from .errors import StaminaError
    from .exports import export
    from .method import Method
    from .methods import METHODS, build
    from .photos import collect, examine
    from .plan import Plan
    from .studio import Studio
    from .world import WorldConcept

__all__ = [
    "METHODS",
    "Concept",
    "Method",
    "Plan",
    "StaminaError",
    "Studio",
    "WorldConcept",
    "build",
    "collect",
    "examine",
    "export",
]

_HOMES = {
    "METHODS": "methods",
    "Concept": "concepts",
    "Method": "method",
    "Plan": "plan",
    "StaminaError": "errors",
    "Studio": "studio",
    "WorldConcept": "world",
    "build": "methods",
    "collect": "photos",
    "examine": "photos",
    "export": "exports",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: torch takes seconds, and `stamina --help` must not wait for it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
