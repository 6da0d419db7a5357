"""What each method computes, worked by hand on matrices small enough for paper."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stamina_diffusion import testing
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.compact import Compact
from stamina_diffusion.deltas import Delta, Free, LowRank, WordMLP
from stamina_diffusion.errors import SettingsError
from stamina_diffusion.learn import learn
from stamina_diffusion.method import Change
from stamina_diffusion.methods.c_lora import CLoRA, forgetting, moved_further
from stamina_diffusion.methods.fine_tune import FineTune
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.stamina import HardGated, HardMasked, LowRankMLP, MaskForm, Stamina, hard
from stamina_diffusion.methods.textual_inversion import TextualInversion
from stamina_diffusion.sites import Site

SIZES = st.integers(1, 6)
# Keys and values of Stable Diffusion 1.x: 768 → 320, 640 and 1280, in 5, 5 and 6 layers.
STABLE_DIFFUSION_1 = [(width, 768) for width, layers in ((320, 5), (640, 5), (1280, 6)) for _ in range(2 * layers)]


def weight(name: str, *shape: int) -> Site:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(shape))
    return Site(name, "weight", module, "weight")


def word(width: int, name: str = "token/<rex>") -> Site:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(1, width))
    return Site(name, "token", module, "weight", (0, 1))


def changes(**values: list) -> dict[str, Change]:
    """Finished changes of weights by their sites' names."""
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
    return {name: Change(weight(name, *value.shape), Delta(), value) for name, value in tensors.items()}


def set_values(module: nn.Module, **values: list | float) -> None:
    for name, value in values.items():
        module.get_parameter(name).data = torch.tensor(value, dtype=torch.float32)


def count(delta: Delta | None) -> int:
    assert delta is not None
    return sum(parameter.numel() for parameter in delta.parameters())


# -------------------------------------------------------------------------------------------------------------- C-LoRA


def test_forgetting_is_the_sum_of_squares_of_moved_times_change():
    # |S| ⊙ Δ = [[1·3, 2·1], [0·5, 3·(−2)]] = [[3, 2], [0, −6]]; 9 + 4 + 0 + 36 = 49.
    memory = {"moved/k": torch.tensor([[1.0, -2.0], [0.0, 3.0]])}
    assert forgetting(changes(k=[[3, 1], [5, -2]]), memory) == 49


def test_forgetting_adds_up_over_sites_and_leaves_words_and_new_sites_free():
    # k: 2·1 = 2, squared 4; v: −3·2 = −6, squared 36; q was never moved, and a word hurts nobody.
    memory = {"moved/k": torch.tensor([[2.0]]), "moved/v": torch.tensor([[-3.0]]), "moved/w": torch.tensor([[9.0]])}
    present = changes(k=[[1]], v=[[2]], q=[[7]])
    present["w"] = Change(word(1, "w"), Delta(), torch.tensor([[5.0]]))
    assert forgetting(present, memory) == 40


def test_the_penalty_is_the_strength_times_the_forgetting():
    memory = {"moved/k": torch.tensor([[1.0, -2.0], [0.0, 3.0]])}
    present = changes(k=[[3, 1], [5, -2]])
    assert CLoRA(strength=10).penalty(present, memory) == 490
    assert Stamina(strength=10).penalty(present, memory) == 490


def test_the_gradient_of_forgetting_is_twice_the_square_of_moved_times_the_change():
    # ∂/∂Δ Σ S²Δ² = 2 S² Δ: 2·4·3 = 24 where S = −2 and Δ = 3; 0 where nothing moved.
    value = torch.tensor([[3.0, 5.0]], requires_grad=True)
    cost = forgetting({"k": Change(weight("k", 1, 2), Delta(), value)}, {"moved/k": torch.tensor([[-2.0, 0.0]])})
    torch.as_tensor(cost).backward()
    assert value.grad is not None
    assert value.grad.tolist() == [[24, 0]]


