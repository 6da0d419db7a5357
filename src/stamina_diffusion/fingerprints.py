"""A model's fingerprint: one hash over the tensors that concepts changed, to know a rebuilt model to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from .sites import Site


def fingerprint(sites: Mapping[str, Site], names: Iterable[str]) -> str:
    """SHA-256 over the names, shapes, types and bytes of some sites' tensors, in the order of their names."""
    whole = hashlib.sha256()
    for name in sorted(names):
        value = sites[name].value.detach().cpu().contiguous()
        whole.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        whole.update(value.numpy().data)
    return whole.hexdigest()
