"""How like the photos, like the prompt and unlike other concepts the pictures are, as functions of feature arrays.

Features are (pictures, width), of any encoder; a list has one such array a concept, in the order of learning. All
measures but KID look at directions only: they divide each feature by its length first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def unit(features: Array) -> Array:
    """Features divided by their lengths, float64; a feature of length 0 stays 0."""
    found = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    return found / np.where(lengths > 0, lengths, 1)


def quadratic(some: Array, others: Array) -> Array:
    """k(x, y) = (x · y)² of unit features: the degree-2 polynomial kernel without offset."""
    return (unit(some) @ unit(others).T) ** 2


def cubic(some: Array, others: Array) -> Array:
    """k(x, y) = (x · y / width + 1)³ of features as they are: the kernel of KID (arXiv 1801.01401)."""
    some, others = np.asarray(some, dtype=np.float64), np.asarray(others, dtype=np.float64)
    return (some @ others.T / some.shape[-1] + 1) ** 3


KERNELS: dict[str, Callable[[Array, Array], Array]] = {"quadratic": quadratic, "cubic": cubic}


def mmd2(some: Array, others: Array, kernel: str = "quadratic") -> float:
    """The squared maximum mean discrepancy of two samples, by its unbiased estimator.

    MMD² = Σ_{i≠j} k(x_i, x_j) / (m (m − 1)) + Σ_{i≠j} k(y_i, y_j) / (n (n − 1)) − 2 Σ_{i,j} k(x_i, y_j) / (m n)

    (Gretton et al. 2012, equation 3.) Its mean over samples is 0 where both have one distribution, so it may come out
    negative. `kernel` is one of KERNELS. Raises ValueError for fewer than two features on a side.
    """
    within, beyond, between = mmd_terms(some, others, kernel)
    return within + beyond - 2 * between


def mmd_terms(some: Array, others: Array, kernel: str = "quadratic") -> tuple[float, float, float]:
    """What that MMD² is made of: the mean kernel of two of `some`, of two of `others`, and of one of each."""
    m, n = len(some), len(others)
    if m < 2 or n < 2:
        raise ValueError(f"the unbiased MMD² needs two features on each side, and there are {m} and {n}")
    k = KERNELS[kernel]
    within, beyond = k(some, some), k(others, others)
    return (
        float((within.sum() - np.trace(within)) / (m * (m - 1))),
        float((beyond.sum() - np.trace(beyond)) / (n * (n - 1))),
        float(k(some, others).mean()),
    )


def paired_mmd2(some: Array, others: Array, kernel: str = "quadratic") -> float:
    """The same of two samples whose k-th pictures belong together, being drawn from one seed.

    MMD² = Σ_{i≠j} (k(x_i, x_j) + k(y_i, y_j) − k(x_i, y_j) − k(x_j, y_i)) / (n (n − 1))

    (Gretton et al. 2012, equation 4.) Pictures of one seed are alike even when what they are drawn from is not, so the
    sum between the samples leaves their pairs out, and the mean over seeds is that of independent samples: 0 for one
    distribution. It is exactly 0 where nothing changed. Raises ValueError as `mmd2`, and for samples of unlike sizes.
    """
    if (n := len(some)) != len(others) or n < 2:
        raise ValueError(f"the MMD² of pairs needs two or more on each side, and there are {n} and {len(others)}")
    k = KERNELS[kernel]
    whole = k(some, some) + k(others, others) - 2 * k(some, others)
    return float((whole.sum() - np.trace(whole)) / (n * (n - 1)))


def mmd_of_each(
    some: Sequence[Array],
    others: Sequence[Array],
    kernel: str = "quadratic",
    estimator: Callable[[Array, Array, str], float] = mmd2,
) -> Array:
    """MMD² × 10³ of each concept's two samples, (concepts,); `estimator` is `mmd2` or `paired_mmd2`."""
    return np.array([1000 * estimator(x, y, kernel) for x, y in zip(some, others, strict=True)])