def test_moved_sums_the_changes_of_two_concepts():
    first = changes(k=[[1, -2], [0, 3]])
    first["token/<rex>"] = Change(word(2), Delta(), torch.ones(1, 2))
    memory = moved_further(first, {})
    assert {name: value.tolist() for name, value in memory.items()} == {"moved/k": [[1, -2], [0, 3]]}
    # [[1, −2], [0, 3]] + [[3, 1], [5, −2]] = [[4, −1], [5, 1]]; what opposes an earlier change cancels.
    memory = moved_further(changes(k=[[3, 1], [5, -2]]), {**memory, "other/k": torch.ones(1)})
    assert memory["moved/k"].tolist() == [[4, -1], [5, 1]]
    assert memory["other/k"].tolist() == [1]


# ---------------------------------------------------------------------------------------------------------------- LoRA


def test_low_rank_is_up_times_down():
    # B A = [1, 2]ᵀ [3, 4] = [[3, 4], [6, 8]]; halved by the scale.
    delta = LowRank(torch.Size([2, 2]), 1, scale=0.5)
    set_values(delta, down=[[3, 4]], up=[[1], [2]])
    assert delta().tolist() == [[1.5, 2], [3, 4]]


def test_the_scale_is_one_over_the_rank_if_asked_for():
    scales = [LoRA(rank=4, scaling=scaling).delta(weight("k", 8, 8), {}) for scaling in ("1", "1/r")]
    assert [delta.scale for delta in scales if isinstance(delta, LowRank)] == [1.0, 0.25]


@settings(deadline=None)
@given(rows=SIZES, columns=SIZES, rank=st.integers(1, 8))
def test_low_rank_starts_at_zero_and_its_rank_never_exceeds_what_was_asked(rows, columns, rank):
    delta = LowRank(torch.Size([rows, columns]), rank)
    assert delta().count_nonzero() == 0
    nn.init.normal_(delta.up)
    assert delta().shape == (rows, columns)
    assert torch.linalg.matrix_rank(delta().double(), rtol=1e-6) <= min(rank, rows, columns)
    assert count(delta) == min(rank, rows, columns) * (rows + columns)


# ------------------------------------------------------------------------------------------------------------- STAMINA


def test_the_logits_are_the_mlp_of_a_constant_input():
    # C = [[1, −1], [2, 3]], a row for each of two columns of W. φ = relu: [[1, 0], [2, 3]].
    # H D with D = [[1, −1, 0], [2, 0, 1]]: [[1, −1, 0], [2 + 6, −2, 3]] = [[1, −1, 0], [8, −2, 3]].
    # Transposed, one row for each of three rows of W, and ½ added: [[1.5, 8.5], [−0.5, −1.5], [0.5, 3.5]].
    logits = LowRankMLP(rows=3, columns=2, rank=2, activation="relu", bias=0.5)
    set_values(logits, first=[[1, -1], [2, 3]], second=[[1, -1, 0], [2, 0, 1]])
    assert logits().tolist() == [[1.5, 8.5], [-0.5, -1.5], [0.5, 3.5]]


def test_without_activation_the_logits_are_a_plain_product():
    # C D = [[1 − 2, −1, −1], [2 + 6, −2, 3]] = [[−1, −1, −1], [8, −2, 3]], transposed.
    logits = LowRankMLP(rows=3, columns=2, rank=2, activation="none", bias=0)
    set_values(logits, first=[[1, -1], [2, 3]], second=[[1, -1, 0], [2, 0, 1]])
    assert logits().tolist() == [[-1, 8], [-1, -2], [-1, 3]]


def test_the_gelu_is_the_exact_one():
    # gelu(1) = 1 · Φ(1) = (1 + erf(1/√2)) / 2.
    logits = LowRankMLP(rows=1, columns=1, rank=1, activation="gelu", bias=0)
    set_values(logits, first=[[1]], second=[[1]])
    assert float(logits().detach()) == pytest.approx((1 + math.erf(1 / math.sqrt(2))) / 2)


def test_a_finished_mask_is_open_where_its_logit_is_positive():
    logits = torch.tensor([[-3.0, -1e-6], [0.0, 1e-6]])
    assert hard(logits, temperature=1.0, training=False).tolist() == [[0, 0], [0, 1]]


