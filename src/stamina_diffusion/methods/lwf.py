"""LwF: learn new classes while what is answered of the old ones stays, on the new pictures alone (arXiv 1606.09282)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..method import Method, Need
from .over import Over
from .slca import SLCA


@dataclass(frozen=True)
class LwF(Over):
    """L = L_over + w T² KL( softmax(z_{t−1}/T) ‖ softmax(z/T) ), z the logits of the old classes (arXiv 1606.09282).

    z_{t−1} is what the network answered to the same pictures, as they are judged, before the task; T = 2, and w is the
    plan's `replay_weight`. No old picture is kept. Only a classifier has such answers. The old classes' rows stay as
    they were, where the paper trains them too.
    """

    name: ClassVar[str] = "lwf"
    paper: ClassVar[str] = "arXiv 1606.09282"
    over: Method = field(default=SLCA())
    """By default the whole network, at a small rate."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({*self.over.needs, "old answers"})
