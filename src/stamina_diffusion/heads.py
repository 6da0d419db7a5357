"""Heads from what is known of each class, its mean and covariance, and no image: nearest mean, and an aligned one.

A head is a linear layer over the network's features, so whichever is taken, the classifier stays a plain one. Adapter,
merge and head are chosen apart: these are functions of statistics alone, whatever made the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import seeds
from .errors import SettingsError


class Head(NamedTuple):
    """A linear layer: logits = f Wᵀ + b of features f (N, width)."""

    weight: Tensor
    """(classes, width)."""
    bias: Tensor
    """(classes,)."""

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


class Statistics(NamedTuple):
    """What is kept of the features of each class's pictures."""

    means: Tensor
    """(classes, width)."""
    covariances: Tensor
    """Of n − 1, (classes, width, width); 0 of a class of one picture."""
    counts: Tensor
    """How many pictures, (classes,)."""

    def joined(self, later: Statistics) -> Statistics:
        """With the classes of a later task behind its own."""
        return Statistics(*(torch.cat(pair) for pair in zip(self, later, strict=True)))

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a safetensors file."""
        return self._asdict()

    def thin(self) -> dict[str, Tensor]:
        """By name, each covariance as R with Σ = Rᵀ R: of few pictures much less to keep. `of_thin` reads it.

        All rows stand one after another, (Σ_c min(n_c − 1, width), width).
        """
        rows = [_root(one, rank) for one, rank in zip(self.covariances, self._ranks(), strict=True)]
        return {"means": self.means, "counts": self.counts, "roots": torch.cat(rows)}

    def _ranks(self) -> list[int]:
        return [min(int(count) - 1, self.means.shape[1]) for count in self.counts]


def of_thin(kept: Mapping[str, Tensor]) -> Statistics:
    """What `Statistics.thin` was made of, to rounding. Raises ValueError for tensors that do not fit one another."""
    means, counts, roots = (kept[name] for name in ("means", "counts", "roots"))
    known = Statistics(means, means.new_zeros(0), counts)
    ranks = known._ranks()
    if means.ndim != 2 or len(counts) != len(means) or roots.shape != (sum(ranks), means.shape[1]):
        raise ValueError(f"means {list(means.shape)}, counts {list(counts.shape)} and roots {list(roots.shape)}")
    covariances = [(root.double().T @ root.double()).float() for root in roots.split(ranks)]
    return known._replace(covariances=torch.stack(covariances))


def _root(covariance: Tensor, rank: int) -> Tensor:
    """R (rank, width) with Σ = Rᵀ R of a covariance of at most that rank."""
    values, vectors = torch.linalg.eigh(covariance.double())
    leading = values.clamp(min=0).sqrt() * vectors
    return leading.flip(1)[:, :rank].T.float()


def statistics(features: Tensor, labels: Tensor) -> Statistics:
    """Of features (N, width) and labels (N,) 0 ... k − 1, each at least once: those of k classes, in float32.

    Raises ValueError for a class without pictures.
    """
    classes = int(labels.max()) + 1 if len(labels) else 0
    means, covariances, counts = [], [], []
    for label in range(classes):
        own = features[labels == label].double()
        if not len(own):
            raise ValueError(f"class {label} has no pictures")
        away = own - own.mean(0)
        means.append(own.mean(0))
        covariances.append(away.T @ away / max(len(own) - 1, 1))
        counts.append(len(own))
    if not classes:
        raise ValueError("there are no pictures")
    return Statistics(torch.stack(means).float(), torch.stack(covariances).float(), torch.tensor(counts).float())


def pooled(known: Statistics) -> Tensor:
    """One covariance for all classes, (width, width): Σ_c (n_c − 1) Σ_c / Σ_c (n_c − 1); 0 of single pictures."""
    share = (known.counts - 1) / (known.counts - 1).sum().clamp(min=1)
    return torch.tensordot(share, known.covariances, dims=1)


def nearest_mean(known: Statistics, metric: Literal["cosine", "euclidean"] = "cosine") -> Head:
    """The class whose mean μ is nearest, as a linear head; nothing is trained (SimpleCIL, arXiv 2303.07338).

    Cosine: argmax f·μ/‖μ‖, as the length of f is the same for all. Euclidean: argmin ‖f − μ‖² = argmax f·μ − ½‖μ‖².
    """
    mean = known.means
    if metric == "cosine":
        return Head(F.normalize(mean, dim=1), mean.new_zeros(len(mean)))
    return Head(mean.clone(), -0.5 * mean.square().sum(1))


def aligned(
    head: Head,
    known: Statistics,
    *,
    seed: int = 0,
    epochs: int = 5,
    samples: int = 256,
    batch: int = 128,
    rate: float = 1e-2,
    temperature: float | None = 0.1,
    shrink: float = 0.0,
    ridge: float = 1e-4,
) -> Head:
    """The head trained again on features drawn from every class's N(μ, Σ) (classifier alignment of SLCA, 2303.05118).

    All classes learned so far compete, which the local softmax never let them do. In each of `epochs`, `samples` are
    drawn of each class; SGD with momentum 0.9, its rate falling along a cosine. With a `temperature` τ the loss is the
    cross-entropy of z/(τ ‖z‖), SLCA's logit normalisation; None leaves the logits z. Σ is (1 − shrink) Σ_c + shrink
    Σ_pooled + ridge · mean diagonal: a few pictures do not span the width. All numbers here are ours. The same seed
    gives the same bytes on a CPU. Raises SettingsError for a head of other classes than the statistics'.
    """
    if head.weight.shape != known.means.shape or head.bias.shape != known.counts.shape:
        found = f"a head of {list(head.weight.shape)} for statistics of {list(known.means.shape)}"
        raise SettingsError(f"the head does not match: {found}", do="Give statistics of each of the head's classes.")
    classes, width = known.means.shape
    shared = pooled(known)
    sizes = torch.stack([known.covariances.diagonal(dim1=1, dim2=2).mean(), shared.diagonal().mean()])
    least = ridge * ((1 - shrink) * sizes[0] + shrink * sizes[1]).clamp(min=1e-8) * torch.eye(width).to(shared)
    # One class after another: in float64, hundreds of them at a width of 768 would not fit.
    spreads = ((1 - shrink) * one + shrink * shared + least for one in known.covariances)
    root = torch.stack([torch.linalg.cholesky(spread.double()).to(shared) for spread in spreads])
    labels = torch.arange(classes).repeat_interleave(samples)
    weight, bias = nn.Parameter(head.weight.detach().clone()), nn.Parameter(head.bias.detach().clone())
    optimizer = torch.optim.SGD([weight, bias], lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        draw = seeds.generator(seed, "head", epoch)
        noise = torch.randn(classes, samples, width, generator=draw).to(root)
        features = (known.means[:, None] + noise @ root.mT).flatten(0, 1)
        for places in torch.randperm(len(labels), generator=draw).split(batch):
            logits = F.linear(features[places], weight, bias)
            if temperature is not None:
                logits = F.normalize(logits, dim=1) / temperature
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[places].to(logits.device)).backward()
            optimizer.step()
        schedule.step()
    return Head(weight.detach(), bias.detach())


class MakeHead(Protocol):
    """Makes the head to judge by, from the one that was trained and what is known of each class."""

    def __call__(self, head: Head, known: Statistics, seed: int = 0) -> Head: ...


HEADS: Mapping[str, MakeHead] = {
    "local softmax": lambda head, known, seed=0: head,
    "aligned": lambda head, known, seed=0: aligned(head, known, seed=seed),
    "nearest mean": lambda head, known, seed=0: nearest_mean(known),
}
"""Name → head; the first is the one that was trained, each task's rows by its own softmax."""