def test_in_training_the_mask_is_the_threshold_of_logit_plus_noise_and_its_gradient_is_the_sigmoids():
    # u is drawn as rand_like does; g = log u − log(1 − u); p = σ((L + g)/τ); m = 1 where p > ½, that is L + g > 0.
    # The straight-through gradient is dp/dL = p (1 − p) / τ.
    tau = 0.5
    logits = torch.tensor([[0.3, -0.2], [0.0, 1.0]], requires_grad=True)
    torch.manual_seed(5)
    uniform = torch.rand(2, 2)
    torch.manual_seed(5)
    mask = hard(logits, tau, training=True)
    mask.sum().backward()
    assert logits.grad is not None
    for row in range(2):
        for column in range(2):
            u, logit = float(uniform[row, column]), float(logits[row, column].detach())
            p = 1 / (1 + math.exp(-(logit + math.log(u / (1 - u))) / tau))
            assert float(mask[row, column].detach()) == (1.0 if p > 0.5 else 0.0)
            assert float(logits.grad[row, column]) == pytest.approx(p * (1 - p) / tau, rel=1e-5)


def test_the_mask_in_training_is_exactly_zero_or_one():
    logits = 3 * torch.randn(200, 200, generator=torch.Generator().manual_seed(0))
    assert set(hard(logits, 0.7, training=True).unique().tolist()) == {0.0, 1.0}


def test_the_mask_is_open_as_often_as_the_sigmoid_of_its_logit_says():
    # P(L + g > 0) = σ(L) for logistic g, whatever τ; σ(2) = 0.881. Of 40,000 draws one σ is 0.0016.
    torch.manual_seed(0)
    mask = hard(torch.full((200, 200), 2.0), temperature=0.3, training=True)
    assert float(mask.mean()) == pytest.approx(1 / (1 + math.exp(-2)), abs=0.008)


def test_a_masked_change_is_the_product_where_the_mask_is_open():
    # B A = [[3, 4], [6, 8]]; L = relu(C) D + b: columns 2 and −1 → relu 2, 0, times D = [1, −1], − 1:
    # L = [[1, −1], [−3, −1]], so only the first entry is open.
    delta = HardMasked(LowRank(torch.Size([2, 2]), 1), LowRankMLP(2, 2, 1, "relu", -1.0), 1.0).eval()
    set_values(delta.change, down=[[3, 4]], up=[[1], [2]])
    set_values(delta.mask, first=[[2], [-1]], second=[[1, -1]])
    assert delta.mask().tolist() == [[1, -1], [-3, -1]]
    assert delta().tolist() == [[3, 0], [0, 0]]


def made(method: Stamina, rows: int, columns: int) -> Delta:
    """A weight's delta with every parameter moved, so that the change is not zero."""
    delta = method.delta(weight("k", rows, columns), {})
    assert delta is not None
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.add_(torch.randn_like(parameter))
    return delta


