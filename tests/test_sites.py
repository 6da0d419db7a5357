"""Sites: what the network computes inside `changed`, that nothing of it stays, and that `fold` makes it stay."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.sites import Site, changed, fold

SIZES = st.integers(1, 6)
SEEDS = st.integers(0, 999)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def two_layers() -> tuple[nn.Sequential, dict[str, Site]]:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).requires_grad_(False)
    return network, {f"{place}.weight": Site(f"{place}.weight", "weight", network[place], "weight") for place in (0, 1)}


@settings(deadline=None)
@given(rows=SIZES, columns=SIZES, batch=SIZES, seed=SEEDS)
def test_inside_changed_a_layer_computes_with_weight_plus_change(rows, columns, batch, seed):
    layer = nn.Linear(columns, rows).requires_grad_(False)
    before, change, x = layer.weight.clone(), randn(rows, columns, seed=seed), randn(batch, columns, seed=seed + 1)
    with changed({"w": Site("w", "weight", layer, "weight")}, {"w": change}):
        inside = layer(x)
    assert torch.equal(inside, linear(x, before + change, layer.bias))
    assert torch.equal(layer(x), linear(x, before, layer.bias))


@settings(deadline=None)
@given(data=st.data(), rows=SIZES, columns=SIZES, seed=SEEDS)
def test_some_rows_of_a_layer_change_and_the_others_stay_to_the_bit(data, rows, columns, seed):
    first = data.draw(st.integers(0, rows - 1))
    end = data.draw(st.integers(first + 1, rows))
    head = nn.Linear(columns, rows, bias=False).requires_grad_(False)
    before, change = head.weight.clone(), randn(end - first, columns, seed=seed)
    site = Site("head/task", "head", head, "weight", (first, end))
    assert site.shape == change.shape
    with changed({"h": site}, {"h": change}):
        inside = head.weight.clone()
    assert torch.equal(inside[first:end], before[first:end] + change)
    assert torch.equal(inside[:first], before[:first])
    assert torch.equal(inside[end:], before[end:])
    fold({"h": site}, {"h": change})
    assert torch.equal(head.weight, inside)


@settings(deadline=None)
@given(words=st.integers(2, 6), width=SIZES, seed=SEEDS, data=st.data())
def test_a_changed_word_is_looked_up_as_from_the_changed_table(words, width, seed, data):
    table = nn.Embedding(words, width).requires_grad_(False)
    place = data.draw(st.integers(0, words - 1))
    prompt = torch.tensor(data.draw(st.lists(st.integers(0, words - 1), min_size=1, max_size=8)))
    change, before = randn(1, width, seed=seed), table.weight.clone()
    sites = {"token/<w>": Site("token/<w>", "token", table, "weight", (place, place + 1))}
    with changed(sites, {"token/<w>": change}):
        inside = table(prompt)
        assert torch.equal(table.weight, before), "the table itself must not be copied or changed"
    fold(sites, {"token/<w>": change})
    assert torch.equal(inside, table(prompt))
    others = [row for row in range(words) if row != place]
    assert torch.equal(table.weight[others], before[others])


def test_two_words_of_one_table_change_at_once():
    table = nn.Embedding(3, 2, _weight=torch.zeros(3, 2))
    sites = {name: Site(name, "token", table, "weight", (row, row + 1)) for name, row in (("a", 0), ("b", 2))}
    with changed(sites, {"a": torch.tensor([[1.0, 2]]), "b": torch.tensor([[3.0, 4]])}):
        assert table(torch.tensor([0, 1, 2, 0])).tolist() == [[1, 2], [0, 0], [3, 4], [1, 2]]


def test_a_words_change_gets_the_gradient_of_every_place_where_it_stands():
    table = nn.Embedding(3, 2).requires_grad_(False)
    change = torch.zeros(1, 2, requires_grad=True)
    with changed({"a": Site("a", "token", table, "weight", (1, 2))}, {"a": change}):
        table(torch.tensor([1, 0, 1, 1, 2])).sum().backward()
    assert change.grad is not None
    assert change.grad.tolist() == [[3, 3]]


def test_gradients_reach_the_change_and_not_the_weight():
    network, sites = two_layers()
    change = torch.zeros(4, 3, requires_grad=True)
    with changed(sites, {"0.weight": change}):
        network(torch.ones(1, 3)).sum().backward()
    # ∂ Σ_k (V W x)_k / ∂W_ij = (Σ_k V_ki) x_j
    assert change.grad is not None
    torch.testing.assert_close(change.grad, network.get_parameter("1.weight").sum(0)[:, None].expand(4, 3))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_very_parameters_are_back_afterwards_in_their_order():
    network, sites = two_layers()
    before = dict(network.named_parameters())
    with changed(sites, {name: torch.ones(site.shape) for name, site in sites.items()}):
        assert list(network.state_dict()) == list(before)
        assert next(network.parameters()).dtype == torch.float32
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_parameters_are_restored_after_an_exception():
    network, sites = two_layers()
    table = nn.Embedding(3, 2)
    sites["token/<w>"] = Site("token/<w>", "token", table, "weight", (0, 1))
    before = copy.deepcopy(network.state_dict())

    def broken() -> None:
        with changed(sites, {name: torch.ones(site.shape) for name, site in sites.items()}):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        broken()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(type(parameter) is nn.Parameter for parameter in network.parameters())
    assert not table._forward_hooks


def test_a_change_of_the_wrong_shape_leaves_every_parameter_in_its_place():
    network, sites = two_layers()
    before = dict(network.named_parameters())
    with pytest.raises(RuntimeError), changed(sites, {"0.weight": torch.ones(4, 3), "1.weight": torch.ones(9, 9)}):
        pass
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_activation_checkpointing_sees_the_same_draw_of_a_stochastic_change():
    torch.manual_seed(0)
    layer = nn.Linear(8, 8).requires_grad_(False)
    site = Site("w", "weight", layer, "weight")
    delta = Stamina(rank=2, mask_rank=2, mask_bias=0.0).delta(site, {})
    assert delta is not None
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.add_(torch.randn_like(parameter))
    calls = []

    def block(x: Tensor) -> Tensor:
        calls.append(x)
        return torch.tanh(layer(torch.tanh(layer(x))))

    def gradients(recompute: bool) -> list[Tensor]:
        delta.zero_grad()
        torch.manual_seed(1)
        with changed({"w": site}, {"w": delta()}):
            x = randn(4, 8).requires_grad_()
            y = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            assert isinstance(y, Tensor)
            torch.manual_seed(2)  # Whatever is drawn from here on must not matter.
            y.square().sum().backward()
        return [parameter.grad.clone() for parameter in delta.parameters() if parameter.grad is not None]

    plain = gradients(False)
    assert len(calls) == 1
    again = gradients(True)
    assert len(calls) == 3, "the backward pass should compute the block again"
    assert len(plain) == len(list(delta.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_fold_keeps_the_dtype_of_the_weight():
    layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    before = layer.weight.detach().clone()
    fold({"w": Site("w", "weight", layer, "weight")}, {"w": torch.ones(2, 2)})
    assert layer.weight.dtype == torch.float64
    assert torch.equal(layer.weight, before + 1)
