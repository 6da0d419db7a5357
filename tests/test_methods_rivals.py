"""What each rival computes, worked by hand on matrices small enough for paper, and what it does on the toy."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stamina_diffusion import testing
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.deltas import Delta, Free, LowRank, Since
from stamina_diffusion.errors import SettingsError
from stamina_diffusion.learn import learn
from stamina_diffusion.method import Change, Features, Memory, Method, Past
from stamina_diffusion.methods import METHODS, build
from stamina_diffusion.methods.c_lora import CLoRA
from stamina_diffusion.methods.custom_diffusion import CustomDiffusion
from stamina_diffusion.methods.custom_diffusion_merged import CustomDiffusionMerged, constrained
from stamina_diffusion.methods.dreambooth import DreamBooth
from stamina_diffusion.methods.ewc import EWC, importance
from stamina_diffusion.methods.fine_tune import FineTune
from stamina_diffusion.methods.guard import PASSED, ROOT, SPAN, Guard, Guarded, certificate, extended, off, ridged
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.lora_continued import LoRAContinued
from stamina_diffusion.methods.lora_merged import LoRAMerged
from stamina_diffusion.methods.lora_orthogonal import LoRAOrthogonal, orthogonal_columns
from stamina_diffusion.methods.o_lora import OLoRA
from stamina_diffusion.methods.replay import Replay
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.methods.stamina_held import StaminaHeld
from stamina_diffusion.methods.textual_inversion import TextualInversion
from stamina_diffusion.methods.variants import CLASSIFICATION, GRID, SEEN_SOFTMAX, VARIANTS
from stamina_diffusion.observe import past_features, squared_gradients, text_features
from stamina_diffusion.sites import Site, changed

KEY = "attention.0.to_k.weight"
SEEDS = st.integers(0, 99)


def weight(name: str, *shape: int) -> Site:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(shape))
    return Site(name, "weight", module, "weight")


def word(features: Features | None = None) -> Change:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(1, 2))
    site = Site("token/<rex>", "token", module, "weight", (0, 1))
    return Change(site, Delta(), torch.zeros(1, 2), features=features)


def changes(**values: list) -> dict[str, Change]:
    """Finished changes of weights by their sites' names."""
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
    return {name: Change(weight(name, *value.shape), Delta(), value) for name, value in tensors.items()}