@settings(deadline=None)
@given(rows=SIZES, columns=SIZES, rank=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_gated_change_is_the_product_times_the_outer_product_of_its_gates_and_stays_low_rank(
    rows, columns, rank, seed
):
    torch.manual_seed(seed)
    delta = made(Stamina(rank=rank, mask="gates", mask_bias=0.0, scaling="1/r"), rows, columns).eval()
    assert isinstance(delta, HardGated)
    gate_out = (delta.mask_rows().flatten() > 0).float()
    gate_in = (delta.mask_columns().flatten() > 0).float()
    assert gate_out.shape == (rows,)
    assert gate_in.shape == (columns,)
    torch.testing.assert_close(delta(), delta.change() * torch.outer(gate_out, gate_in))
    assert torch.linalg.matrix_rank(delta().detach().double(), rtol=1e-6) <= rank


@pytest.mark.parametrize("form", ["full", "gates"])
def test_the_mask_gets_no_gradient_while_the_change_is_zero(form):
    delta = Stamina(mask=form, rank=2, mask_rank=2).delta(weight("k", 4, 4), {})
    assert delta is not None
    delta().sum().backward()
    of_mask = {name: parameter.grad for name, parameter in delta.named_parameters() if name.startswith("mask")}
    assert of_mask
    assert all(gradient is None or gradient.count_nonzero() == 0 for gradient in of_mask.values())
    up = delta.get_parameter("change.up").grad
    assert up is not None
    assert up.count_nonzero() > 0


@pytest.mark.parametrize("form", ["full", "gates"])
def test_the_mask_gets_a_gradient_once_the_change_is_not_zero(form):
    torch.manual_seed(0)
    delta = made(Stamina(mask=form, rank=2, mask_rank=4, mask_bias=0.0), 8, 8)
    delta().square().sum().backward()
    of_mask = [parameter.grad for name, parameter in delta.named_parameters() if name.startswith("mask")]
    assert of_mask
    assert all(gradient is not None and gradient.count_nonzero() > 0 for gradient in of_mask)


def test_every_draw_of_a_mask_is_another_but_a_finished_mask_is_one():
    torch.manual_seed(0)
    delta = made(Stamina(rank=2, mask_rank=2, mask_bias=0.0), 16, 16)
    assert not torch.equal(delta(), delta())
    delta.eval()
    assert torch.equal(delta(), delta())


@pytest.mark.parametrize("form", ["full", "gates"])
def test_once_it_has_settled_a_mask_is_in_training_what_it_is_in_the_end_and_still_learns(form):
    torch.manual_seed(0)
    delta = made(Stamina(mask=form, rank=2, mask_rank=4, mask_bias=0.0, settle=0.5), 16, 16)
    delta.turn()
    value = delta()
    value = value.dense() if isinstance(value, Compact) else value
    torch.testing.assert_close(value, delta.eval()(), rtol=0, atol=0)
    value.square().sum().backward()
    of_mask = [parameter.grad for name, parameter in delta.named_parameters() if name.startswith("mask")]
    assert all(gradient is not None and gradient.count_nonzero() > 0 for gradient in of_mask)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_mask_settles_within_its_concepts_steps(share):
    with pytest.raises(SettingsError, match="settle is"):
        Stamina(settle=share)


def test_the_penalty_is_paid_on_the_very_tensor_of_the_forward_pass():
    seen: dict[str, list[torch.Tensor]] = {"forward": [], "penalty": []}

    class Watched(Stamina):
        def penalty(self, changes, memory):
            seen["penalty"].append(changes["attention.0.to_k.weight"].value)
            return super().penalty(changes, memory)

    class WatchedToy(Toy):
        def loss(self, batch):
            used: Any = self.network.get_submodule("attention.0.to_k").weight
            seen["forward"].append(used.detach().clone())
            return super().loss(batch)

    backbone = WatchedToy()
    plain = backbone.network.get_parameter("attention.0.to_k.weight").clone()
    learn(backbone, Watched(rank=2, mask_bias=0.0, rate=0.1), testing.noise_concept("rex"), {}, testing.PLAN)
    assert len(seen["penalty"]) == len(seen["forward"]) == testing.PLAN.steps
    for value, used in zip(seen["penalty"], seen["forward"], strict=True):
        assert torch.equal(plain + value.detach(), used)
    drawn = [tuple((value.detach() == 0).flatten().tolist()) for value in seen["penalty"][1:]]
    assert len(set(drawn)) == len(drawn), "every step should draw another mask"


def test_sparsity_costs_the_mean_openness_of_the_masks():
    # Every logit is the bias, 0: σ(0) = ½ of each full mask; two gates of ½ each are open ¼ of the time together.
    shares: dict[MaskForm, float] = {"full": 0.5, "gates": 0.25}
    for form, share in shares.items():
        method = Stamina(mask=form, mask_bias=0.0, sparsity=8.0)
        present = {}
        for name in ("k", "v"):
            site = weight(name, 3, 2)
            delta = method.delta(site, {})
            assert isinstance(delta, HardMasked | HardGated)
            for parameter in ("mask.second",) if form == "full" else ("mask_rows.second", "mask_columns.second"):
                nn.init.zeros_(delta.get_parameter(parameter))
            present[name] = Change(site, delta, delta())
        assert float(torch.as_tensor(method.penalty(present, {})).detach()) == pytest.approx(8 * share)


def test_the_mask_may_learn_at_a_rate_of_its_own():
    method = Stamina(rate=1.0, word_rate=2.0, mask_rate=3.0)
    site = weight("k", 2, 2)
    assert [method.rate_of(site, name) for name in ("change.up", "mask.first", "mask_rows.bias")] == [1, 3, 3]
    assert method.rate_of(word(2), "out.weight") == 2
    assert Stamina(rate=1.0).rate_of(site, "mask.first") == 1


@settings(deadline=None)
@given(width=st.integers(1, 16), rows=st.integers(1, 3), columns=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_words_mlp_starts_at_exactly_zero(width, rows, columns, seed):
    torch.manual_seed(seed)
    change = WordMLP(torch.Size([rows, columns]), width)()
    assert change.shape == (rows, columns)
    assert change.count_nonzero() == 0


def test_a_words_mlp_is_linear_gelu_linear_of_one():
    # hidden: 2·1 − 1 = 1 and −3·1 + 0 = −3; gelu 0.8413 and −0.00405; out: W gelu + b.
    delta = WordMLP(torch.Size([1, 2]), 2)
    set_values(delta.hidden, weight=[[2], [-3]], bias=[-1, 0])
    set_values(delta.out, weight=[[1, 0], [10, 100]], bias=[0, 1])
    a, b = (x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in (1, -3))
    torch.testing.assert_close(delta().detach(), torch.tensor([[a, 10 * a + 100 * b + 1]]), rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- counts


def total(method: LoRA | FineTune) -> int:
    return sum(count(method.delta(weight(str(place), *shape), {})) for place, shape in enumerate(STABLE_DIFFUSION_1))


@pytest.mark.parametrize(
    ("rank", "parameters"), [(4, 198_144), (8, 396_288), (16, 792_576), (32, 1_585_152), (64, 3_170_304)]
)
def test_lora_on_stable_diffusion_1_trains_as_many_parameters_as_its_shapes_say(rank, parameters):
    # r · Σ (768 + out) over 10 × 320, 10 × 640 and 12 × 1280 = r · 49,536.
    assert total(LoRA(rank=rank)) == parameters
    assert total(CLoRA(rank=rank)) == parameters


def test_all_keys_and_values_of_stable_diffusion_1_are_nineteen_million():
    assert total(FineTune()) == 19_169_280


def test_the_full_mask_costs_as_much_as_a_second_lora_and_one_number_for_each_matrix():
    assert total(Stamina(rank=16, mask_rank=16)) == 792_576 + 792_576 + 32


def test_gates_cost_a_rank_for_the_constant_input_and_a_number_for_each_row_and_column():
    # Rows: C (1, 16), D (16, out), b; columns: C (768, 16), D (16, 1), b. 16 (1 + out) + 1 + 16 (768 + 1) + 1.
    expected = sum(16 * (1 + rows) + 1 + 16 * (columns + 1) + 1 for rows, columns in STABLE_DIFFUSION_1)
    assert total(Stamina(rank=16, mask_rank=16, mask="gates")) == 792_576 + expected


def test_a_words_mlp_has_fifty_thousand_parameters():
    # 1·64 + 64 + 64·768 + 768 = 50,048; with 768 hidden units 592,128.
    assert count(Stamina(word_width=64).delta(word(768), {})) == 50_048
    assert count(Stamina(word_width=768).delta(word(768), {})) == 592_128
    assert count(TextualInversion().delta(word(768), {})) == 768


def test_the_forms_of_stamina_are_those_asked_for():
    kinds = {form: type(Stamina(mask=form).delta(weight("k", 4, 4), {})) for form in ("full", "gates", "none")}
    assert kinds == {"full": HardMasked, "gates": HardGated, "none": LowRank}
    assert type(Stamina(word_mlp=False).delta(word(4), {})) is Free
