"""Every measure against an independent oracle: loops over the definition, SciPy, torchmetrics where it is there."""

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stamina_diffusion.metrics import continual, images

COUNTS = st.integers(1, 8)
SEEDS = st.integers(0, 999)


def features(count, width, seed):
    return np.random.default_rng(seed).normal(size=(count, width))


def matrix(count, seed):
    scores = np.random.default_rng(seed).uniform(-1, 1, (count, count))
    scores[np.triu_indices(count, 1)] = np.nan
    return scores


def cosine(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


@pytest.mark.parametrize("module", [continual, images])
def test_the_examples_in_the_documentation_hold(module):
    found = doctest.testmod(module, extraglobs={"np": np})
    assert found.attempted > 0
    assert found.failed == 0


# ------------------------------------------------------------------------------------------------------ over the stream


@given(count=COUNTS, seed=SEEDS)
def test_the_measures_of_a_score_matrix_are_their_definitions(count, seed):
    scores = matrix(count, seed)
    final = [scores[count - 1, j] for j in range(count)]
    worst = [max(scores[t, j] for t in range(j, count)) - final[j] for j in range(count - 1)]
    since = [scores[j, j] - final[j] for j in range(count - 1)]
    assert continual.average(scores) == pytest.approx(sum(final) / count)
    assert continual.forgetting_max(scores) == pytest.approx(sum(worst) / len(worst) if worst else 0)
    assert continual.forgetting_since(scores) == pytest.approx(sum(since) / len(since) if since else 0)
    assert continual.learned_when_learned(scores).tolist() == [scores[j, j] for j in range(count)]


def test_forgetting_is_measured_where_only_some_rows_are():
    scores = matrix(5, 0)
    scores[2, :2] = scores[3, :3] = np.nan
    expected = [max(scores[j, j], scores[4, j], scores[1, j] if j <= 1 else -9) - scores[4, j] for j in range(4)]
    assert continual.forgetting_max(scores) == pytest.approx(np.mean(expected))


@given(count=st.integers(2, 40), seed=SEEDS)
def test_saturation_is_the_ends_of_the_diagonal_and_the_slope_of_a_line_through_it(count, seed):
    scores = matrix(count, seed)
    ends = min(10, count // 2)
    diagonal = [scores[j, j] for j in range(count)]
    found = continual.saturation(scores)
    assert found.first == pytest.approx(sum(diagonal[:ends]) / ends)
    assert found.last == pytest.approx(sum(diagonal[count - ends :]) / ends)
    assert found.slope == pytest.approx(np.polyfit(range(count), diagonal, 1)[0], abs=1e-9)
    assert found.fall == pytest.approx(found.first - found.last)


@pytest.mark.parametrize("bad", [[[1.0, 2.0]], [[1.0, np.nan], [np.nan, 1.0]], [[np.nan]], []])
def test_what_is_no_finished_score_matrix_is_refused(bad):
    with pytest.raises(ValueError, match="a score matrix"):
        continual.average(bad)


def test_the_bootstrap_interval_is_that_of_all_resamples():
    # All 5⁵ resamples at once: what the draws estimate.
    values = [0.1, 0.9, 0.4, 0.35, 0.7]
    means = [sum(some) / 5 for some in itertools.product(values, repeat=5)]
    found = continual.bootstrap(values, level=0.9, draws=50_000)
    assert found.mean == pytest.approx(sum(values) / 5)
    assert found.low == pytest.approx(np.quantile(means, 0.05), abs=0.015)
    assert found.high == pytest.approx(np.quantile(means, 0.95), abs=0.015)


def test_the_bootstrap_agrees_with_scipys_and_averages_seeds_first():
    values = features(1, 50, 3)[0]
    scipys = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    found = continual.bootstrap(values)
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=0.02)
    assert continual.bootstrap([values - 1, values + 1]) == pytest.approx(found)
    assert continual.bootstrap(values) == found


def test_the_spread_over_seeds_is_the_sample_deviation():
    values = [0.2, 0.5, 0.9]
    found = continual.spread(values)
    assert found == pytest.approx((np.mean(values), stats.tstd(values), 0.2, 0.9))
    assert continual.spread([0.3]).deviation == 0


# ------------------------------------------------------------------------------------------------------------- kernels


def mmd2_by_loops(some, others, kernel):
    m, n = len(some), len(others)
    within = sum(kernel(some[i], some[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    beyond = sum(kernel(others[i], others[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    between = sum(kernel(x, y) for x in some for y in others) / (m * n)
    return within + beyond - 2 * between


def cubic_by_hand(x, y):
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


@settings(deadline=None)
@given(m=st.integers(2, 6), n=st.integers(2, 6), width=st.integers(1, 5), seed=SEEDS)
def test_mmd_is_the_unbiased_estimator_by_loops(m, n, width, seed):
    some, others = features(m, width, seed), features(n, width, seed + 1)
    by_loops = mmd2_by_loops(some, others, lambda x, y: cosine(x, y) ** 2)
    assert images.mmd2(some, others) == pytest.approx(by_loops, abs=1e-12)
    assert images.kid(some, others) == pytest.approx(mmd2_by_loops(some, others, cubic_by_hand), abs=1e-9)


def test_mmd_of_four_directions_by_hand():
    # x = e1, e2: k(x1, x2) = 0, so the first sum is 0. y = e1, e1: k = 1, so 2·1/(2·1) = 1. Between: e1·e1 = 1 twice,
    # e2·e1 = 0 twice: 2/4, doubled 1. 0 + 1 − 1 = 0. With y = e1, −e1 the same: the square sees no sign.
    x, y = np.eye(2), np.array([[1.0, 0.0], [3.0, 0.0]])
    assert images.mmd2(x, y) == 0
    assert images.mmd2(x, y * [[1], [-1]]) == 0
    # Opposite supports: x = e1, e1; y = e2, e2: 1 + 1 − 0 = 2, the largest there is.
    assert images.mmd2(y, y[:, ::-1]) == 2


def test_the_unbiased_mmd_has_mean_zero_for_one_distribution():
    # Samples of one distribution: the mean over 400 trials is within four standard errors of 0. A biased estimator
    # (diagonals kept) is off by about (1 − E k)(1/m + 1/n) = 0.27 here.
    found = [images.mmd2(features(5, 3, 2 * k), features(5, 3, 2 * k + 1)) for k in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(400) < 0.05


def test_mmd_needs_two_features_on_each_side():
    with pytest.raises(ValueError, match="there are 1 and 3"):
        images.mmd2(features(1, 2, 0), features(3, 2, 0))


def test_a_mmd_is_over_all_concepts_and_f_mmd_over_all_but_the_last_in_thousandths():
    photos, then, final = ([features(4, 3, 10 * k + j) for j in range(3)] for k in range(3))
    of_photos = [1000 * images.mmd2(x, y) for x, y in zip(photos, final, strict=True)]
    of_pairs = [1000 * images.paired_mmd2(x, y) for x, y in zip(then, final, strict=True)]
    assert images.a_mmd(photos, final) == pytest.approx(sum(of_photos) / 3)
    assert images.f_mmd(then, final) == pytest.approx((of_pairs[0] + of_pairs[1]) / 2)
    assert images.f_mmd(then[:1], final[:1]) == 0
    cubic = 1000 * images.kid(photos[0], final[0])
    assert images.mmd_of_each(photos, final, kernel="cubic")[0] == pytest.approx(cubic)


def test_the_mmd_of_a_sample_with_itself_is_minus_two_nths_of_what_its_kernel_lacks_and_that_of_pairs_is_zero():
    sample = features(6, 3, 0)
    kernels = [cosine(x, y) ** 2 for x, y in itertools.permutations(sample, 2)]
    assert images.mmd2(sample, sample) == pytest.approx(-2 * (1 - sum(kernels) / 30) / 6)
    assert images.paired_mmd2(sample, sample) == 0


@settings(deadline=None)
@given(n=st.integers(2, 6), width=st.integers(1, 5), seed=SEEDS)
def test_the_mmd_of_pairs_by_loops(n, width, seed):
    some, others = features(n, width, seed), features(n, width, seed + 1)
    total = 0.0
    for i, j in itertools.permutations(range(n), 2):
        total += cosine(some[i], some[j]) ** 2 + cosine(others[i], others[j]) ** 2
        total -= cosine(some[i], others[j]) ** 2 + cosine(some[j], others[i]) ** 2
    assert images.paired_mmd2(some, others) == pytest.approx(total / (n * (n - 1)), abs=1e-12)


def test_the_mmd_of_pairs_has_mean_zero_for_one_distribution_however_alike_the_pairs_are():
    # y is x with a little noise: the other estimator, whose sum between the samples has the pairs, is far below 0.
    pairs = [(features(5, 3, 2 * k), features(5, 3, 2 * k + 1)) for k in range(400)]
    pairs = [(x, (x + 0.1 * z) / math.sqrt(1.01)) for x, z in pairs]
    found = [images.paired_mmd2(x, y) for x, y in pairs]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(400) < 0.05
    assert np.mean([images.mmd2(x, y) for x, y in pairs]) < -0.2


def test_the_mmd_of_pairs_needs_two_and_as_many_on_each_side():
    for one, other in ((1, 1), (3, 2)):
        with pytest.raises(ValueError, match=f"there are {one} and {other}"):
            images.paired_mmd2(features(one, 2, 0), features(other, 2, 0))


def test_kid_is_that_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.image.kid")
    torch = pytest.importorskip("torch")
    some, others = features(6, 4, 0), features(6, 4, 1)
    distance = torchmetrics.KernelInceptionDistance(torch.nn.Identity(), subsets=1, subset_size=6)
    distance.update(torch.tensor(some), real=True)
    distance.update(torch.tensor(others), real=False)
    assert images.kid(some, others) == pytest.approx(float(distance.compute()[0]), rel=1e-4)


# ---------------------------------------------------------------------------------------------------------- likenesses


@settings(deadline=None)
@given(m=st.integers(1, 5), n=st.integers(1, 5), width=st.integers(1, 4), seed=SEEDS)
def test_alignments_and_drift_are_means_of_cosines(m, n, width, seed):
    samples, photos, texts = features(m, width, seed), features(n, width, seed + 1), features(m, width, seed + 2)
    pairs = [cosine(x, y) for x in samples for y in photos]
    own = [cosine(x, y) for x, y in zip(samples, texts, strict=True)]
    assert images.image_alignment(samples, photos) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert images.text_alignment(samples, texts) == pytest.approx(sum(own) / m, abs=1e-12)
    assert images.drift(samples, texts) == pytest.approx(1 - sum(own) / m, abs=1e-12)
    assert images.drift(samples, 3 * samples) == pytest.approx(0, abs=1e-12)


@settings(deadline=None)
@given(concepts=st.integers(2, 5), count=st.integers(1, 4), width=st.integers(2, 4), seed=SEEDS)
def test_retrieval_confusion_and_bleed_are_their_definitions(concepts, count, width, seed):
    samples = [features(count, width, seed + 2 * k) for k in range(concepts)]
    photos = [features(count + 1, width, seed + 2 * k + 1) for k in range(concepts)]
    expected = np.zeros((concepts, concepts))
    for i, some in enumerate(samples):
        for x in some:
            likeness = [np.mean([cosine(x, y) for y in others]) for others in photos]
            expected[i, likeness.index(max(likeness))] += 1 / count
    alignments = [[images.image_alignment(some, others) for others in photos] for some in samples]
    np.testing.assert_allclose(images.confusion(samples, photos), expected)
    np.testing.assert_allclose(images.retrieval(samples, photos), np.diagonal(expected))
    np.testing.assert_allclose(images.bleed(samples, photos), alignments, atol=1e-12)
    np.testing.assert_allclose(images.retrieval(samples[:1], photos), expected[0, :1])


def test_retrieval_of_pictures_of_the_wrong_concept_is_zero():
    photos = [np.eye(3)[[k]] for k in range(3)]
    assert images.retrieval([photos[0], photos[2], photos[1]], photos).tolist() == [1, 0, 0]


def test_both_concepts_of_a_prompt_are_shown_where_they_are_the_two_most_alike():
    photos = [np.eye(3)[[k]] for k in range(3)]
    samples = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.1], [1.0, 0.0, 0.9], [0.0, 0.0, 1.0]])
    assert images.both_shown(samples, photos, (1, 0)) == 0.5


def test_a_feature_of_length_zero_has_no_direction_and_no_nan():
    assert images.unit(np.zeros((1, 3))).tolist() == [[0, 0, 0]]
