"""What the environment may ask for: how a machine computes, which is no part of what a concept is (decision 0009)."""

from __future__ import annotations

import os

from .errors import SettingsError


def asked(variable: str) -> bool:
    """Whether a variable of the environment is 1. Raises SettingsError for what is neither 0 nor 1."""
    said = os.environ.get(variable, "0")
    if said not in ("", "0", "1"):
        raise SettingsError(f"{variable}={said} is neither 0 nor 1", do="Set it to 1, or leave it out.")
    return said == "1"