def rows(*values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def low_rank(down: list, up: list) -> LowRank:
    delta = LowRank(torch.Size([len(up), len(down[0])]), len(down))
    delta.down.data, delta.up.data = torch.tensor(down).float(), torch.tensor(up).float()
    return delta


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def taught(method: Method, *names: str, steps: int = 8) -> tuple[Toy, dict[str, torch.Tensor]]:
    """A toy that learned concepts by the method, and the memory after them."""
    backbone, memory = Toy(), {}
    for name in names:
        plan = dataclasses.replace(testing.PLAN, steps=steps)
        memory = dict(learn(backbone, method, testing.noise_concept(name), memory, plan).memory)
    return backbone, memory


class Watched(Toy):
    """Keeps the first layer's keys' weight of every loss."""

    def __init__(self):
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def loss(self, batch):
        used: Any = self.network.get_submodule("attention.0.to_k").weight
        self.seen.append(used.detach().clone())
        return super().loss(batch)


# ----------------------------------------------------------------------------------------------------------------- EWC


def test_importance_is_the_sum_of_fisher_times_the_square_of_the_change():
    # 1·2² + 2·1² + 0·5² + 3·(−1)² = 4 + 2 + 0 + 3 = 9; λ/2 of it with λ = 10 is 45.
    memory = {"fisher/k": rows([1, 2], [0, 3])}
    present = changes(k=[[2, 1], [5, -1]], q=[[7]])
    assert importance(present, memory) == 9
    assert EWC(strength=10).penalty(present, memory) == 45


def test_ewc_pays_what_the_held_method_pays_too():
    # C-LoRA: (2·1)² = 4 with strength 3; EWC: 5·1² with strength 2: 3·4 + 2/2·5 = 17.
    memory = {"fisher/k": rows([5]), "moved/k": rows([2])}
    assert EWC(over=CLoRA(strength=3), strength=2).penalty(changes(k=[[1]]), memory) == 17


def test_the_fisher_of_a_concept_is_added_to_what_is_left_of_the_earlier_ones():
    # ½ [2, 4] + [1, 1] = [2, 3]; what the held method remembers stays beside it.
    present = {name: change._replace(fisher=rows([1, 1])) for name, change in changes(k=[[3, 3]]).items()}
    memory = EWC(over=CLoRA(), decay=0.5).remember(present, {"fisher/k": rows([2, 4])})
    assert memory["fisher/k"].tolist() == [[2, 3]]
    assert memory["moved/k"].tolist() == [[3, 3]]


def test_the_fisher_is_the_mean_square_of_the_gradients_of_single_pictures():
    # By hand: the finished weights written into the network, and backward on one picture at a time.
    backbone, concept, method = Toy(), testing.noise_concept("rex"), EWC(over=FineTune(), pictures=3)
    backbone.grow(concept, method, 0)
    sites = backbone.sites(concept, "cross-attention")
    found = {name: Change(site, Delta(), 0.1 * noise(*site.shape, seed=1)) for name, site in sites.items()}
    material = backbone.material(concept, method, testing.PLAN)
    fisher = squared_gradients(backbone, method, concept, testing.PLAN, material, found)
    assert not any(name.startswith("token/") for name in fisher)

    for name, site in sites.items():
        site.value.add_(found[name].value)
    key: Any = backbone.network.get_parameter(KEY)
    expected = torch.zeros_like(key)
    for place in range(3):
        single = dataclasses.replace(testing.PLAN, batch=1)
        key.requires_grad_(True)
        loss = backbone.loss(backbone.batch(material, single, 0, "rex", place, "fisher"))
        (gradient,) = torch.autograd.grad(loss, key)
        expected += gradient**2 / 3
    torch.testing.assert_close(fisher[KEY], expected)


def test_ewc_moves_less_than_what_it_holds():
    def second_step(method: Method) -> float:
        backbone, memory = taught(method, "rex")
        before = backbone.network.get_parameter(KEY).clone()
        learn(backbone, method, testing.noise_concept("tom"), memory, dataclasses.replace(testing.PLAN, steps=8))
        return float((backbone.network.get_parameter(KEY) - before).norm())

    held = FineTune(rate=0.05)
    assert second_step(EWC(over=held, strength=1e6, pictures=8)) < 0.5 * second_step(held)


# -------------------------------------------------------------------------------------------------------------- replay


def test_the_first_concept_has_nothing_to_replay_and_the_third_replays_two():
    backbone, method = Toy(), Replay(over=LoRA(prior=False))
    plan = dataclasses.replace(testing.PLAN, replay_images=3, replay_weight=0.5)
    for count, name in enumerate(["rex", "tom", "ann"]):
        concept = testing.noise_concept(name)
        backbone.grow(concept, method, 0)
        parts = backbone.material(concept, method, plan)
        assert len(parts) == (2 if count else 1)
    shown, share = parts[1]
    assert share == 0.5
    assert shown.pictures.shape == (6, 3, 8, 8)
    # Three pictures of each earlier word, its own prompt beside each, and none of the word that is being learned.
    places = [backbone.vocabulary[name] for name in ("<rex>", "<tom>", "<ann>")]
    assert [[place in prompt for place in places] for prompt in shown.prompts] == [
        *[[True, False, False]] * 3,
        *[[False, True, False]] * 3,
    ]
    assert len(backbone.material(concept, LoRA(prior=False), plan)) == 1


def test_stable_diffusion_replays_what_it_draws_of_earlier_words():
    backbone, method = StableDiffusion(testing.tiny_pipeline()), Replay(over=LoRA())
    plan = dataclasses.replace(testing.PLAN, prior_images=1, replay_images=2, replay_weight=0.25)
    for name in ("rex", "tom", "ann"):
        concept = testing.noise_concept(name)
        backbone.grow(concept, method, 0)
    assert backbone.learned == ["<rex>", "<tom>", "<ann>"]
    material = backbone.material(concept, method, plan)
    assert material.replay is not None
    assert material.replay.latents.shape == (4, 4, 4, 4)
    prompts, image_seeds = ["a photo of <rex>"] * 2 + ["a photo of <tom>"] * 2, [0, 1, 2, 3]
    # Without guidance: pictures that were sharpened in every round would end in glaring colours.
    drawn = backbone.encode(backbone.draw(prompts, image_seeds, guidance=1))
    torch.testing.assert_close(material.replay.latents, drawn)
    assert not torch.allclose(drawn, backbone.encode(backbone.draw(prompts, image_seeds)), atol=1e-3)
    parts = backbone.batch(material, plan, "x")
    assert [part.weight for part in parts] == [1.0, 1.0, 0.25]
    assert float(backbone.loss(parts)) > 0


# ----------------------------------------------------------------------------------------- DreamBooth, Custom Diffusion


def test_dreambooth_and_custom_diffusion_are_fine_tuning_with_their_papers_settings():
    for method, scope in ((DreamBooth(), "network"), (CustomDiffusion(), "cross-attention")):
        assert method.scope == scope
        assert method.needs == {"class word", "prior images"}
        assert isinstance(method.delta(weight("k", 2, 2), {}), Free)
    assert DreamBooth(prior=False).needs == {"class word"}


def test_the_merge_meets_every_concept_and_is_least_on_generic_prompts():
    # G = 1, c = [1, 0], wanted Δ c = [1, 3]ᵀ: M = [1, 3]ᵀ [1, 0] = [[1, 0], [3, 0]].
    wanted, c = rows([1], [3]), rows([1, 0])
    assert constrained(wanted, c, torch.eye(2)).tolist() == [[1, 0], [3, 0]]
    # G = diag(1, 4), c = [1, 1], wanted [3, 7]ᵀ: d = [1, ¼], d cᵀ = 5/4, M = [3, 7]ᵀ [1, ¼] · 4/5.
    merged = constrained(rows([3], [7]), rows([1, 1]), torch.diag(torch.tensor([1.0, 4.0])))
    torch.testing.assert_close(merged, rows([2.4, 0.6], [5.6, 1.4]))


@settings(deadline=None)
@given(out=st.integers(1, 4), width=st.integers(2, 6), count=st.integers(1, 2), seed=SEEDS)
def test_the_merge_is_the_constrained_least_squares_solution(out, width, count, seed):
    # Optimal where M C ᵀ = wanted, and M G is orthogonal to every N with N Cᵀ = 0 (Lagrange).
    c, wanted, generic = (noise(*shape, seed=seed) for shape in ((count, width), (out, count), (3 * width, width)))
    gram = (generic.T @ generic).double()
    merged = constrained(wanted, c, gram).double()
    torch.testing.assert_close(merged @ c.T.double(), wanted.double(), rtol=1e-3, atol=1e-3)
    free = torch.eye(width).double() - torch.linalg.pinv(c.double()) @ c.double()
    assert float(((merged @ gram) @ free).abs().max()) < 1e-3 * float((merged @ gram).abs().max())


def seen_as(*own: list) -> dict[str, Change]:
    """The finished word with its text features; generic prompts see every direction alike."""
    found = rows(*own)
    return {"token/<rex>": word(Features(found, found, Past((), torch.eye(2))))}


def test_two_concepts_are_learned_from_the_base_and_merged():
    method = CustomDiffusionMerged(directions=1, ridge=0.0)
    # Concept 1: Δ_1 = [[1, 2], [3, 4]], seen along e1. Alone, it stays whole.
    first = changes(k=[[1, 2], [3, 4]]) | seen_as([2, 0])
    assert method.fold(first, {})["k"].tolist() == [[1, 2], [3, 4]]
    memory = method.remember(first, {})
    # Concept 2: Δ_2 = [[5, 6], [7, 8]] from the base, so Δ_2 − Δ_1 = [[4, 4], [4, 4]] in the network; seen along e2.
    second = changes(k=[[4, 4], [4, 4]]) | seen_as([0, 1])
    # M e1 = Δ_1 e1 = [1, 3]ᵀ and M e2 = Δ_2 e2 = [6, 8]ᵀ: M = [[1, 6], [3, 8]]; folded M − Δ_1 = [[0, 4], [0, 4]].
    assert method.fold(second, memory)["k"].tolist() == [[0, 4], [0, 4]]
    assert method.remember(second, memory)["merged/k"].tolist() == [[1, 6], [3, 8]]


@pytest.mark.parametrize("method", [CustomDiffusionMerged(rate=0.05), LoRAMerged(rank=2, rate=0.05)])
def test_what_is_merged_is_trained_from_the_base(method):
    backbone, memory = Watched(), {}
    base = backbone.network.get_parameter(KEY).clone()
    for name in ("rex", "tom"):
        backbone.seen.clear()
        plan = dataclasses.replace(testing.PLAN, steps=5)
        memory = learn(backbone, method, testing.noise_concept(name), memory, plan).memory
        torch.testing.assert_close(backbone.seen[0], base, rtol=0, atol=1e-6)
        assert not torch.allclose(backbone.seen[-1], base, atol=1e-3)
        moved = backbone.network.get_parameter(KEY) - base
        torch.testing.assert_close(moved, memory[f"merged/{KEY}"], rtol=0, atol=1e-5)


def test_a_merge_by_text_features_is_of_keys_and_values():
    with pytest.raises(SettingsError, match="weights is 'network'"):
        CustomDiffusionMerged(weights="network")


# --------------------------------------------------------------------------------------------------------------- LoRAs


@pytest.mark.parametrize(
    ("merge", "expected"),
    [("average", [[2, 1], [3, -1]]), ("sum", [[4, 2], [6, -2]]), ("largest", [[4, 2], [6, -4]])],
)
def test_merged_loras_by_hand(merge, expected):
    # τ_1 = [[4, 0], [0, 2]], τ_2 = [[0, 2], [6, −4]]; the network holds τ_1 when τ_2 is learned, so it sees τ_2 − τ_1.
    method = LoRAMerged(merge=merge)
    memory = method.remember(changes(k=[[4, 0], [0, 2]]), {})
    second = changes(k=[[-4, 2], [6, -6]])
    merged = method.remember(second, memory)["merged/k"]
    assert merged.tolist() == expected
    assert (method.fold(second, memory)["k"] + rows([4, 0], [0, 2])).tolist() == expected


def test_the_average_of_three_counts_each_once():
    # τ = 3, 6 and 0: averages 3, 4.5 and 3.
    method, memory, merged = LoRAMerged(), {}, 0.0
    for task, expected in ((3, 3), (6, 4.5), (0, 3)):
        memory = method.remember(changes(k=[[task - merged]]), memory)
        merged = float(memory["merged/k"])
        assert merged == expected


def test_a_lora_on_the_merged_starts_where_the_merge_is_and_sum_would_count_twice():
    memory = {"merged/k": torch.ones(2, 2)}
    assert isinstance(LoRAMerged(rank=1, start="merged").delta(weight("k", 2, 2), memory), LowRank)
    assert isinstance(LoRAMerged(rank=1).delta(weight("k", 2, 2), memory), Since)
    with pytest.raises(SettingsError, match="would count twice"):
        LoRAMerged(merge="sum", start="merged")


def test_a_continued_lora_goes_on_from_its_factors():
    # B A = [1, 2]ᵀ [3, 4] = [[3, 4], [6, 8]]. Next B = [2, 2]ᵀ: [[6, 8], [6, 8]], and what is new is [[3, 4], [0, 0]].
    method, site = LoRAContinued(rank=1), weight("k", 2, 2)
    first = low_rank([[3, 4]], [[1], [2]])
    memory = method.remember({"k": Change(site, first, first().detach())}, {})
    delta = method.delta(site, memory)
    assert isinstance(delta, Since)
    assert delta().tolist() == [[0, 0], [0, 0]]
    assert isinstance(delta.change, LowRank)
    delta.change.up.data = rows([2], [2])
    assert delta().tolist() == [[3, 4], [0, 0]]
    memory = method.remember({"k": Change(site, delta, delta().detach())}, memory)
    assert (memory["factor-up/k"] @ memory["factor-down/k"]).tolist() == [[6, 8], [6, 8]]


def test_a_continued_lora_never_moves_the_network_by_more_than_its_rank():
    base = Toy().network.get_parameter(KEY)
    for method, rank in ((LoRAContinued(rank=2, rate=0.05), 2), (LoRA(rank=2, rate=0.05), 4)):
        backbone, _ = taught(method, "rex", "tom")
        moved = (backbone.network.get_parameter(KEY) - base).double()
        assert torch.linalg.matrix_rank(moved, rtol=1e-4) == rank


def test_columns_are_orthogonal_to_the_last_ones():
    # Orthogonal to (3, 4) is ±(4, −3)/5, to (0, 1) is ±(1, 0).
    found = orthogonal_columns(rows([3, 0], [4, 1]))
    torch.testing.assert_close(found.abs(), rows([0.8, 1.0], [0.6, 0.0]), atol=1e-6, rtol=0)
    assert float(found[0, 0] * found[1, 0]) == pytest.approx(-0.48)


@settings(deadline=None)
@given(rank=st.integers(2, 5), width=st.integers(1, 6), seed=SEEDS)
def test_orthogonal_columns_are_unit_and_orthogonal(rank, width, seed):
    last = noise(rank, width, seed=seed)
    found = orthogonal_columns(last)
    torch.testing.assert_close(found.norm(dim=0), torch.ones(width))
    assert float((found * last).sum(0).abs().max()) < 1e-5


def test_the_next_factor_starts_orthogonal_and_the_change_at_zero():
    method, site = LoRAOrthogonal(rank=2), weight("k", 3, 4)
    first = method.delta(site, {})
    assert isinstance(first, LowRank)
    second = method.delta(site, method.remember({"k": Change(site, first, first().detach())}, {}))
    assert isinstance(second, LowRank)
    assert float((first.down * second.down).detach().sum(0).abs().max()) < 1e-6
    assert second().count_nonzero() == 0
    single = LoRAOrthogonal(rank=1)
    assert single.delta(site, {"last-down/k": torch.ones(1, 4)}) is not None


def test_o_lora_pays_for_the_products_of_its_rows_with_all_earlier_ones():
    # Earlier rows (1, 2) and (0, 1), new row (3, −1): products 3 − 2 = 1 and −1; 1 + 1 = 2, halved by λ.
    memory = {"downs/k": rows([1, 2], [0, 1])}
    delta = low_rank([[3, -1]], [[1], [1]])
    present = {"k": Change(weight("k", 2, 2), delta, delta())}
    method = OLoRA(strength=0.5)
    assert float(torch.as_tensor(method.penalty(present, memory)).detach()) == 1
    assert method.remember(present, memory)["downs/k"].tolist() == [[1, 2], [0, 1], [3, -1]]


# --------------------------------------------------------------------------------------------------------------- guard


def test_a_guarded_change_is_off_the_span():
    # Q = e1: the first column of [[1, 2], [3, 4]] goes. Q = (3, 4)/5: (1, 2)·q = 11/5, less 11/5 q = (33, 44)/25.
    change = low_rank([[1, 0], [0, 1]], [[1, 2], [3, 4]])
    assert Guarded(change, off(rows([1], [0])))().tolist() == [[0, 2], [0, 4]]
    torch.testing.assert_close(Guarded(change, off(rows([0.6], [0.8])))()[0], torch.tensor([1 - 33 / 25, 2 - 44 / 25]))


@settings(deadline=None)
@given(out=st.integers(1, 5), width=st.integers(2, 6), rank=st.integers(1, 3), seed=SEEDS)
def test_a_guarded_lora_is_still_of_its_rank_and_cannot_move_what_is_guarded(out, width, rank, seed):
    features = noise(2, width, seed=seed)
    span = extended(torch.zeros(width, 0), features, 1.0)
    change = LowRank(torch.Size([out, width]), rank)
    change.up.data.normal_(generator=torch.Generator().manual_seed(seed))
    guarded = Guarded(change, off(span))().detach().double()
    assert torch.linalg.matrix_rank(guarded, rtol=1e-5, atol=1e-6) <= min(rank, max(0, width - 2))
    assert float((features.double() @ guarded.T).abs().max()) < 1e-5


def test_the_span_grows_by_the_directions_that_a_word_lacks():
    # Squares 9 and 1: e1 alone holds 90 %.
    first = extended(torch.zeros(3, 0), rows([3, 0, 0], [0, 1, 0]), 0.85)
    assert first.abs().tolist() == [[1], [0], [0]]
    assert extended(torch.zeros(3, 0), rows([3, 0, 0], [0, 1, 0]), 0.95).shape == (3, 2)
    # (0, 0, 2) and (1, 0, 0): of the squares 4 + 1 only the 4 is outside; at most 1 may be, or 4.5.
    more = rows([0, 0, 2], [1, 0, 0])
    torch.testing.assert_close(extended(first, more, 0.8).abs(), rows([1, 0], [0, 0], [0, 1]))
    assert extended(first, more, 0.1).shape == (3, 1)
    assert extended(first, more[:0], 0.8).tolist() == first.tolist()


@settings(deadline=None)
@given(width=st.integers(1, 6), counts=st.lists(st.integers(1, 8), min_size=1, max_size=4), seed=SEEDS)
def test_the_span_is_orthonormal_nested_and_never_wider_than_the_text(width, counts, seed):
    span = torch.zeros(width, 0)
    for place, count in enumerate(counts):
        features = noise(count, width, seed=seed + place)
        wider = extended(span, features, 0.99)
        assert span.shape[1] <= wider.shape[1] <= width
        torch.testing.assert_close(wider.T @ wider, torch.eye(wider.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(wider @ (wider.T @ span), span, atol=1e-4, rtol=0)
        outside = features - (features @ wider) @ wider.T
        assert float(outside.square().sum()) <= 0.011 * float(features.square().sum())
        span = wider


def test_the_certificate_is_the_largest_share_that_a_feature_can_move_by():
    # h = (1, 1): Δh = (1, 0), Wh = (2, 1): 1/√5. h = (0, 1): Δh = 0.
    change, base = rows([1, 0], [0, 0]), rows([2, 0], [0, 1])
    assert float(certificate(change, base, rows([1, 1], [0, 1]))) == pytest.approx(1 / math.sqrt(5))
    assert float(certificate(change, base, rows([1, 1])[:0])) == 0


def test_the_guard_keeps_what_the_network_says_of_earlier_words():
    def third(method: Method) -> tuple[float, float, Memory]:
        """How far a third concept moves the answer to the first one's prompt, and the keys; the memory after it."""
        backbone, memory = taught(method, "rex", "tom")
        question = backbone.tokenize(["a photo of <rex>"]), noise(1, 3, 8, 8, seed=0), torch.tensor([0.5])
        before = backbone.network(*question)
        plan = dataclasses.replace(testing.PLAN, steps=20)
        learned = learn(backbone, method, testing.noise_concept("ann"), memory, plan)
        moved = (backbone.network(*question) - before).abs().max()
        return float(moved), float(learned.changes[KEY].norm()), learned.memory

    held = LoRA(rank=4, rate=0.05, prior=False)
    plain, change, _ = third(held)
    guarded, guarded_change, memory = third(Guard(over=held, ridge=0, energy=1.0, generic=False))
    assert plain > 1e-2
    assert guarded < 1e-4
    assert guarded_change > 0.2 * change
    certificates = {name: float(value) for name, value in memory.items() if name.startswith("certificate/")}
    assert len(certificates) == 4
    assert max(certificates.values()) < 1e-5
    assert memory[SPAN].shape[0] == 16
    assert memory[SPAN].shape[1] <= 16


def test_a_certificate_is_what_a_change_does_to_the_keys_of_earlier_prompts():
    # A guard with little energy lets some through; the certificate says how much, at the worst prompt and position.
    method = Guard(over=LoRA(rank=4, rate=0.05, prior=False), ridge=0, energy=0.5, generic=False, price=0)
    backbone, memory = taught(method, "rex")
    before = backbone.network.get_parameter(KEY).clone()
    found = learn(backbone, method, testing.noise_concept("tom"), memory, testing.PLAN).memory
    prompts = [template.format("<rex>") for template in ("{}", "a photo of {}", "a painting of {}", "a close-up of {}")]
    prompts += [f"a photo of <rex> {place}" for place in ("at night", "in the snow", "and a person")] + [""]
    seen = backbone.text_features([*prompts, "<rex> on a beach at sunset"])
    after = backbone.network.get_parameter(KEY)
    moved = (seen @ (after - before).T).norm(dim=1) / (seen @ before.T).norm(dim=1)
    assert float(found[f"certificate/{KEY}"]) == pytest.approx(float(moved.max()), rel=1e-3)
    assert float(moved.max()) > 1e-4


def test_what_the_span_misses_has_its_price():
    # C = Σ h hᵀ of (1, 1) and (0, 1) = [[1, 1], [1, 2]]. Δ = [[0, 1], [0, 0]]: tr(Δ C Δᵀ) = 2.
    # W = diag(2, 1): tr(W C Wᵀ) = 4 + 2. λ = 6: 6 · 2/6.
    method, past = Guard(over=LoRA(), price=6.0), Past((rows([1, 1], [0, 1]),), torch.eye(2))
    memory = method.begin({SPAN: torch.zeros(2, 0)}, past)
    site = weight("k", 2, 2)
    with torch.no_grad():
        site.value.copy_(torch.diag(torch.tensor([2.0, 1.0])))
    delta = method.delta(site, memory)
    assert isinstance(delta, Guarded)
    present = {"k": Change(site, delta, rows([0, 1], [0, 0]))}
    with torch.no_grad():
        site.value.mul_(7)  # While a concept is learned its change is in place; the price is of the weight before.
    torch.testing.assert_close(memory[ROOT] @ memory[ROOT].T, rows([1, 1], [1, 2]))
    assert float(method.penalty(present, memory)) == pytest.approx(2)
    assert Guard(over=LoRA(), price=0.0).penalty(present, Guard(over=LoRA()).begin({}, past)) == 0
    assert method.penalty(present, method.begin({}, Past((), torch.eye(2)))) == 0


def test_a_price_lets_less_of_a_change_reach_earlier_words_and_is_not_remembered():
    def moved_keys(price: float) -> float:
        method = Guard(over=LoRA(rank=4, rate=0.05), ridge=0, energy=0.5, price=price)
        _, memory = taught(method, "rex", "tom")
        assert not {ROOT, PASSED} & set(memory)
        return max(float(value) for name, value in memory.items() if name.startswith("certificate/"))

    assert moved_keys(1e3) < 0.5 * moved_keys(0.0)


def test_a_ridge_holds_a_direction_as_far_as_it_is_filled():
    # One word: C = diag(3, 1), tr C = 4, ρ = 1/4: P = diag(1/4, 1/2), and nothing says how small a new word would be.
    word = rows([math.sqrt(3), 0], [0, 1])
    torch.testing.assert_close(ridged([word], 0.25), torch.diag(torch.tensor([0.25, 0.5])))
    # (2, 0) and (0, 1): each leaves the other whole, so g = 1. C = diag(4, 1), tr C = 5: 1 + 16/5 and 1 + 4/5.
    torch.testing.assert_close(ridged([rows([2, 0]), rows([0, 1])], 0.25), torch.diag(torch.tensor([5 / 21, 5 / 9])))
    # The same word twice, (1, 0): of the other's features 1/(1 + 1/ρ) is left, so g = 5, and P = diag(5/5, 5).
    torch.testing.assert_close(ridged([rows([1, 0])] * 2, 0.25), torch.diag(torch.tensor([1.0, 5.0])))


@settings(deadline=None)
@given(width=st.integers(2, 6), count=st.integers(1, 4), size=st.sampled_from([0.01, 1.0, 100.0]), seed=SEEDS)
def test_a_ridge_depends_on_directions_and_not_on_the_size_of_features(width, count, size, seed):
    words = [noise(3, width, seed=seed + place) for place in range(count)]
    found = ridged(words, 1e-3)
    torch.testing.assert_close(found, found.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ridged([size * word for word in words], 1e-3), found, atol=1e-4, rtol=1e-4)
    assert float(torch.linalg.eigvalsh(found).min()) > 0


def test_a_ridge_never_closes_and_is_known_from_the_words_alone():
    def moved(ridge: float, count: int = 3) -> tuple[Memory, float]:
        method = Guard(over=LoRA(rank=4, rate=0.05, prior=False), ridge=ridge, generic=False, price=10.0)
        backbone, memory = taught(method, *["rex", "tom", "ann", "max", "kim", "leo"][:count])
        before = backbone.network.get_parameter(KEY).clone()
        memory = learn(backbone, method, testing.noise_concept("eve"), memory, testing.PLAN).memory
        return memory, float((backbone.network.get_parameter(KEY) - before).norm())

    memory, change = moved(1e-4, 6)
    assert len(memory) == 4
    assert all(name.startswith("certificate/") for name in memory)
    assert change > 1e-3
    # The smaller the ridge, the less reaches earlier words.
    assert float(moved(1e-4)[0][f"certificate/{KEY}"]) < 0.5 * float(moved(1.0)[0][f"certificate/{KEY}"])


def test_when_every_direction_is_taken_the_guard_moves_nothing_more():
    method = Guard(over=LoRA(rank=2, rate=0.05), ridge=0, energy=1.0)
    memory = {SPAN: torch.eye(16)}
    backbone = Toy()
    before = backbone.network.get_parameter(KEY).clone()
    memory = learn(backbone, method, testing.noise_concept("rex"), memory, testing.PLAN).memory
    torch.testing.assert_close(backbone.network.get_parameter(KEY), before, atol=1e-6, rtol=0)
    assert memory[SPAN].shape == (16, 16)


@pytest.mark.parametrize("guarded_first", [False, True])
def test_words_learned_without_the_guard_are_held_from_its_next_concept_on(guarded_first):
    method = Guard(over=LoRA(rank=2), ridge=0, energy=1.0, generic=False)
    # Before its first concept, and between two of its own.
    backbone, memory = taught(method, "max") if guarded_first else (Toy(), {})
    for name in ("rex", "tom"):
        memory = learn(backbone, LoRA(rank=2), testing.noise_concept(name), memory, testing.PLAN).memory
    before = backbone.network.get_parameter(KEY).clone()
    span = learn(backbone, method, testing.noise_concept("ann"), memory, testing.PLAN).memory[SPAN]
    moved = backbone.network.get_parameter(KEY) - before
    assert float(moved.abs().max()) > 1e-4
    for name in ("rex", "tom", "ann"):
        seen = backbone.text_features([f"a photo of <{name}>"])
        torch.testing.assert_close((seen @ span) @ span.T, seen, atol=1e-4, rtol=0)
        if name != "ann":
            assert float((seen @ moved.T).abs().max()) < 1e-6


def test_generic_prompts_are_held_from_the_first_concept_on():
    backbone = Toy()
    before = backbone.network.get_parameter(KEY).clone()
    seen = backbone.text_features(["a photo of a dog in the grass"])
    method = Guard(over=LoRA(rank=2), ridge=0, energy=1.0, generic=True)
    learn(backbone, method, testing.noise_concept("rex"), {}, testing.PLAN)
    moved = backbone.network.get_parameter(KEY) - before
    assert float(moved.abs().max()) > 1e-4
    assert float((seen @ moved.T).abs().max()) < 1e-6


def test_generic_prompts_can_be_held_alone():
    method, past = Guard(over=LoRA(), words=False, ridge=0.25), Past((rows([1, 1]),), rows([math.sqrt(3), 0], [0, 1]))
    memory = method.begin({}, past)
    assert set(memory) == {PASSED}  # No price either: it is one of what earlier words say.
    torch.testing.assert_close(memory[PASSED], torch.diag(torch.tensor([0.25, 0.5])))

    def moved(words: bool) -> tuple[float, ...]:
        method = Guard(over=LoRA(rank=4, rate=0.05, prior=False), words=words, ridge=1e-4, price=0)
        backbone, memory = taught(method, "rex", "tom")
        before = backbone.network.get_parameter(KEY).clone()
        seen = backbone.text_features(["a photo of a dog in the grass"])
        memory = learn(backbone, method, testing.noise_concept("ann"), memory, testing.PLAN).memory
        change = backbone.network.get_parameter(KEY) - before
        earlier = backbone.text_features(["a photo of <rex>", "a photo of <tom>"])
        # Nothing is promised to earlier words, so no certificate says how they fare.
        assert (f"certificate/{KEY}" in memory) == words
        return tuple(float((some @ change.T).norm() / (some @ before.T).norm()) for some in (earlier, seen))

    (word, generic), (guarded, _) = moved(False), moved(True)
    assert guarded < 0.5 * word
    assert generic < 0.1 * word


def test_stamina_held_is_stamina_under_a_guard_of_generic_prompts_alone():
    held = Stamina(rank=2, mask_rank=2, prior=False)
    own = taught(StaminaHeld(over=held), "rex", "tom")
    other = taught(Guard(over=held, words=False, price=0), "rex", "tom")
    assert torch.equal(own[0].network.get_parameter(KEY), other[0].network.get_parameter(KEY))
    assert own[1].keys() == other[1].keys()
    assert all(torch.equal(own[1][name], other[1][name]) for name in own[1])
    # What it remembers needs no text features: the recorded changes are enough to make it anew.
    assert set(StaminaHeld().remember(changes(k=[[1, 0]]), {})) == set(Stamina().remember(changes(k=[[1, 0]]), {}))


def test_the_held_method_sees_its_own_deltas_and_names():
    held = Stamina(rank=2, mask_rank=2, mask_bias=0.0, sparsity=8.0, rate=1.0, mask_rate=3.0)
    method, site = Guard(over=held), weight("k", 3, 2)
    delta = method.delta(site, {PASSED: off(rows([1], [0]))})
    assert isinstance(delta, Guarded)
    assert [method.rate_of(site, name) for name, _ in delta.named_parameters()].count(3.0) == 3
    present = {"k": Change(site, delta, delta())}
    own = {"k": Change(site, delta.change, delta())}
    assert float(torch.as_tensor(held.penalty(own, {})).detach()) > 0
    assert method.penalty(present, {}) == held.penalty(own, {})


@pytest.mark.parametrize(
    "over",
    [
        TextualInversion(),
        DreamBooth(),
        LoRAMerged(),
        LoRAContinued(),
        EWC(over=DreamBooth()),
        StaminaHeld(),
        EWC(over=Guard()),
    ],
)
def test_the_guard_refuses_what_it_could_not_keep_its_word_for(over):
    with pytest.raises(SettingsError, match=f"guard cannot hold {over.name}"):
        Guard(over=over)


@pytest.mark.parametrize("method", [Guard(), CustomDiffusionMerged()])
def test_changes_that_were_recorded_without_text_features_are_refused(method):
    with pytest.raises(SettingsError, match="cannot be made from the recorded changes alone"):
        method.remember(changes(k=[[1, 0]]), {})


def test_an_energy_that_is_no_share_is_refused():
    with pytest.raises(SettingsError, match=r"energy is 1\.5"):
        Guard(energy=1.5)
    with pytest.raises(SettingsError, match=r"price is -1"):
        Guard(price=-1)
    with pytest.raises(SettingsError, match=r"ridge is 2"):
        Guard(ridge=2)
    with pytest.raises(SettingsError, match=r"holds neither words nor generic"):
        Guard(words=False, generic=False)


# ---------------------------------------------------------------------------------------------------------- being held


def test_a_held_method_is_named_or_a_table_and_gives_its_rates():
    method = EWC(over=CLoRA(rank=8, rate=0.25, word_start="class"))
    table = {"name": "c-lora", "rank": 8, "rate": 0.25, "word_start": "class"}
    assert EWC(over=table) == method  # type: ignore[arg-type]
    assert (method.rate, method.word_start) == (0.25, "class")
    assert build("ewc", {"over": "c-lora"}) == EWC(over=CLoRA())
    assert method.settings()["over"] == {"name": "c-lora", **CLoRA(rank=8, rate=0.25, word_start="class").settings()}
    assert "rate" not in method.settings()


@pytest.mark.parametrize(
    ("over", "said"),
    [("c-lra", "no method 'c-lra'"), (3, "over is 3, which names no method"), ({"rank": 3}, "names no method")],
)
def test_a_held_method_that_is_none_is_refused(over, said):
    with pytest.raises(SettingsError, match=said):
        EWC(over=over)


# ------------------------------------------------------------------------------------------------------- text features


def test_only_what_stands_from_the_word_on_depends_on_it():
    backbone, concept = StableDiffusion(testing.tiny_pipeline()), testing.noise_concept("rex")
    backbone.grow(concept, LoRA(), 0)
    prompts = ["a photo of <rex> at night", "<rex>"]
    (site,) = (site for site in backbone.sites(concept, "tokens").values())
    whole, own = backbone.text_features(prompts), backbone.text_features(prompts, "<rex>")
    # Not a constant: the text encoder's first layer norm would not see it.
    with torch.no_grad(), changed({site.name: site}, {site.name: noise(1, 16, seed=0)}):
        moved = (backbone.text_features(prompts) != whole).any(1)
    assert whole.shape == (80, 16)
    torch.testing.assert_close(whole[moved], own)
    # A token a letter: start, "aphotoof", the word; then start, the word.
    assert [int(part.nonzero()[0]) for part in moved.split(40)] == [9, 1]


def test_a_method_sees_its_finished_word_the_earlier_ones_and_none():
    backbone, _ = taught(LoRA(rank=2), "tom")
    concept, method = testing.noise_concept("rex"), Guard(over=LoRA(rank=2, class_word=True))
    backbone.grow(concept, method, 0)
    (site,) = (site for site in backbone.sites(concept, "tokens").values())
    change = Change(site, Delta(), torch.ones(1, 16))
    past = past_features(backbone, method, concept, testing.PLAN)
    assert past is not None
    seen = text_features(backbone, method, concept, testing.PLAN, {site.name: change}, past)
    row = backbone.network.words.weight[backbone.vocabulary["<rex>"]]
    torch.testing.assert_close(seen.word, (row + 1).expand(8, 16))
    assert seen.past is past
    (of_tom,) = past.earlier
    assert seen.whole.shape == of_tom.shape == (9 * 8, 16)
    earlier = backbone.network.words.weight[backbone.vocabulary["<tom>"]]
    assert int((of_tom == earlier).all(1).sum()) == 8
    dog = backbone.network.words.weight[backbone.vocabulary["dog"]]
    assert int((seen.whole == dog).all(1).sum()) == 8
    assert not any(bool((rows_ == row + 1).all(1).any()) for rows_ in (of_tom, past.generic))


# ------------------------------------------------------------------------------------------------------------ variants


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_row_of_the_table_is_a_method_that_differs_from_its_defaults_as_it_says(variant):
    name, given = VARIANTS[variant]
    method = build(name, given)
    plain = build(name)
    changed_fields = {key for key, value in method.settings().items() if value != plain.settings()[key]}
    assert changed_fields <= set(given)
    assert all(key == "over" or getattr(method, key) == value for key, value in given.items())


def test_every_method_has_a_row():
    rows_of = [VARIANTS, CLASSIFICATION | GRID]
    assert {name for table in rows_of for name, _ in table.values()} == set(METHODS)
    # FT and FT++ differ in the softmax alone, which is the classifier's.
    for table, alike in ((VARIANTS, 0), (CLASSIFICATION, len(SEEN_SOFTMAX)), (GRID, 0)):
        assert len({repr(build(name, given)) for name, given in table.values()}) == len(table) - alike
