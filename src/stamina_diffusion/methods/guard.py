"""The guard: keep each change off what the keys and values see of earlier words, so that no earlier word can change.

Keys and values see nothing but text features, and those of the earlier words are known without any photo. The span of
the past is built as in Gradient Projection Memory (Saha et al., arXiv 2103.09762); the rest is this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
PASSED = "guarded/passed"
"""P (width, width), while a concept is learned: what a feature is before its change acts on it."""
ROOT = "guarded/root"
"""R (width, width), while a concept is learned: R Rᵀ = Σ h hᵀ over the text features h of earlier words' prompts."""
RECENT = 8
"""From how many words, the last ones, a ridge learns how little of a new word it would let through."""


class Guarded(Delta):
    """Δ P, for a change Δ (out, width) and P (width, width).

    B A P = B (A P): a low-rank change stays low-rank. `said` is Σ_h ‖W h‖² of the weight before the concept, over the
    features h of earlier words' prompts, where their change has a price.
    """

    def __init__(self, change: Delta, passed: Tensor, said: Tensor | None = None) -> None:
        super().__init__()
        self.change = change
        # Neither parameters nor buffers: they are known before the first step, and no checkpoint needs them again.
        self.passed, self.said = passed, said

    def forward(self) -> Tensor:
        change = self.change()
        self.passed = self.passed.to(change.device)
        return change @ self.passed


