"""Heads from class statistics, by hand and on made-up classes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stamina_diffusion.errors import SettingsError
from stamina_diffusion.heads import HEADS, Head, Statistics, aligned, nearest_mean, of_thin, pooled, statistics

SEEDS = st.integers(0, 99)


def rows(*values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def pictures(classes: int, width: int, seed: int, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of classes whose means lie apart, and their labels."""
    draw = torch.Generator().manual_seed(seed)
    means = 3 * torch.randn(classes, width, generator=draw)
    labels = torch.arange(classes).repeat_interleave(count)
    return means[labels] + torch.randn(len(labels), width, generator=draw), labels


def right(head: Head, features: torch.Tensor, labels: torch.Tensor) -> float:
    return float((head.logits(features).argmax(1) == labels).float().mean())


def test_statistics_by_hand():
    # Class 0: (0, 0), (2, 0), (1, 3): mean (1, 1); away (−1, −1), (1, −1), (0, 2); Σ = [[2, 0], [0, 6]]/2.
    # Class 1: (5, 5) alone: Σ = 0. Pooled over n − 1 = 2 and 0: the first's.
    known = statistics(rows([0, 0], [5, 5], [2, 0], [1, 3]), torch.tensor([0, 1, 0, 0]))
    assert known.means.tolist() == [[1, 1], [5, 5]]
    assert known.covariances.tolist() == [[[1, 0], [0, 3]], [[0, 0], [0, 0]]]
    assert known.counts.tolist() == [3, 1]
    assert pooled(known).tolist() == [[1, 0], [0, 3]]


def test_the_pooled_covariance_weighs_by_what_was_free():
    # n − 1 = 1 and 3: (1 · 8 + 3 · 4)/4 = 5.
    known = Statistics(torch.zeros(2, 1), torch.tensor([[[8.0]], [[4.0]]]), torch.tensor([2.0, 4.0]))
    assert pooled(known).tolist() == [[5]]


def test_a_later_tasks_classes_stand_behind():
    features, labels = pictures(3, 4, seed=0)
    apart = statistics(features[labels < 2], labels[labels < 2]).joined(statistics(features[80:], labels[80:] - 2))
    for one, other in zip(apart, statistics(features, labels), strict=True):
        torch.testing.assert_close(one, other)
    assert list(apart.tensors()) == ["means", "covariances", "counts"]


@pytest.mark.parametrize(("labels", "said"), [([0, 2], "class 1 has no pictures"), ([], "there are no pictures")])
def test_a_class_without_pictures_is_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        statistics(torch.zeros(len(labels), 2), torch.tensor(labels, dtype=torch.long))


@given(classes=st.integers(1, 6), width=st.integers(1, 5), seed=SEEDS)
def test_the_nearest_mean_is_the_nearest(classes, width, seed):
    features, labels = pictures(classes, width, seed, count=3)
    mean = statistics(features, labels).means
    known = statistics(features, labels)
    by_angle = torch.nn.functional.cosine_similarity(features[:, None], mean[None], dim=2)
    found = nearest_mean(known).logits(features)
    torch.testing.assert_close(found / features.norm(dim=1, keepdim=True), by_angle, atol=1e-5, rtol=1e-4)
    by_distance = (features[:, None] - mean[None]).square().sum(2)
    found = nearest_mean(known, "euclidean").logits(features) - 0.5 * features.square().sum(1, keepdim=True)
    torch.testing.assert_close(-2 * found, by_distance, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_alignment_lets_classes_of_different_tasks_compete(temperature):
    # Rows that were trained apart: the later task's are so much ahead that the earlier one's never win.
    features, labels = pictures(6, 8, seed=0)
    known = statistics(features, labels)
    trained = nearest_mean(known)
    apart = Head(trained.weight, trained.bias + 20 * (torch.arange(6) >= 3))
    assert right(apart, features, labels) <= 0.55
    again = aligned(apart, known, temperature=temperature, rate=0.1, epochs=10, samples=64)
    assert right(again, features, labels) > 0.9


def test_alignment_repeats_and_leaves_its_arguments_alone():
    features, labels = pictures(3, 4, seed=1)
    known, head = statistics(features, labels), Head(torch.zeros(3, 4), torch.zeros(3))
    first, second, other = (aligned(head, known, seed=seed, samples=16) for seed in (0, 0, 1))
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)
    assert head.weight.count_nonzero() == 0
    assert not first.weight.requires_grad