def a_mmd(photos: Sequence[Array], final: Sequence[Array], kernel: str = "quadratic") -> float:
    """A_mmd × 10³ = mean over all concepts of MMD²(photos, what the last model draws); lower is better.

    C-LoRA's measure (arXiv 2304.06027), reconstructed: kernel and estimator are ours, so compare within a report only.
    """
    return float(mmd_of_each(photos, final, kernel).mean())


def f_mmd(then: Sequence[Array], final: Sequence[Array], kernel: str = "quadratic") -> float:
    """F_mmd × 10³ = mean over all concepts but the last of MMD²(drawn when just learned, drawn by the last model).

    Both are drawn from the same seeds, so the estimator is that of pairs: 0 where nothing changed, and for a single
    concept. C-LoRA's measure (arXiv 2304.06027), reconstructed as A_mmd is.
    """
    each = mmd_of_each(then[:-1], final[:-1], kernel, paired_mmd2)
    return float(each.mean()) if len(each) else 0.0


def kid(some: Array, others: Array) -> float:
    """The kernel distance of KID (arXiv 1801.01401), on features as they are: unbiased MMD² with the cubic kernel."""
    return mmd2(some, others, "cubic")


def image_alignment(samples: Array, photos: Array) -> float:
    """Mean cosine over all pairs of a sample and a photo.

    >>> image_alignment(np.array([[2.0, 0.0]]), np.eye(2))
    0.5
    """
    return float((unit(samples) @ unit(photos).T).mean())


def text_alignment(samples: Array, texts: Array) -> float:
    """Mean cosine of each sample with the text feature of its prompt; `texts` is (pictures, width), or one (width,).

    >>> text_alignment(np.eye(2), np.array([1.0, 0.0]))
    0.5
    """
    return float((unit(samples) * unit(texts)).sum(-1).mean())


def likenesses(samples: Array, photos: Sequence[Array]) -> Array:
    """Of each sample the mean cosine with each concept's photos, (pictures, concepts)."""
    centres = np.stack([unit(some).mean(axis=0) for some in photos])
    return unit(samples) @ centres.T


def bleed(samples: Sequence[Array], photos: Sequence[Array]) -> Array:
    """(concepts, concepts): the image alignment of what prompt i draws with the photos of concept j.

    A row whose largest entry is not on the diagonal is a concept that bleeds into another.
    """
    return np.stack([likenesses(some, photos).mean(axis=0) for some in samples])


def confusion(samples: Sequence[Array], photos: Sequence[Array]) -> Array:
    """(concepts, concepts): the share of what prompt i draws that is most like the photos of concept j."""
    nearest = [likenesses(some, photos).argmax(axis=1) for some in samples]
    return np.stack([np.bincount(found, minlength=len(photos)) / len(found) for found in nearest])


def retrieval(samples: Sequence[Array], photos: Sequence[Array]) -> Array:
    """Retrieval@1 of each concept, (concepts,): the share of its samples that are most like its own photos.

    Give every concept of the stream's photos; chance is 1 / concepts. Where some concepts have no samples yet, give the
    samples of the first ones: samples[i] belongs to photos[i].
    """
    return np.diagonal(confusion(samples, photos)).copy()


def both_shown(samples: Array, photos: Sequence[Array], pair: tuple[int, int]) -> float:
    """Of a prompt with two concepts: the share of samples whose two most alike concepts are these two."""
    closest = np.argsort(-likenesses(samples, photos), axis=1, kind="stable")[:, :2]
    return float((np.sort(closest, axis=1) == np.sort(pair)).all(axis=1).mean())


def drift(before: Array, after: Array) -> float:
    """1 − mean cosine of pictures of the same prompts and seeds, before and after; 0 where nothing changed.

    >>> drift(np.eye(2), np.eye(2)[::-1])
    1.0
    """
    return 1.0 - float((unit(before) * unit(after)).sum(-1).mean())
