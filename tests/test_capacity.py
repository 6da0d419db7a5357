"""Capacity: densities, overlaps and stable ranks against arithmetic by hand; the forecast against known lines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stamina_diffusion import capacity, forecast
from stamina_diffusion.capacity import Overlap


def test_a_meter_worked_by_hand():
    # Two concepts on one 2 × 2 layer of the base's weight [[3, 0], [0, 4]], of norm 5.
    first = {"w": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "token/<a>": torch.ones(1, 2), "start": torch.ones(1, 2)}
    newest = {"w": torch.tensor([[3.0, 0.0], [0.0, 4.0]])}
    weights = {"w": torch.tensor([[3.0, 0.0], [0.0, 4.0]]) + first["w"] + newest["w"]}
    found = capacity.meter(newest, [("a", first)], weights)
    layer = found.layers["w"]
    assert layer.density == 0.5
    assert layer.norm == pytest.approx(1.0)  # √(9 + 16) / 5
    assert layer.moved == 0.5
    assert layer.sum_norm == pytest.approx(32**0.5 / 5)  # the sum is diag(4, 4)
    assert (layer.stable_rank, layer.rank_limit) == (pytest.approx(2.0), 2)
    # Both move 1 entry of 2; ⟨Δ, Δ'⟩ = 3 over 1 · 5.
    assert found.overlaps == {"a": Overlap(share=0.5, cosine=pytest.approx(0.6))}
    assert found.overlap == 0.5


def test_a_layer_that_only_an_earlier_concept_moved_is_counted():
    found = capacity.meter(
        {"w": torch.ones(1, 2)}, [("a", {"v": torch.ones(2, 2)})], {"w": torch.ones(1, 2), "v": torch.eye(2)}
    )
    assert (found.layers["v"].density, found.layers["v"].moved, found.layers["v"].norm) == (0.0, 1.0, 0.0)
    assert found.overlaps["a"] == Overlap(0.0, 0.0)


def test_a_word_alone_takes_no_room():
    found = capacity.meter({"token/<a>": torch.ones(1, 4), "start": torch.ones(1, 4)}, [], {})
    assert (found.layers, found.overlaps, found.overlap) == ({}, {}, 0.0)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3, 3), (6,)])
def test_the_stable_rank_agrees_with_singular_values(shape):
    matrix = torch.from_numpy(np.random.default_rng(0).normal(size=shape)).float()
    values = np.linalg.svd(matrix.numpy().reshape(shape[0] if len(shape) > 1 else 1, -1), compute_uv=False)
    assert capacity.stable_rank(matrix) == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-5)
    assert capacity.stable_rank(torch.zeros(shape)) == 0.0


def test_a_line_is_forecast_with_the_interval_of_ordinary_least_squares():
    xs, ys = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.2, 2.9, 4.1, 4.8]
    found = forecast.predict(xs, ys, 6.0, "number")
    slope, start = np.polyfit(xs, ys, 1)
    residual = np.array(ys) - (slope * np.array(xs) + start)
    deviation = (residual @ residual / 3) ** 0.5
    half = 1.638 * deviation * (1 + 1 / 5 + (6 - 3) ** 2 / 10) ** 0.5  # t of 3 degrees of freedom, 90 %
    assert found is not None
    assert found.mean == pytest.approx(slope * 6 + start)
    assert (found.low, found.high) == (pytest.approx(found.mean - half), pytest.approx(found.mean + half))
    assert "line" in found.rule


def test_few_or_equal_observations_give_the_mean_and_one_gives_nothing():
    assert forecast.predict([0.1], [0.5], 0.2, "overlap") is None
    few = forecast.predict([1.0, 2.0], [0.1, 0.3], 3.0, "overlap")
    assert few is not None
    assert (few.mean, few.rule) == (pytest.approx(0.2), "mean so far")
    assert few.high - few.low > 0.8  # two observations say little: t of one degree of freedom is 3.078
    same = forecast.predict([1.0] * 5, [0.1, 0.2, 0.3, 0.4, 0.5], 1.0, "overlap")
    assert same is not None
    assert (same.mean, same.rule) == (pytest.approx(0.3), "mean so far")


def test_intervals_hold_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        xs = list(range(1, 8))
        ys = [0.1 * x + rng.normal() for x in (*xs, 8)]
        found = forecast.known_when_learned(ys[:-1])
        assert found is not None
        inside += found.low <= ys[-1] <= found.high
    assert 0.74 < inside / 400 < 0.86  # 80 %, three standard errors


def test_the_earlier_ones_fall_is_forecast_from_the_recent_overlap():
    found = forecast.falls_of_the_earlier([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0])
    assert found is not None
    assert found.mean == pytest.approx(0.3)  # at the mean of 2, 3, 4
    assert forecast.falls_of_the_earlier([], []) is None
