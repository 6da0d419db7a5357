"""What test_fused.py runs in a process of its own, where STAMINA_FUSED and TRITON_INTERPRET are set from the start."""

import copy
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from stamina_diffusion import fused
from stamina_diffusion.compact import MaskedChange, weighted_squares
from stamina_diffusion.errors import Notice
from stamina_diffusion.forming import mask_of, noise_of
from stamina_diffusion.methods.stamina import HardMasked, Stamina, straight_through
from stamina_diffusion.sites import changed
from test_masked_change import gradients, layer_of, stirred

CPU = torch.device("cpu")
LIKE = torch.zeros(1)


def a_change(rows: int, columns: int, **settings):
    """A layer, its sites, a delta of the full mask with every parameter moved, in float32, and one draw of it."""
    torch.manual_seed(rows)
    layer, sites = layer_of(rows, columns)
    delta = stirred(Stamina(mask_bias=0.3, **settings), sites["w"]).float()
    layer.float()
    value = delta()
    assert isinstance(delta, HardMasked)
    assert isinstance(value, MaskedChange)
    assert value.mask.fused
    return layer, sites, delta, value


def plainly(delta: HardMasked, seed: int) -> tuple[HardMasked, Tensor]:
    """The oracle: the delta in float64, and its Δ as the equations have it, by torch's own autograd."""
    exact = copy.deepcopy(delta).double()
    logits, change = exact.mask(), exact.change
    noise = noise_of(seed, *logits.shape, like=LIKE).double()
    return exact, change.scale * (change.up @ change.down) * straight_through(logits + noise, delta.temperature)


def same(some: list[Tensor], others: list[Tensor], rtol: float = 1e-4) -> None:
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "mask_rank", "activation", "temperature", "tile"),
    [
        (33, 150, 3, 5, "relu", 1.0, (16, 128)),
        (32, 64, 4, 3, "gelu", 0.5, (16, 32)),
        (5, 1, 1, 1, "none", 2.0, (2, 4)),
        (1, 3, 2, 1, "relu", 1.0, (16, 128)),
    ],
)
def test_values_gradients_and_penalty_are_those_of_the_equations(
    monkeypatch, rows, columns, rank, mask_rank, activation, temperature, tile
):
    monkeypatch.setattr(fused, "TILE", tile)
    settings = {"rank": rank, "mask_rank": mask_rank, "mask_activation": activation, "temperature": temperature}
    layer, sites, delta, value = a_change(rows, columns, **settings)
    # The draw was made; what is asked for later does not change it.
    monkeypatch.delenv("STAMINA_FUSED")
    x = torch.randn(2, 3, columns, requires_grad=True)
    moved, wanted = torch.randn(rows, columns), torch.randn(2, 3, rows)
    with changed(sites, {"w": value}):
        y, paid = layer(x), weighted_squares(moved, value)
        got = gradients((y * wanted).sum() + 0.7 * paid, x, delta)
    monkeypatch.setenv("STAMINA_FUSED", "1")
    exact, oracle = plainly(delta, value.mask.seed)
    x64 = x.detach().double().requires_grad_()
    expected = linear(x64, layer.weight.double() + oracle)
    penalty = (moved * oracle).square().sum()
    same([y, paid, value], [expected, penalty, oracle])
    same(got, gradients((expected * wanted).sum() + 0.7 * penalty, x64, exact))
    # As an ordinary tensor, too.
    ours = gradients((value * moved).sum() + 0 * x.sum(), x, delta)
    same(ours, gradients((oracle * moved).sum() + 0 * x64.sum(), x64, exact))


def test_in_bf16_the_layer_takes_weight_plus_change_in_bf16_and_its_gradients_are_float32():
    layer, sites, delta, value = a_change(20, 24, rank=2, mask_rank=2)
    x = torch.randn(5, 24)
    with changed(sites, {"w": value}), torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    exact, oracle = plainly(delta, value.mask.seed)
    whole, x64 = layer.weight.double() + oracle, x.to(torch.bfloat16).double()
    assert y.dtype == torch.bfloat16
    got = fused.form(value.mask.seed, value.factors, layer.weight, torch.bfloat16)
    assert got.dtype == torch.bfloat16
    # To the next bf16 but one: the interpreter cuts off what a GPU rounds.
    torch.testing.assert_close(got.double(), whole, rtol=2**-7, atol=1e-5)
    of_both = [(y, linear(x64, whole))]
    ours = torch.autograd.grad(y.float().square().sum(), list(delta.parameters()))
    theirs = torch.autograd.grad(of_both[0][1].square().sum(), list(exact.parameters()))
    assert {gradient.dtype for gradient in ours} == {torch.float32}
    for one, other in [*of_both, *zip(ours, theirs, strict=True)]:
        assert float((one - other).detach().norm() / other.norm()) < 0.02


def test_in_fp16_weight_plus_change_is_rounded():
    layer, _, _, value = a_change(9, 24, rank=2, mask_rank=2)
    whole = fused.form(value.mask.seed, value.factors, layer.weight)
    assert torch.equal(fused.form(value.mask.seed, value.factors, layer.weight, torch.float16), whole.half())


def test_the_noise_is_logistic_and_seed_and_place_alone_decide_it(monkeypatch):
    monkeypatch.setattr(fused, "TILE", (256, 512))
    noise = noise_of((1 << 61) + 5, 400, 500, LIKE)
    assert torch.equal(noise, noise_of((1 << 61) + 5, 400, 500, LIKE))
    monkeypatch.setattr(fused, "TILE", (16, 64))
    assert torch.equal(noise[:21, :77], noise_of((1 << 61) + 5, 21, 77, LIKE))
    # Seeds that differ in their upper or lower half only.
    for other in (5, (1 << 61) + 6):
        assert float((noise[:21, :77] == noise_of(other, 21, 77, LIKE)).float().mean()) < 0.01
    # Logistic(0, 1): mean 0 (± 1.81 / √200,000 = 0.004), variance π²/3, P(g < 1) = σ(1) (± 0.001).
    assert float(noise.mean()) == pytest.approx(0, abs=0.017)
    assert float(noise.var()) == pytest.approx(torch.pi**2 / 3, rel=0.02)
    for bound in (-4.0, 0.0, 1.0, 4.0):
        below = float((noise < bound).float().mean())
        assert below == pytest.approx(float(torch.sigmoid(torch.tensor(bound))), abs=0.005)
    # Neighbours, and the four entries of one draw, know nothing of each other.
    flat = noise.flatten()
    for lag in (1, 2, 3, 4, 500):
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < 0.05


def test_only_float32_is_for_the_kernels():
    assert mask_of(1, 1.0, LIKE).fused
    assert not mask_of(1, 1.0, LIKE.double()).fused


@pytest.mark.parametrize("fault", ["fails", "lies"])
def test_kernels_that_fail_or_lie_are_left_after_one_notice(monkeypatch, fault):
    launch = fused._launch

    def faulty(name, *given):
        if fault == "fails":
            raise RuntimeError("no such instruction")
        launch(name, *given)
        if name == "pull":
            given[6].mul_(2)

    monkeypatch.setattr(fused, "_launch", faulty)
    monkeypatch.setattr(fused, "_TRIED", ((16, 128),))
    fused._work.cache_clear()
    said = {"fails": "no such instruction", "lies": "do not compute what the equations say"}[fault]
    with pytest.warns(Notice, match=f"going on with the plain version.*{said}"):
        assert not mask_of(1, 1.0, LIKE).fused
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        assert not mask_of(1, 1.0, LIKE).fused
    monkeypatch.undo()
    fused._work.cache_clear()