def test_one_step_of_alignment_by_hand():
    # Two classes at +1 and −1 without spread, W = 0, b = 0: softmax ½ each. Per class the gradient of W is −½ μ for its
    # own row and +½ μ for the other: over both, row 0: −½(1)/2 + ½(−1)/2 = −½. Rate 1: W = [½, −½], b = 0.
    known = Statistics(rows([1], [-1]), torch.zeros(2, 1, 1), torch.tensor([9.0, 9.0]))
    head = Head(torch.zeros(2, 1), torch.zeros(2))
    found = aligned(head, known, epochs=1, samples=1, batch=2, rate=1.0, temperature=None)
    torch.testing.assert_close(found.weight, rows([0.5], [-0.5]), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.bias, torch.zeros(2), atol=1e-4, rtol=0)


def test_normalised_logits_do_not_depend_on_how_long_the_rows_are():
    # z/‖z‖ is the same for 10 W as for W, so its gradient is a tenth: the step is 10 · 10 times smaller in units of W.
    known = Statistics(rows([1, 0], [0, 1]), torch.zeros(2, 2, 2), torch.tensor([9.0, 9.0]))
    start = rows([2, 1], [1, 1])
    steps = []
    for scale in (1, 10):
        head = Head(scale * start, torch.zeros(2))
        found = aligned(head, known, epochs=1, samples=1, batch=2, rate=1e-3)
        steps.append((found.weight - head.weight) * scale)
    torch.testing.assert_close(steps[0], steps[1], atol=2e-4, rtol=2e-2)


def test_a_shrunken_covariance_spans_what_a_few_pictures_do_not():
    # Two pictures of a class differ along one direction; the pooled covariance knows the other from another class.
    known = statistics(rows([0, 0], [2, 0], [9, 0], [9, 4]), torch.tensor([0, 0, 1, 1]))
    head = Head(torch.zeros(2, 2), torch.zeros(2))
    alone, shared = (aligned(head, known, shrink=shrink, samples=64) for shrink in (0.0, 1.0))
    assert not torch.allclose(alone.weight, shared.weight, atol=1e-3)


def test_a_head_of_other_classes_is_refused():
    known = Statistics(torch.zeros(2, 3), torch.zeros(2, 3, 3), torch.ones(2))
    with pytest.raises(SettingsError, match=r"a head of \[3, 3\] for statistics of \[2, 3\]"):
        aligned(Head(torch.zeros(3, 3), torch.zeros(3)), known)


def test_every_head_is_one_of_the_same_shape():
    features, labels = pictures(4, 5, seed=2)
    trained, known = Head(torch.randn(4, 5), torch.zeros(4)), statistics(features, labels)
    made = {name: make(trained, known) for name, make in HEADS.items()}
    assert list(made) == ["local softmax", "aligned", "nearest mean"]
    assert made["local softmax"] is trained
    assert all(head.weight.shape == (4, 5) and head.bias.shape == (4,) for head in made.values())


def test_thin_statistics_are_the_same_and_smaller():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(17, 9, generator=draw)
    labels = torch.tensor([0] * 12 + [1] * 4 + [2])  # more than the width, fewer, and a single picture
    known = statistics(features, labels)
    kept = known.thin()
    assert kept["roots"].shape == (9 + 3 + 0, 9)
    again = of_thin(kept)
    assert torch.equal(again.means, known.means)
    torch.testing.assert_close(again.covariances, known.covariances, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="roots"):
        of_thin({**kept, "roots": kept["roots"][1:]})