@dataclass(frozen=True)
class Guard(Over):
    """W_t = W_{t−1} + Δ_t P_t, Δ_t the change of `over`; P_t as `ridge` says, or without one P_t = 1 − Q_t Q_tᵀ.

    Q_t spans the text features of prompts with the earlier words, at every position: what stands before the word is
    the same in all prompts, and padding sees the word too. It grows by the directions of each new word that it lacks
    until `energy` of that word's features lies inside (arXiv 2103.09762, section 5), so never past the text width.
    Stored with each concept are the span, if there is one, and, if earlier words are guarded, for each weight its
    certificate: max ‖Δ_t P_t h‖ / ‖W_{t−1} h‖ over all features h of their prompts. Words that another method taught
    are held too.
    """

    name: ClassVar[str] = "guard"
    paper: ClassVar[str] = "arXiv 2103.09762"
    earlier: ClassVar[Mapping[str, Any]] = {"ridge": 0.0}
    over: Method = field(default=LoRA())
    energy: float = 0.999999
    """Without a ridge, the share of a word's squared features that the span holds: it may miss √(1 − energy) of a size.

    It must be far less than what tells one word's features from another's, or a new word is taken for an old one: in a
    contextual text tower most of the energy is common to all prompts.
    """
    generic: bool = True
    """Guard prompts without any learned word too; the empty one always is.

    With a span it takes directions that words could use. With a ridge it leaves what a word says to the word.
    """
    words: bool = True
    """Guard the earlier words' prompts; without, those with no learned word alone (`generic`).

    P is then the same for every concept. What the base says to the empty prompt, against which guidance draws, stays,
    and keeping earlier words is left to the method that is held, to the self-regularisation of STAMINA for one.
    """
    price: float = 100.0
    """λ of L = L_diff + λ Σ_h ‖Δ_t P_t h‖² / Σ_h ‖W_{t−1} h‖², mean over the weights: what P_t misses has its price.

    h are the features of earlier words' prompts, if they are guarded.
    """
    ridge: float = 1e-6
    """ρ of P_t = g (1 + C / (ρ tr C))⁻¹, C = Σ h hᵀ over the features h of earlier words' prompts; 0: the span.

    Each direction is held as far as earlier words fill it, so none is ever closed, and the room does not end. A new
    word's features come through small, and the smaller the more words there are; g makes up for it: were each of the
    last that are held new to the others, its features would keep their size. Generic prompts, if they are guarded,
    are held as one word more. `energy` has no part in it.
    As in scaled gradient projection (arXiv 2302.01386), which scales by importance; ρ and g are this project's own.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.energy <= 1:
            raise SettingsError(f"energy is {self.energy}", do="Give energy a value above 0 and at most 1.")
        if self.price < 0:
            raise SettingsError(f"price is {self.price}", do="Give price a value of 0 or more.")
        if not 0 <= self.ridge <= 1:
            raise SettingsError(f"ridge is {self.ridge}", do="Give ridge a value such as 1e-6, or 0 for the span.")
        if not self.words and not self.generic:
            raise SettingsError(
                f"{self.name} holds neither words nor generic prompts", do="Set words, or generic, to true."
            )
        if self.over.scope != "cross-attention" or not self.over.additive or _guarded(self.over):
            do = "It takes a method that adds to the keys and values of cross-attention, no guard: lora, stamina, ..."
            raise SettingsError(f"{self.name} cannot hold {self.over.name}", do=do)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({*self.over.needs, "text features"})

    def begin(self, memory: Memory, past: Past) -> Memory:
        memory = self.over.begin(memory, past)
        earlier = past.earlier if self.words else ()
        held = [*earlier, *([past.generic] if self.generic else [])]
        rows = torch.cat([past.generic[:0], *earlier])
        priced = {ROOT: root(rows)} if self.price and len(rows) else {}
        if self.ridge:
            return {**memory, **priced, **({PASSED: ridged(held, self.ridge)} if held else {})}
        span = memory.get(SPAN, past.generic.new_zeros(past.generic.shape[1], 0)).to(past.generic.device)
        # A word that this method taught is inside; one that another taught comes into its care here.
        for features in held:
            span = extended(span, features, self.energy)
        return {**memory, **priced, SPAN: span, PASSED: off(span)}

    def delta(self, site: Site, memory: Memory) -> Delta | None:
        change, passed, seen = self.over.delta(site, memory), memory.get(PASSED), memory.get(ROOT)
        if change is None or passed is None or site.role != "weight":
            return change
        return Guarded(change, passed, None if seen is None else _squares(site.value.to(seen), seen))

    def rate_of(self, site: Site, parameter: str) -> float:
        return self.over.rate_of(site, parameter.removeprefix("change."))

    def penalty(self, changes: Changes, memory: Memory) -> Tensor | float:
        cost = self.over.penalty(_held(changes), memory)
        seen = memory.get(ROOT)
        return cost if seen is None else cost + self.price * moved(changes, seen)

    def remember(self, changes: Changes, memory: Memory) -> Memory:
        kept = dict(self.over.remember(_held(changes), memory))
        for known_again in (ROOT, PASSED):
            kept.pop(known_again, None)
        if not self.words:
            return kept  # No promise is made to earlier words, so none is certified, and no text feature is needed.
        seen = features_of(changes)
        if not self.ridge:
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


def off(span: Tensor) -> Tensor:
    """1 − Q Qᵀ (width, width) for orthonormal columns Q (width, k)."""
    return torch.eye(len(span), dtype=span.dtype, device=span.device) - span @ span.T


def ridged(words: Sequence[Tensor], ridge: float) -> Tensor:
    """P = g (1 + C / (ρ tr C))⁻¹ (width, width), C = Σ h hᵀ over the rows h of all `words`, each (rows, width).

    1/g² is the geometric mean, over the last `RECENT` of them, of the share of a word's squares that would be left if
    C had all but its own; 1 for a single word. Computed in float64.
    """
    each = [features.double() for features in words]
    moments = [features.T @ features for features in each]
    whole = torch.stack(moments).sum(0)
    one = torch.eye(len(whole), dtype=whole.dtype, device=whole.device)

    def inverse(moment: Tensor) -> Tensor:
        return torch.linalg.inv(one + moment / (ridge * moment.trace()))

    logs = [
        (features @ inverse(whole - moment)).square().sum().log() - features.square().sum().log()
        for features, moment in list(zip(each, moments, strict=True))[-RECENT:]
        if len(each) > 1
    ]
    size = (torch.stack(logs).mean() / 2).exp() if logs else 1.0
    return (inverse(whole) / size).to(words[0].dtype)


def root(features: Tensor) -> Tensor:
    """R (width, width) with R Rᵀ = Σ h hᵀ over the rows h of `features`: Σ ‖M h‖² = ‖M R‖² is never below 0."""
    rows = features.double()
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    return (vectors * values.clamp(min=0).sqrt()).to(features.dtype)


def moved(changes: Changes, seen: Tensor) -> Tensor:
    """Mean over the guarded weights of Σ ‖Δ h‖² / Σ ‖W h‖², W before the concept, `seen` the `root` of the features h.

    It is how far keys and values move for earlier words' prompts, squared.
    """
    shares = [
        _squares(change.value, seen) / change.delta.said.clamp(min=1e-12).to(seen.device)
        for change in weights(changes).values()
        if isinstance(change.delta, Guarded) and change.delta.said is not None
    ]
    return torch.stack(shares).mean()


def _guarded(method: Method) -> bool:
    """Whether a method is a guard, or holds one: two would take the one's P for the other's."""
    return isinstance(method, Guard) or (isinstance(method, Over) and _guarded(method.over))


def _squares(matrix: Tensor, seen: Tensor) -> Tensor:
    return (matrix @ seen).square().sum()


def _held(changes: Changes) -> dict[str, Change]:
    """The changes as the held method knows them: with its own deltas, and the values that the network saw."""
    return {
        name: change._replace(delta=change.delta.change) if isinstance(change.delta, Guarded) else change
        for name, change in changes.items()
    }
