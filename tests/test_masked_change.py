"""A compact change is the dense one: same values, same gradients, one draw; and it holds next to nothing."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear

from stamina_diffusion.compact import Compact, MaskedChange, Sum, weighted_squares
from stamina_diffusion.deltas import Delta, LowRank
from stamina_diffusion.forming import noise_of
from stamina_diffusion.methods.stamina import Activation, HardGated, HardMasked, Stamina, straight_through
from stamina_diffusion.sites import Site, changed

SIZES = st.integers(1, 9)
RANKS = st.integers(1, 4)
SEEDS = st.integers(0, 9999)


def layer_of(rows: int, columns: int, bias: bool = False) -> tuple[nn.Linear, dict[str, Site]]:
    layer = nn.Linear(columns, rows, bias=bias).double().requires_grad_(False)
    return layer, {"w": Site("w", "weight", layer, "weight")}


def stirred(method: Stamina, site: Site) -> Delta:
    """A delta in float64 with every parameter moved, so that no gradient is 0."""
    delta = method.delta(site, {})
    assert delta is not None
    with torch.no_grad():
        for parameter in delta.double().parameters():
            parameter.add_(torch.randn_like(parameter))
    return delta


def plain(delta: Delta, seed: int) -> Tensor:
    """The oracle: Δ as the equations have it, by torch's own autograd, with the noise of a seed."""
    assert isinstance(delta, HardMasked)
    logits, change = delta.mask(), delta.change
    noise = noise_of(seed, *logits.shape, like=logits)
    return change.scale * (change.up @ change.down) * straight_through(logits + noise, delta.temperature)


def gradients(cost: Tensor, x: Tensor, delta: Delta) -> list[Tensor]:
    return list(torch.autograd.grad(cost, [x, *delta.parameters()], retain_graph=True, materialize_grads=True))


