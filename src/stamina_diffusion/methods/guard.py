"""The guard: keep each change off what the keys and values see of earlier words, so that no earlier word can change.

Keys and values see nothing but text features, and those of the earlier words are known without any photo. The span of
the past is built as in Gradient Projection Memory (Saha et al., arXiv 2103.09762); the rest is this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..deltas import Delta
from ..errors import SettingsError
from ..method import Change, Changes, Memory, Method, Need, Past, features_of, weights
from ..sites import Site
from .lora import LoRA
from .over import Over

SPAN = "guarded/text"
"""Orthonormal columns (width, k): the span of the text features of the past."""
MOMENT = "guarded/moment"
"""Σ h hᵀ (width, width) over the text features h of earlier words' prompts, while a concept is learned."""


class Guarded(Delta):
    """Δ P = Δ − Δ Q Qᵀ, for a change Δ (out, width) and Q with orthonormal columns (width, k).

    B A P = B (A P): a low-rank change stays low-rank.
    """

    def __init__(self, change: Delta, span: Tensor) -> None:
        super().__init__()
        self.change = change
        # Neither a parameter nor a buffer: it is in the method's memory, and no checkpoint needs it again.
        self.span = span

    def forward(self) -> Tensor:
        change = self.change()
        self.span = self.span.to(change.device)
        return change - (change @ self.span) @ self.span.T


@dataclass(frozen=True)
class Guard(Over):
    """W_t = W_{t−1} + Δ_t P_t, P_t = 1 − Q_t Q_tᵀ, Δ_t the change of `over`.

    Q_t spans the text features of prompts with the earlier words, at every position: what stands before the word is
    the same in all prompts, and padding sees the word too. It grows by the directions of each new word that it lacks
    until `energy` of that word's features lies inside (arXiv 2103.09762, section 5), so never past the text width.
    Stored with each concept are the span and, for each weight, its certificate: max ‖Δ_t P_t h‖ / ‖W_{t−1} h‖ over all
    features h of earlier words' prompts. Words that another method taught are held too.
    """

    name: ClassVar[str] = "guard"
    paper: ClassVar[str] = "arXiv 2103.09762"
    over: Method = field(default=LoRA())
    energy: float = 0.999999
    """The share of a word's squared features that the span holds: √(1 − energy) is the size of what it may miss.

    It must be far less than what tells one word's features from another's, or a new word is taken for an old one: in a
    contextual text tower most of the energy is common to all prompts.
    """
    generic: bool = False
    """Guard prompts without any learned word too; the empty one always is. It takes directions that words could use."""
    price: float = 0.0
    """λ of L = L_diff + λ Σ_h ‖Δ_t P_t h‖² / Σ_h ‖W h‖², mean over the weights: what the span misses has its price.

    h are the features of earlier words' prompts, and W is the weight as it is in that step, its change in place.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.energy <= 1:
            raise SettingsError(f"energy is {self.energy}", do="Give energy a value above 0 and at most 1.")
        if self.price < 0:
            raise SettingsError(f"price is {self.price}", do="Give price a value of 0 or more.")
        if self.over.scope != "cross-attention" or not self.over.additive:
            raise SettingsError(
                f"guard cannot hold {self.over.name}",
                do="It takes a method that adds to the keys and values of cross-attention: lora, c-lora, stamina, ...",
            )

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({*self.over.needs, "text features"})

    def begin(self, memory: Memory, past: Past) -> Memory:
        memory = self.over.begin(memory, past)
        width = past.generic.shape[1]
        span = memory.get(SPAN, past.generic.new_zeros(width, 0)).to(past.generic.device)
        # A word that this method taught is inside; one that another taught comes into its care here.
        for features in (*past.earlier, *([past.generic] if self.generic else [])):
            span = extended(span, features, self.energy)
        rows = torch.cat([span.T[:0], *past.earlier])
        priced = {MOMENT: rows.T @ rows} if self.price and len(rows) else {}
        return {**memory, SPAN: span, **priced}

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change, span = self.over.delta(site, memory), memory.get(SPAN)
        return change if change is None or span is None or site.role != "weight" else Guarded(change, span)

    def rate_of(self, site: Site, parameter: str) -> float:
        return self.over.rate_of(site, parameter.removeprefix("change."))

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        cost = self.over.penalty(_held(changes), memory)
        moment = memory.get(MOMENT)
        return cost if moment is None else cost + self.price * moved(changes, moment)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept = dict(self.over.remember(_held(changes), memory))
        kept.pop(MOMENT, None)
        seen = features_of(changes)
        kept[SPAN] = extended(memory[SPAN], seen.whole, self.energy)
        earlier = torch.cat([seen.whole[:0], *seen.past.earlier])
        for name, change in weights(changes).items():
            kept[f"certificate/{name}"] = certificate(change.value, change.site.value, earlier).view(1)
        return kept

    def fold(self, changes: Changes, memory: Memory) -> Mapping[str, Tensor]:
        return self.over.fold(_held(changes), memory)


def extended(span: Tensor, features: Tensor, energy: float) -> Tensor:
    """`span` (width, k) with the fewest more orthonormal columns that leave 1 − `energy` of the features outside.

    `features` is (rows, width), and energy the sum of their squares. Computed in float64.
    """
    rows, basis = features.double(), span.double()
    outside = rows - (rows @ basis) @ basis.T
    most = max(1 - energy, 1e-12) * rows.square().sum()
    if outside.square().sum() <= most:
        return span.clone()
    # ‖outside after k directions‖² ≤ (1 − energy) ‖features‖²: the largest eigenvectors first.
    values, vectors = torch.linalg.eigh(outside.T @ outside)
    left = values.clamp(min=0).cumsum(0)
    more = int((left > most).sum())
    whole = torch.cat([basis, vectors[:, len(left) - more :]], 1)[:, : rows.shape[1]]
    return torch.linalg.qr(whole).Q.to(span.dtype)


def certificate(change: Tensor, weight: Tensor, features: Tensor) -> Tensor:
    """max_h ‖Δ h‖ / ‖W h‖ over the rows h of `features`: how far a key or value can move; 0 without rows."""
    if not len(features):
        return change.new_zeros(())
    moved, held = (features @ change.T).norm(dim=1), (features @ weight.to(features).T).norm(dim=1)
    return (moved / held.clamp(min=1e-12)).max()


def moved(changes: Changes, moment: Tensor) -> Tensor:
    """Mean over the weights of tr(Δ C Δᵀ) / tr(W C Wᵀ), `moment` C = Σ h hᵀ: how far keys and values move, squared.

    W is the site's value: where changes are in place, as while a concept is learned, with them.
    """
    shares = [
        ((change.value @ moment) * change.value).sum() / ((weight @ moment) * weight).sum().clamp(min=1e-12)
        for change in weights(changes).values()
        for weight in [change.site.value.to(moment)]
    ]
    return torch.stack(shares).mean()


def _held(changes: Changes) -> dict[str, Change]:
    """The changes as the held method knows them: with its own deltas, and the values that the network saw."""
    return {
        name: change._replace(delta=change.delta.change) if isinstance(change.delta, Guarded) else change
        for name, change in changes.items()
    }
