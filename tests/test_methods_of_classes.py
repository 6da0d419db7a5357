"""What each rival from continual classification computes, by hand and on the toy."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stamina_diffusion import seeds, testing
from stamina_diffusion.backbones.classifier import distilled
from stamina_diffusion.backbones.seeing import Sight
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.backbones.toy_classifier import ToyClassifier
from stamina_diffusion.deltas import Delta, Free, LowRank
from stamina_diffusion.errors import SettingsError
from stamina_diffusion.learn import learn
from stamina_diffusion.method import Change, Method
from stamina_diffusion.methods.c_lora import CLoRA
from stamina_diffusion.methods.fine_tune import FineTune
from stamina_diffusion.methods.inflora import Designed, InfLoRA, leading, root
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.lora_continued import LoRAContinued
from stamina_diffusion.methods.lora_merged import LoRAMerged
from stamina_diffusion.methods.lwf import LwF
from stamina_diffusion.methods.merged import Averaged
from stamina_diffusion.methods.o_lora import OLoRA
from stamina_diffusion.methods.perturb_and_merge import PerturbAndMerge, Perturbed
from stamina_diffusion.methods.sd_lora import Decoupled, SDLoRA
from stamina_diffusion.methods.slca import SLCA
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.observe import seeing
from stamina_diffusion.sites import Site

KEY = "attention.0.to_k.weight"
SEEDS = st.integers(0, 99)
PLAN = dataclasses.replace(testing.PLAN, steps=4)


def rows(*values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def site(name: str, *shape: int, role: str = "weight", inputs: Tensor | None = None) -> Site:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(shape))
    return Site(name, role, module, "weight", inputs=inputs)  # type: ignore[arg-type]


def change(value: list, **known: list) -> dict[str, Change]:
    """A finished change of one weight k, and what is known of it."""
    tensor = torch.tensor(value, dtype=torch.float32)
    found = {what: torch.tensor(one, dtype=torch.float32) for what, one in known.items()}
    return {"k": Change(site("k", *tensor.shape), Delta(), tensor, **found)}  # type: ignore[arg-type]


def low_rank(down: list, up: list) -> LowRank:
    delta = LowRank(torch.Size([len(up), len(down[0])]), len(down))
    delta.down.data, delta.up.data = torch.tensor(down).float(), torch.tensor(up).float()
    return delta


def taught(method: Method, *names: str) -> tuple[Toy, dict[str, Tensor], list[dict[str, Tensor]]]:
    """A toy that learned concepts by the method, the memory after them, and what was folded for each."""
    backbone, memory, folded = Toy(), {}, []
    for name in names:
        learned = learn(backbone, method, testing.noise_concept(name), memory, PLAN)
        memory = dict(learned.memory)
        folded.append(dict(learned.changes))
    return backbone, memory, folded


# ------------------------------------------------------------------------------------------------------- new classes


@pytest.mark.parametrize("method", [LoRA(), CLoRA(), OLoRA(), InfLoRA(), SDLoRA(), Stamina(), SLCA(), Averaged()])
def test_the_rows_of_new_classes_are_free_and_learned_at_their_own_rate(method):
    head = site("head/4", 3, 8, role="head")
    assert type(method.delta(head, {})) is Free
    assert method.rate_of(head, "change") == method.word_rate


def test_slca_is_slow_on_the_network_and_fast_on_the_new_rows():
    method = SLCA()
    assert method.scope == "network"
    assert method.needs == frozenset()
    assert method.rate_of(site("k", 2, 2), "change") == 1e-5
    assert method.rate_of(site("head/4", 2, 2, role="head"), "change") == 1e-3


# -------------------------------------------------------------------------------------------------------------- LwF


def test_distillation_by_hand():
    # Softmax of (0, 2 ln 3)/2 is (¼, ¾), of (0, 0) is (½, ½): 4 (¼ ln ½ + ¾ ln 3/2) = 4 (¾ ln 3 − ln 2); then 0; mean.
    old = torch.tensor([[0.0, 2 * math.log(3)], [5.0, 1.0]])
    new = torch.tensor([[0.0, 0.0], [5.0, 1.0]])
    assert float(distilled(old, new)) == pytest.approx(4 * (0.75 * math.log(3) - math.log(2)) / 2, rel=1e-5)


@pytest.mark.parametrize("sight", [Sight(side=8), Sight(side=8, mirror=True)])
def test_the_old_answers_are_kept_and_cost_when_they_change(sight):
    backbone, method = ToyClassifier(sight=sight), LwF()
    first, second = testing.noise_concept("rex"), testing.noise_concept("tom")
    learn(backbone, method, first, {}, PLAN)
    said = backbone.predict(second.images)
    backbone.grow(second, method, 0)
    plain, kept = (backbone.material(second, one, PLAN) for one in (method.over, method))
    assert plain.answers is None
    torch.testing.assert_close(kept.answers, said)
    losses = [float(backbone.loss(backbone.batch(material, PLAN, 0, "tom", 0))) for material in (plain, kept)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    # Of each picture the first old class now gets 3 more, whatever it shows; the task's own rows say what they said.
    backbone.head.bias.data[0] += 3
    batch = backbone.batch(kept, PLAN, 0, "tom", 0)
    expected = distilled(batch.answers, batch.answers + torch.tensor([3.0, 0.0]))
    assert float(expected) > 0.1
    assert float(backbone.loss(batch)) == pytest.approx(losses[0] + float(expected), rel=1e-4)


def test_lwf_answers_more_as_before_than_what_it_holds():
    def moved(method: Method) -> float:
        backbone, plan = ToyClassifier(), dataclasses.replace(PLAN, steps=20, replay_weight=20.0)
        learn(backbone, method, testing.noise_concept("rex"), {}, plan)
        pictures = testing.noise_concept("tom").images
        before = backbone.predict(pictures)
        learn(backbone, method, testing.noise_concept("tom"), {}, plan)
        return float((backbone.predict(pictures)[:, :2] - before).norm())

    held = FineTune(weights="network", prior=False, rate=3e-3)
    assert moved(LwF(over=held)) < 0.7 * moved(held)


def test_a_text_to_image_model_has_no_old_answers():
    with pytest.raises(SettingsError, match="no classes whose answers"):
        learn(Toy(), LwF(), testing.noise_concept("rex"), {}, PLAN)


# ---------------------------------------------------------------------------------------------------------- InfLoRA


def test_the_leading_directions_of_the_new_inputs_lie_outside_the_old_ones():
    # C = diag(1, 4, 2), M = e2: P C P = diag(1, 0, 2), whose leading directions are e3 and then e1.
    found = leading(torch.diag(rows([1, 4, 2])[0]), rows([0], [1], [0]), 2).abs()
    torch.testing.assert_close(found, rows([0, 0, 1], [1, 0, 0]))
    # Along e2 nothing is left, and there is no third.
    assert len(leading(torch.diag(rows([1, 4, 2])[0]), rows([0], [1], [0]), 3)) == 2


@settings(deadline=None)
@given(width=st.integers(2, 6), held=st.integers(0, 5), count=st.integers(1, 6), seed=SEEDS)
def test_the_leading_directions_are_orthonormal_and_off_the_span(width, held, count, seed):
    draw = torch.Generator().manual_seed(seed)
    seen = torch.randn(4, width, generator=draw)
    span = torch.linalg.qr(torch.randn(width, min(held, width), generator=draw)).Q
    found = leading(seen.T @ seen, span, count)
    torch.testing.assert_close(found @ found.T, torch.eye(len(found)), atol=1e-5, rtol=0)
    assert float((found @ span).abs().sum()) < 1e-4
    assert len(found) == min(count, 4, width - span.shape[1])


def test_inflora_trains_the_way_out_of_a_way_in_that_is_given():
    # C = diag(1, 4): the leading direction is e2, as long as 1/√3. Once e2 is held it is e1; then none is left.
    method, seen = InfLoRA(rank=1), torch.diag(rows([1, 4])[0])
    first = method.delta(site("k", 3, 2, inputs=seen), {})
    assert isinstance(first, Designed)
    torch.testing.assert_close(first.down.abs(), rows([0, 1 / math.sqrt(3)]))
    assert [name for name, _ in first.named_parameters()] == ["up"]
    second = method.delta(site("k", 3, 2, inputs=seen), {"seen/k": rows([0], [1])})
    assert isinstance(second, Designed)
    torch.testing.assert_close(second.down.abs(), rows([1 / math.sqrt(3), 0]))
    assert method.delta(site("k", 3, 2, inputs=seen), {"seen/k": torch.eye(2)}) is None


def test_what_was_seen_is_held_by_its_energy():
    # C = diag(1, 3). Squares 1 + 9: e2 holds 0.9 of them, enough for ε = 0.89. Of the inputs it holds 3/4, too few.
    finished = change([[0, 0]], inputs=[[1, 0], [0, 3]])
    held = InfLoRA(energy=0.89).remember(finished, {})
    torch.testing.assert_close(held["seen/k"].abs(), rows([0], [1]))
    assert InfLoRA(energy=0.89, criterion="inputs").remember(finished, {})["seen/k"].shape == (2, 2)
    torch.testing.assert_close(root(rows([1, 0], [0, 3])).T @ root(rows([1, 0], [0, 3])), rows([1, 0], [0, 3]))


def test_the_energy_rises_over_the_tasks():
    # ε = 0.5 + (1 − 0.5) · t/4: 0.5, 0.625, 0.75, 0.875, and no further. One direction of diag(1, 2) holds 4/5.
    method, memory = InfLoRA(energy=0.5, tasks=4), {}
    for held in (1, 1, 1, 2, 2):
        memory = method.remember(change([[0, 0]], inputs=[[1, 0], [0, 2]]), memory)
        assert memory["seen/k"].shape[1] == held


def test_in_a_longer_stream_there_is_still_room():
    # diag(10, 1): squares 100 and 1, so one direction holds 0.990; ε ends at 0.985.
    method, memory = InfLoRA(tasks=4, energy=0.94), {}
    for _ in range(9):
        memory = method.remember(change([[0, 0]], inputs=[[10, 0], [0, 1]]), memory)
    assert memory["seen/k"].shape[1] == 1


def test_a_layers_inputs_are_the_mean_over_all_that_it_sees():
    # By hand: keys see the words' vectors, every word of every prompt of the batches.
    backbone, concept, method = Toy(), testing.noise_concept("rex"), InfLoRA(batches=2)
    backbone.grow(concept, method, 0)
    material = backbone.material(concept, method, PLAN)
    found = seeing(backbone, method, concept, PLAN, material, backbone.sites(concept, "cross-attention"))
    batches = [backbone.batch(material, PLAN, 0, "rex", place, "inputs") for place in range(2)]
    words = torch.cat([part.words.flatten() for batch in batches for part in batch])
    vectors = backbone.network.words.weight[words]
    for name in (KEY, "attention.1.to_v.weight"):
        moment = found[name].inputs
        assert moment is not None
        torch.testing.assert_close(moment, vectors.T @ vectors / len(words))
    assert found["token/<rex>"].inputs is None
    assert not any(module._forward_pre_hooks for module in backbone.network.modules())


def test_a_later_concept_does_not_move_what_an_earlier_one_saw():
    method = InfLoRA(rank=2, rate=0.05, energy=1.0, batches=2)
    _, after_first, _ = taught(method, "rex")
    _, memory, (_, second) = taught(method, "rex", "tom")
    span = after_first[f"seen/{KEY}"]
    assert second[KEY].norm() > 1e-3
    assert (second[KEY] @ span).norm() < 1e-5 * second[KEY].norm()
    assert memory[f"seen/{KEY}"].shape[1] > span.shape[1]


def test_inflora_without_inputs_is_refused():
    with pytest.raises(SettingsError, match="nothing is known of what k sees"):
        InfLoRA().delta(site("k", 2, 2), {})
    with pytest.raises(SettingsError, match="nothing is known of what k sees"):
        InfLoRA().remember(change([[0, 0]]), {})
    with pytest.raises(SettingsError, match=r"energy is 1\.5"):
        InfLoRA(energy=1.5)
    with pytest.raises(SettingsError, match="tasks is 0"):
        InfLoRA(tasks=0)


# ---------------------------------------------------------------------------------------------------------- SD-LoRA


def test_sd_lora_goes_further_along_what_it_has_and_adds_a_direction():
    # B A = [3, 4]ᵀ [2, 0]: α_1 = 5 · 2 = 10, D_1 = [0.6, 0.8]ᵀ [1, 0].
    method, where = SDLoRA(rank=1), site("k", 2, 2)
    first = low_rank([[2, 0]], [[3], [4]])
    memory = method.remember({"k": Change(where, first, first().detach())}, {})
    assert memory["magnitudes/k"].tolist() == [10]
    torch.testing.assert_close(memory["ups/k"] @ memory["downs/k"], rows([0.6, 0], [0.8, 0]))
    # Then α_1 = 15 and B A = [0, 1]ᵀ [0, 3]: what is new is 5 D_1 + [[0, 0], [0, 3]] = [[3, 0], [4, 3]].
    second = method.delta(where, memory)
    assert isinstance(second, Decoupled)
    assert second().tolist() == [[0, 0], [0, 0]]
    second.further.data[:] = 5
    second.change.down.data, second.change.up.data = rows([0, 3]), rows([0], [1])
    torch.testing.assert_close(second(), rows([3, 0], [4, 3]))
    finished = Change(where, second, second().detach())
    assert method.remember({"k": finished}, memory)["magnitudes/k"].tolist() == [15, 3]
    # A merge that folds half of it goes half as far along each.
    half = finished._replace(value=finished.value / 2, share=0.5)
    assert method.remember({"k": half}, memory)["magnitudes/k"].tolist() == [12.5, 1.5]
    assert method.rate_of(where, "further") == 5e-3


@pytest.mark.parametrize(
    "method", [SDLoRA(rank=2, rate=0.05, magnitude_rate=0.1), Averaged(over=SDLoRA(rank=2, rate=0.05))]
)
def test_what_sd_lora_remembers_is_what_the_network_moved(method):
    base = Toy().network.get_parameter(KEY)
    backbone, memory, folded = taught(method, "rex", "tom", "ann")
    lengths = memory[f"magnitudes/{KEY}"][memory[f"of/{KEY}"].long()]
    moved = (memory[f"ups/{KEY}"] * lengths) @ memory[f"downs/{KEY}"]
    assert len(memory[f"magnitudes/{KEY}"]) == 3
    torch.testing.assert_close(backbone.network.get_parameter(KEY) - base, moved, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(sum(one[KEY] for one in folded), moved, atol=1e-5, rtol=1e-3)


# ---------------------------------------------------------------------------------------------------------- merging


def test_the_average_folds_less_and_less():
    # Δ = 4, 2, 6: folded 4, 2/2 and 6/3; C-LoRA remembers what was folded, 4, 5, 7.
    method, memory = Averaged(over=CLoRA()), {}
    for trained, folded, moved in ((4, 4, 4), (2, 1, 5), (6, 2, 7)):
        assert float(method.fold(change([[trained]]), memory)["k"]) == pytest.approx(folded)
        memory = method.remember(change([[trained]]), memory)
        assert float(memory["moved/k"]) == pytest.approx(moved)


@settings(deadline=None, max_examples=20)
@given(trained=st.lists(st.floats(-9, 9), min_size=1, max_size=6))
def test_the_average_of_loras_in_turn_is_the_one_that_is_there(trained):
    ours, theirs = Averaged(over=LoRA()), LoRAMerged(merge="average", start="merged")
    memories = [{}, {}]
    for one in trained:
        finished, pairs = change([[one]]), [*zip((ours, theirs), memories, strict=True)]
        folded = [float(method.fold(finished, memory)["k"]) for method, memory in pairs]
        assert folded[0] == pytest.approx(folded[1], abs=1e-4)
        memories = [method.remember(finished, memory) for method, memory in pairs]


def test_new_words_and_classes_stay_whole():
    new = {"token/<rex>": Change(site("token/<rex>", 1, 2, role="token"), Delta(), rows([2, 2]))}
    new["head/4"] = Change(site("head/4", 1, 2, role="head"), Delta(), rows([3, 3]))
    folded = Averaged().fold({**change([[4]]), **new}, {"count/averaged": torch.tensor([3.0])})
    assert {name: value.tolist() for name, value in folded.items()} == {
        "k": [[1]],
        "token/<rex>": [[2, 2]],
        "head/4": [[3, 3]],
    }


def test_perturb_and_merge_folds_where_all_tasks_together_lose_least():
    # ½ 1 (W − 2)²: W_1 = 2. Then + ½ 3 (W − 6)², Δ = 4: least at (2 + 18)/4 = 5, α = ¾.
    # Then + ½ 4 (W − 6)², Δ = 1: least at (2 + 18 + 24)/8 = 5.5, α = ½.
    method, memory, reached = PerturbAndMerge(), {}, 0.0
    for trained, fisher, expected in ((2, 1, 2), (4, 3, 5), (1, 4, 5.5)):
        finished = change([[trained]], fisher=[[fisher]])
        reached += float(method.fold(finished, memory)["k"])
        memory = method.remember(finished, memory)
        assert reached == pytest.approx(expected)


@settings(deadline=None)
@given(tasks=st.integers(1, 4), width=st.integers(1, 5), seed=SEEDS)
def test_no_other_share_loses_less(tasks, width, seed):
    draw = torch.Generator().manual_seed(seed)
    method, memory, reached, past = PerturbAndMerge(), {}, torch.zeros(1, width), []
    for _ in range(tasks):
        value, fisher = torch.randn(1, width, generator=draw), torch.rand(1, width, generator=draw)
        past.append((reached + value, fisher))
        finished = {"k": Change(site("k", 1, width), Delta(), value, fisher=fisher)}
        part = method.share(finished, memory)
        loss = [
            sum(float((f * (reached + share * value - best) ** 2).sum()) for best, f in past)
            for share in (part, *torch.linspace(0, 1, 21).tolist())
        ]
        assert loss[0] <= min(loss) + 1e-4
        reached = reached + method.fold(finished, memory)["k"]
        memory = method.remember(finished, memory)


def test_a_merge_never_goes_back_nor_past_what_was_trained():
    # F = 1 at W = 0 pulls against a task without any Fisher: nothing of it is folded. Nobody needs anything: all of it.
    method = PerturbAndMerge()
    held = {"merge-fisher/k": rows([1]), "merge-slope/k": rows([0])}
    assert method.share(change([[3]], fisher=[[0]]), held) == 0
    assert method.share(change([[3]], fisher=[[1]]), {"merge-fisher/k": rows([1]), "merge-slope/k": rows([-99])}) == 1
    assert method.share(change([[3]], fisher=[[0]]), {}) == 1


def test_a_perturbed_change_is_shaken_alike_in_all_weights_of_a_step():
    deltas = [Perturbed(Free(torch.Size([2, 2])), 0.5, 1 / 3) for _ in range(2)]
    for delta in deltas:
        delta.change.change.data[:] = 1  # type: ignore[union-attr]
    seen = set()
    for step in range(30):
        with seeds.drawing_for("step", step):
            values = {float(delta()[0, 0].detach()) for delta in deltas}
        assert len(values) == 1
        seen |= values
    assert seen == {0.5, 1.0, 1.5}
    assert all(float(delta.eval()()[0, 0].detach()) == 1 for delta in deltas)


def test_a_merge_knows_the_held_method_by_its_own_deltas():
    # O-LoRA: its new rows (3, −1) with (1, 2) held: product 1, halved by its λ.
    method = PerturbAndMerge(over=OLoRA(rank=1))
    delta = method.delta(site("k", 2, 2), {})
    assert isinstance(delta, Perturbed)
    inner = low_rank([[3, -1]], [[1], [1]])
    delta.change = inner
    present = {"k": Change(site("k", 2, 2), delta, inner())}
    cost = method.penalty(present, {"downs/k": rows([1, 2])})
    assert isinstance(cost, Tensor)
    assert float(cost.detach()) == 0.5
    assert method.rate_of(site("k", 2, 2), "change.up") == method.over.rate


@pytest.mark.parametrize("merge", [Averaged, PerturbAndMerge])
@pytest.mark.parametrize("over", [LoRAMerged(), LoRAContinued()])
def test_what_takes_back_cannot_be_shared(merge, over):
    with pytest.raises(SettingsError, match=f"cannot hold {over.name}"):
        merge(over=over)


def test_a_merge_without_its_fisher_is_refused():
    with pytest.raises(SettingsError, match="it needs the Fisher information"):
        PerturbAndMerge().remember(change([[1]]), {})
    with pytest.raises(SettingsError, match="pictures is 0"):
        PerturbAndMerge(pictures=0)