def same(some: list[Tensor], others: list[Tensor]) -> None:
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    rows=SIZES,
    columns=SIZES,
    rank=RANKS,
    mask_rank=RANKS,
    tokens=SIZES,
    seed=SEEDS,
    activation=st.sampled_from(["relu", "gelu", "none"]),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    tile=st.sampled_from([1, 7, 1 << 17]),
    bias=st.booleans(),
)
def test_a_masked_layer_computes_what_the_equations_say_with_their_gradients(
    rows, columns, rank, mask_rank, tokens, seed, activation: Activation, temperature, tile, bias
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stamina_diffusion.forming.TILE", tile)
        torch.manual_seed(seed)
        layer, sites = layer_of(rows, columns, bias)
        method = Stamina(
            rank=rank, mask_rank=mask_rank, mask_activation=activation, mask_bias=0.3, temperature=temperature
        )
        delta = stirred(method, sites["w"])
        x = torch.randn(2, tokens, columns, dtype=torch.float64, requires_grad=True)
        moved, wanted = torch.randn(rows, columns).double(), torch.randn(2, tokens, rows).double()
        value = delta()
        assert isinstance(value, MaskedChange)
        with changed(sites, {"w": value}):
            y, paid = layer(x), weighted_squares(moved, value)
            got = gradients((y * wanted).sum() + 0.7 * paid, x, delta)
        oracle = plain(delta, value.mask.seed)
        expected = linear(x, layer.weight + oracle, layer.bias)
        penalty = (moved.abs() * oracle).square().sum()
        same([y, paid, value], [expected, penalty, oracle])
        same(got, gradients((expected * wanted).sum() + 0.7 * penalty, x, delta))
        # As an ordinary tensor, too.
        nothing = 0 * x.sum()
        ours, theirs = (gradients((some * moved).sum() + nothing, x, delta) for some in (value, oracle))
        same(ours, theirs)


@settings(deadline=None, max_examples=25)
@given(rows=SIZES, columns=SIZES, rank=RANKS, tokens=SIZES, seed=SEEDS, form=st.sampled_from(["gates", "none"]))
def test_a_low_rank_layer_computes_what_weight_plus_change_would(rows, columns, rank, tokens, seed, form):
    torch.manual_seed(seed)
    layer, sites = layer_of(rows, columns)
    delta = stirred(Stamina(rank=rank, mask=form, mask_bias=0.3, scaling="1/r"), sites["w"])
    assert isinstance(delta, HardGated | LowRank)
    x = torch.randn(tokens, columns, dtype=torch.float64, requires_grad=True)
    moved, wanted = torch.randn(rows, columns).double(), torch.randn(tokens, rows).double()
    value = delta()
    assert isinstance(value, Compact)
    with changed(sites, {"w": value}):
        y, paid = layer(x), weighted_squares(moved, value)
        got = gradients((y * wanted).sum() + 0.7 * paid, x, delta)
    dense = value.dense()
    expected, penalty = linear(x, layer.weight + dense), (moved * dense).square().sum()
    same([y, paid], [expected, penalty])
    same(got, gradients((expected * wanted).sum() + 0.7 * penalty, x, delta))


def test_the_noise_is_logistic_and_its_seed_alone_decides_it():
    like = torch.zeros(1)
    noise = noise_of(5, 400, 500, like)
    assert torch.equal(noise, noise_of(5, 400, 500, like))
    assert not torch.equal(noise, noise_of(6, 400, 500, like))
    # Logistic(0, 1): mean 0 (± 1.81 / √200,000 = 0.004), variance π²/3, P(g < 1) = σ(1) (± 0.001).
    assert float(noise.mean()) == pytest.approx(0, abs=0.017)
    assert float(noise.var()) == pytest.approx(torch.pi**2 / 3, rel=0.02)
    assert float((noise < 1).float().mean()) == pytest.approx(float(torch.sigmoid(torch.tensor(1.0))), abs=0.005)
    # Neighbours, and the four entries of one draw, know nothing of each other.
    flat = noise.flatten()
    for lag in (1, 2, 3, 4, 500):
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < 0.05


def test_a_change_keeps_its_value_when_torchs_generator_and_the_parameters_move_on():
    torch.manual_seed(3)
    _, sites = layer_of(16, 12)
    for form in ("full", "gates", "none"):
        delta = stirred(Stamina(rank=2, mask=form, mask_bias=0.0), sites["w"])
        torch.manual_seed(4)
        value = delta()
        before = value.detach().clone()
        torch.manual_seed(4)
        assert torch.equal(delta().detach(), before)
        torch.rand(5)
        with torch.no_grad():
            for parameter in delta.parameters():
                parameter.mul_(2)
        assert torch.equal(value.detach(), before)


def test_inside_changed_the_weight_can_be_read_like_any_tensor():
    layer, sites = layer_of(4, 3)
    delta = stirred(Stamina(rank=2, mask_bias=0.0), sites["w"])
    before, value = layer.weight.clone(), delta()
    with changed(sites, {"w": value}):
        seen = layer.weight
        assert isinstance(seen, Sum)
        assert (seen.shape, seen.dtype, seen.device) == (before.shape, before.dtype, before.device)
        assert torch.equal(seen.detach(), before + value.detach())
        assert torch.equal(layer.state_dict()["weight"], seen.detach())
        assert torch.equal((seen.T @ seen).detach(), seen.detach().T @ seen.detach())
    assert layer.weight is not seen
    assert torch.equal(layer.weight, before)


def test_a_change_of_another_shape_is_refused_and_the_layer_stays():
    layer, _ = layer_of(4, 3)
    _, others = layer_of(5, 3)
    delta = stirred(Stamina(rank=2), others["w"])
    before = layer.weight
    with (
        pytest.raises(RuntimeError, match="size"),
        changed({"w": Site("w", "weight", layer, "weight")}, {"w": delta()}),
    ):
        pass
    assert layer.weight is before


@pytest.mark.parametrize("form", ["full", "gates"])
def test_a_batch_of_one_prompt_is_multiplied_once_and_is_what_its_copies_give(form):
    torch.manual_seed(0)
    layer, sites = layer_of(6, 5)
    delta = stirred(Stamina(rank=2, mask=form), sites["w"])
    prompt = torch.randn(1, 4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 4, 6).double()
    found = []
    for batch in (prompt.expand(3, -1, -1), prompt.repeat(3, 1, 1)):
        torch.manual_seed(1)
        with changed(sites, {"w": delta()}):
            y = layer(batch)
        found.append([y, *gradients((weights * y).sum(), prompt, delta)])
    assert [len(y.untyped_storage()) for y, *_ in found] == [8 * 4 * 6, 8 * 3 * 4 * 6]
    same(*found)


def test_a_finished_change_is_a_plain_tensor():
    _, sites = layer_of(4, 3)
    for form in ("full", "gates", "none"):
        delta = stirred(Stamina(rank=2, mask=form), sites["w"])
        assert isinstance(delta(), Compact)
        assert type(delta.eval()()) is Tensor


def test_in_bf16_a_masked_layer_rounds_weight_plus_change_and_its_gradients_are_float32():
    torch.manual_seed(0)
    layer = nn.Linear(32, 16, bias=False).requires_grad_(False)
    sites = {"w": Site("w", "weight", layer, "weight")}
    delta = stirred(Stamina(rank=2, mask_bias=0.0), sites["w"]).float()
    x = torch.randn(5, 32)
    value = delta()
    assert isinstance(value, MaskedChange)
    with changed(sites, {"w": value}):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        y.float().square().sum().backward()
    expected = linear(x.bfloat16(), (layer.weight + plain(delta, value.mask.seed)).bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    assert {parameter.grad.dtype for parameter in delta.parameters() if parameter.grad is not None} == {torch.float32}


@pytest.mark.parametrize("form", ["full", "gates", "none"])
def test_a_layer_holds_its_input_and_factors_after_the_forward_pass_and_nothing_of_its_own_shape(form):
    torch.manual_seed(0)
    layer, sites = layer_of(300, 200)
    delta = stirred(Stamina(rank=2, mask_rank=2, mask=form), sites["w"])
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.randn(3, 200, dtype=torch.float64, requires_grad=True)
    moved = torch.rand(300, 200).double()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = delta()
        with changed(sites, {"w": value}):
            cost = layer(x).square().sum() + weighted_squares(moved, value)
            own = {layer._parameters["weight"].weight.untyped_storage().data_ptr()}  # type: ignore[union-attr]
            sizes = [tensor.numel() for place, tensor in held.items() if place not in own]
            cost.backward()
    assert sizes
    assert max(sizes) < 300 * 200 / 20


def test_a_copy_of_a_delta_draws_the_same_change():
    _, sites = layer_of(8, 8)
    delta = stirred(Stamina(rank=2, mask_bias=0.0), sites["w"])
    other = copy.deepcopy(delta)
    torch.manual_seed(1)
    first = delta().detach()
    torch.manual_seed(1)
    assert torch.equal(first, other().detach())
