"""From a cell's pictures and losses to its measures: per concept, as matrices over time, and in one number each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import continual, images

Array = NDArray[np.floating]
ENDS = 10
"""How many concepts `first` and `last` mean."""
OF_SEQUENCES = ("forgetting", "forgetting_max", "learned_first10", "learned_last10", "slope")
"""What a bound that is not learned in sequence does not have."""


@dataclass(frozen=True)
class Seen:
    """Features of all pictures of a cell, one array (pictures, width) a concept, in the order of learning."""

    photos: Sequence[Array]
    then: Sequence[Array] | None
    """What was drawn of each when it was just learned; None where nothing is learned one after another."""
    final: Sequence[Array]
    shared: Sequence[Array]
    """`final` and the pictures in contexts in the space that prompts share."""
    texts: Sequence[Array]
    """For each of `shared` its prompt's feature, the class word in the place of the learned one."""
    generic: tuple[Array, Array]
    """What the base draws for generic prompts, and what the final model does from the same seeds."""
    pairs: Sequence[tuple[tuple[int, int], Array]] = ()
    """Of prompts with two concepts."""


def of_losses(gains: Array, sequential: bool) -> dict[str, Any]:
    """What held-out losses say, as plain values.

    `gains` (times, concepts) is the share of the frozen base's held-out loss that is gone, nan where not measured; a
    bound that is not learned in sequence has one row, and nothing to forget.
    """
    found: dict[str, Any] = {"gain": float(gains[-1].mean()), "each": {"gain": gains[-1]}}
    if not sequential:
        return plain(found | dict.fromkeys(OF_SEQUENCES))
    ends = continual.saturation(gains, ENDS)
    found |= {
        "matrix": gains,
        "forgetting": continual.forgetting_since(gains),
        "forgetting_max": continual.forgetting_max(gains),
        "learned_first10": ends.first,
        "learned_last10": ends.last,
        "slope": ends.slope,
    }
    return plain(found | {"each": {"gain": gains[-1], "gain_then": continual.learned_when_learned(gains)}})


def of_pictures(seen: Seen, sequential: bool) -> dict[str, Any]:
    """What pictures say, as plain values. Distances are × 10³, shares and cosines in [0, 1]."""
    final, photos = seen.final, seen.photos
    each: dict[str, Any] = {
        "a_mmd": images.mmd_of_each(photos, final),
        "kid": np.array([1000 * images.kid(x, y) for x, y in zip(photos, final, strict=True)]),
        "image_alignment": _alignments(final, photos),
        "text_alignment": np.array([images.text_alignment(x, y) for x, y in zip(seen.shared, seen.texts, strict=True)]),
        "retrieval": images.retrieval(final, photos),
    }
    found: dict[str, Any] = {name: float(np.mean(values)) for name, values in each.items()}
    found |= {
        "bleed": images.bleed(final, photos),
        "drift": images.drift(*seen.generic) if len(seen.generic[0]) else None,
        "both_shown": None,
        "f_mmd": None,
    }
    if seen.pairs:
        found["both_shown"] = float(np.mean([images.both_shown(x, photos, pair) for pair, x in seen.pairs]))
    if seen.then is not None:
        each |= {
            "a_mmd_then": images.mmd_of_each(photos, seen.then),
            "image_alignment_then": _alignments(seen.then, photos),
            "retrieval_then": images.retrieval(seen.then, photos),
        }
    if sequential and seen.then is not None:
        each["f_mmd"] = images.mmd_of_each(seen.then, final, estimator=images.paired_mmd2)
        found["f_mmd"] = images.f_mmd(seen.then, final)
    return plain({**found, "each": each})


def _alignments(drawn: Sequence[Array], photos: Sequence[Array]) -> Array:
    return np.array([images.image_alignment(x, y) for x, y in zip(drawn, photos, strict=True)])


def plain(value: Any) -> Any:
    """Arrays as lists, rounded to six digits (the seventh is noise of the network's float32), nan as None."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(f"{float(value):.6g}")
    return int(value) if isinstance(value, np.integer) else value
