"""Methods that score words by how well they denoise: worked by hand, and what they do on the toy (arXiv 2410.00700)."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stamina_diffusion import testing
from stamina_diffusion.backbones.base import Backbone
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.backbones.toy_classifier import ToyClassifier
from stamina_diffusion.benchmarks import rows as table
from stamina_diffusion.benchmarks.customization import Customization
from stamina_diffusion.benchmarks.grid import Cell
from stamina_diffusion.benchmarks.protocol import read_protocol
from stamina_diffusion.benchmarks.tuning import searched
from stamina_diffusion.deltas import Delta, LowRank, Since
from stamina_diffusion.errors import SettingsError
from stamina_diffusion.estimate import estimate
from stamina_diffusion.learn import learn
from stamina_diffusion.method import BASE_WORD, Answers, Change, Memory, Method
from stamina_diffusion.methods.dsc import DSC, Taught
from stamina_diffusion.methods.ewc_dc import EWCDC
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.lora_continued import LoRAContinued
from stamina_diffusion.observe import squared_parameter_gradients
from stamina_diffusion.plan import Plan
from stamina_diffusion.scores import cross_entropy, divergence, log_scores, sampled
from stamina_diffusion.settings import resolve
from stamina_diffusion.sites import Site

KEY = "attention.0.to_k.weight"
SMALL = LoRAContinued(rank=2, rate=0.05, word_rate=0.05)
PLAN = dataclasses.replace(testing.PLAN, steps=4)
THIRDS = 0.5 / math.log(3)
"""A temperature at which an error of ½ more makes a word a third as likely."""


def matrix(*values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def site(*shape: int) -> Site:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(shape))
    return Site("k", "weight", module, "weight")


def low_rank(down: list, up: list) -> LowRank:
    delta = LowRank(torch.Size([len(up), len(down[0])]), len(down))
    delta.down.data, delta.up.data = matrix(*down), matrix(*up)
    return delta


def change(delta: Delta, **known: Any) -> dict[str, Change]:
    value = delta()
    return {"k": Change(site(*value.shape), delta, value, **known)}


def answers(**said: list) -> Answers:
    """Answers to one picture whose noise is (0, 0), by word; BASE is the base's."""
    words = tuple(BASE_WORD if word == "BASE" else word for word in said)
    return Answers(words, torch.tensor([[one] for one in said.values()], dtype=torch.float32), torch.zeros(1, 2))


def number(cost: Tensor | float) -> float:
    return float(cost.detach()) if isinstance(cost, Tensor) else cost


def taught(method: Method, *names: str, plan: Plan = PLAN) -> tuple[Toy, Memory]:
    """A toy that learned concepts by the method, and the memory after them."""
    backbone, memory = Toy(), {}
    for name in names:
        memory = learn(backbone, method, testing.noise_concept(name), memory, plan).memory
    return backbone, memory


# ---------------------------------------------------------------------------------------------------------- the scores


def test_a_picture_is_the_words_under_which_its_noise_is_told_best():
    # Errors 0, ½ and ½, as the mean of two entries: 1 to ⅓ to ⅓, so ⅗, ⅕ and ⅕.
    found = log_scores(answers(a=[0, 0], b=[1, 0], c=[0, -1]), THIRDS)
    torch.testing.assert_close(found.exp(), matrix([0.6], [0.2], [0.2]))
    assert float(cross_entropy(answers(a=[0, 0], b=[1, 0]), THIRDS)) == pytest.approx(math.log(4 / 3))
    assert float(cross_entropy(answers(b=[1, 0], a=[0, 0]), THIRDS)) == pytest.approx(math.log(4))


def test_the_sum_over_entries_is_the_temperature_of_one_over_their_number():
    # The paper's norm: errors 1 and 4 as sums of two entries, so e⁻¹ to e⁻⁴.
    found = log_scores(answers(a=[1, 0], b=[0, 2]), 1 / 2)
    assert float(found[0, 0] - found[1, 0]) == pytest.approx(3)


def test_two_networks_differ_by_the_divergence_of_their_scores():
    # Taught (¾, ¼), said (½, ½): ¾ ln(3/2) + ¼ ln(1/2). Of three words only the teacher's two count.
    teacher, own = answers(a=[0, 0], b=[1, 0]), answers(c=[9, 9], b=[1, 1], a=[1, 1])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(divergence(teacher, own, THIRDS)) == pytest.approx(expected, rel=1e-5)


def test_words_are_drawn_beside_those_that_must_be_there():
    words = (BASE_WORD, *"abcdef")
    draws = [sampled(["a", "c"], words, 4, torch.Generator().manual_seed(seed)) for seed in range(40)]
    assert all(one[:2] == ("a", "c") and len(set(one)) == 4 for one in draws)
    assert {word for one in draws for word in one} == set(words)
    assert set(sampled(["a"], words, 20, torch.Generator())) == set(words)


def test_a_network_answers_the_same_question_under_each_word():
    backbone, method = StableDiffusion(testing.tiny_pipeline()), DSC()
    for name in ("rex", "tom"):
        concept = testing.noise_concept(name)
        backbone.grow(concept, method, 0)
    material = backbone.material(concept, method, testing.PLAN)
    (part,) = batch = backbone.batch(material, testing.PLAN, "x")
    found = backbone.answers(batch, ("<tom>", BASE_WORD))
    assert found.said.shape == (2, *part.noisy.shape)
    assert torch.equal(found.target, part.target)
    for said, prompt in zip(found.said, ("a photo of <tom>", "a photo of a dog"), strict=True):
        asked = dataclasses.replace(part, tokens=backbone.tokenize([prompt]), rows=torch.zeros_like(part.rows))
        torch.testing.assert_close((said - part.target).square().mean(), backbone.loss([asked]))
    assert list(part.scored) == [BASE_WORD, "<rex>", "<tom>"]
    assert not backbone.batch(backbone.material(concept, LoRA(), testing.PLAN), testing.PLAN, "x")[0].scored


# -------------------------------------------------------------------------------------------------------------- ewc-dc


class Line(Backbone):
    """ε(w) = w a, with a = 1 under its word and 0 under the base's; the noise is always 0."""

    def __init__(self) -> None:
        self.line = nn.Linear(1, 1, bias=False)
        self.line.weight.data.zero_()
        self.learned = ["<rex>"]

    @property
    def device(self):
        return torch.device("cpu")

    @property
    def modules(self):
        return {"line": self.line}

    def grow(self, concept, method, seed):
        raise NotImplementedError

    def sites(self, concept, scope):
        return {"k": Site("k", "weight", self.line, "weight")}

    def material(self, concept, method, plan):
        raise NotImplementedError

    def batch(self, material, plan, *purpose):
        return torch.ones(1, 1)

    def loss(self, batch):
        return self.line(batch).square().mean()

    def answers(self, batch, words):
        said = torch.stack([self.line(batch * (word != BASE_WORD)) for word in words])
        return Answers(tuple(words), said, torch.zeros(1, 1))


def test_the_fisher_is_of_the_factors_and_of_telling_a_picture_from_the_base():
    # w = B A = 2·1. L = w², so ∂L/∂w = 4. Errors w² = 4 and 0, τ = 4 / ln 3: p(own) = ¼, p(c_0) = ¾, and with γ = 2
    # γ ∂CE/∂w = 2 (1 − ¼) 2w / τ = 6 ln(3) / 4. So g = 4 + 1.5 ln 3; ∂/∂B = g A = g, ∂/∂A = g B = 2 g.
    backbone, delta, concept = Line(), low_rank([[1]], [[2]]), testing.noise_concept("rex")
    method = EWCDC(pictures=3, score_weight=2.0, temperature=4 / math.log(3))
    (own,) = backbone.sites(concept, "cross-attention").values()
    present = {"k": Change(own, delta, delta().detach())}
    found = squared_parameter_gradients(backbone, method, concept, testing.PLAN, None, present)["k"]
    slope = 4 + 1.5 * math.log(3)
    assert float(found["up"]) == pytest.approx(slope**2, rel=1e-5)
    assert float(found["down"]) == pytest.approx(4 * slope**2, rel=1e-5)
    plain = dataclasses.replace(method, score_weight=0.0)
    found = squared_parameter_gradients(backbone, plain, concept, testing.PLAN, None, present)["k"]
    assert (float(found["up"]), float(found["down"])) == (16, 64)


def test_ewc_dc_holds_the_factors_where_the_last_concept_ended():
    # A: 1·(3 − 0)² + 2·(0 − 1)² = 11. B: 4·(2 − 1)² = 4. λ/2 of 15 with λ = 6 is 45.
    memory = {
        "fisher-down/k": matrix([1, 2]),
        "factor-down/k": matrix([0, 1]),
        "fisher-up/k": matrix([4]),
        "factor-up/k": matrix([1]),
    }
    delta = Since(low_rank([[3, 0]], [[2]]), matrix([0, 1]))
    assert number(EWCDC(strength=6).penalty(change(delta), memory)) == 45


def test_the_fisher_of_the_factors_is_added_to_what_is_left_of_the_earlier_ones():
    # ½ [2, 4] + [1, 1] = [2, 3] of A, and 5 of B, which had none; the factors themselves stand beside them.
    fisher = {"change.down": matrix([1, 1]), "change.up": matrix([5])}
    present = change(Since(low_rank([[3, 0]], [[2]]), matrix([0, 1])), parameter_fisher=fisher)
    memory = EWCDC(decay=0.5).remember(present, {"fisher-down/k": matrix([2, 4])})
    assert memory["fisher-down/k"].tolist() == [[2, 3]]
    assert memory["fisher-up/k"].tolist() == [[5]]
    assert (memory["factor-down/k"].tolist(), memory["factor-up/k"].tolist()) == ([[3, 0]], [[2]])


def test_ewc_dc_moves_the_lora_less_and_its_memory_does_not_grow():
    def moved(method: Method) -> tuple[float, set[int]]:
        backbone, memory = taught(method, "rex")
        before = backbone.network.get_parameter(KEY).clone()
        sizes = {sum(value.numel() for value in memory.values())}
        memory = learn(backbone, method, testing.noise_concept("tom"), memory, PLAN).memory
        sizes.add(sum(value.numel() for value in memory.values()))
        return float((backbone.network.get_parameter(KEY) - before).norm()), sizes

    plain, _ = moved(SMALL)
    held, sizes = moved(EWCDC(over=SMALL, strength=1e6, pictures=4))
    assert held < 0.5 * plain
    assert len(sizes) == 1


# ----------------------------------------------------------------------------------------------------------------- dsc


def test_the_double_distillation_by_hand():
    # The new teacher's scores of (new, old) are (¾, ¼), the network's (½, ½): KL ¾ ln(3/2) + ¼ ln(1/2); their noise of
    # `new` is the same. The earlier one's of (old, base) are (¼, ¾), the network's (¾, ¼): KL ¼ ln(1/3) + ¾ ln 3 =
    # ½ ln 3; of `old` it says (1, 0) where the network says (0, 0): ½. Together ½ + γ Σ KL, times λ.
    own = answers(new=[0, 0], old=[0, 0], BASE=[1, 0])
    heard = [answers(new=[0, 0], old=[1, 0]), answers(old=[1, 0], BASE=[0, 0])]
    apart = 0.75 * math.log(1.5) + 0.25 * math.log(0.5) + 0.5 * math.log(3)
    method = DSC(strength=3.0, score_weight=2.0, temperature=THIRDS)
    assert float(method.distil(own, heard)) == pytest.approx(3 * (0.5 + 2 * apart), rel=1e-5)
    assert float(DSC(score_weight=0.0).distil(own, heard)) == pytest.approx(0.5)


def test_the_teachers_are_the_lora_after_an_earlier_concept_and_the_new_one_as_it_was_at_the_turn():
    # L_a = [1, 0]ᵀ [1, 2]; the network holds L_b = [0, 1]ᵀ [3, 4]: what makes it that of a is L_a − L_b.
    memory = {
        "past-up <a>/k": matrix([1], [0]),
        "past-down <a>/k": matrix([1, 2]),
        "factor-up/k": matrix([0], [1]),
        "factor-down/k": matrix([3, 4]),
    }
    method = DSC(over=LoRAContinued(rank=1), concepts=5)
    delta = method.delta(site(2, 2), memory)
    assert isinstance(delta, Taught)
    lora: Any = dict(delta.named_parameters())["change.change.up"]
    lora.data = matrix([1], [1])
    delta.turn()
    lora.data = matrix([7], [7])
    words = (BASE_WORD, "<a>", "<b>", "<c>")
    new, old = method.teachers(change(delta), memory, words, torch.Generator().manual_seed(0))
    assert new.values["k"].tolist() == [[3, 4], [0, 0]]
    assert old.values["k"].tolist() == [[1, 2], [-3, -4]]
    # <b> was learned otherwise and is no teacher; the LoRA after <a> did not know it, and nobody but the new one <c>.
    assert (new.words[:2], set(new.words)) == (("<c>", "<a>"), set(words))
    assert old.words == ("<a>", BASE_WORD)
    fewer = dataclasses.replace(method, concepts=2)
    new, old = fewer.teachers(change(delta), memory, words, torch.Generator())
    assert (new.words, old.words) == (("<c>", "<a>"), ("<a>",))


def test_the_memory_of_dsc_holds_the_lora_after_each_concept():
    method = DSC(over=SMALL)
    backbone, base = Toy(), Toy().network.get_parameter(KEY)
    memory: Memory = {}
    for name in ("rex", "tom", "ann"):
        memory = learn(backbone, method, testing.noise_concept(name), memory, PLAN).memory
        whole = memory[f"past-up <{name}>/{KEY}"] @ memory[f"past-down <{name}>/{KEY}"]
        torch.testing.assert_close(base + whole, backbone.network.get_parameter(KEY), atol=1e-5, rtol=0)
    assert len([key for key in memory if key.endswith(KEY) and key.startswith("past-up")]) == 3


class Heard(Toy):
    """Keeps the first layer's keys' weight of every loss and of every answer, and what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.learning: list[Tensor] = []
        self.answering: list[tuple[tuple[str, ...], Tensor]] = []

    def used(self) -> Tensor:
        weight: Any = self.network.get_submodule("attention.0.to_k").weight
        return weight.detach().clone()

    def loss(self, batch):
        self.learning.append(self.used())
        return super().loss(batch)

    def answers(self, batch, words):
        self.answering.append((tuple(words), self.used()))
        return super().answers(batch, words)


def test_after_half_of_the_steps_both_teachers_are_heard_in_each_step():
    method, backbone, memory, after = DSC(over=SMALL), Heard(), {}, {}
    for name in ("rex", "tom", "ann"):
        backbone.learning.clear()
        backbone.answering.clear()
        memory = learn(backbone, method, testing.noise_concept(name), memory, PLAN).memory
        after[f"<{name}>"] = backbone.network.get_parameter(KEY).clone()
        if name == "rex":
            assert not backbone.answering
            continue
        # Four steps: two plain, then in each the new teacher, the earlier one and the network itself.
        assert len(backbone.answering) == 6
        for step in range(2):
            (asked, new), (known, old), (own, now) = backbone.answering[3 * step : 3 * step + 3]
            assert asked[0] == f"<{name}>"
            assert set(known) <= set(asked) == set(own)
            torch.testing.assert_close(old, after[known[0]], atol=1e-5, rtol=0)
            assert torch.equal(new, backbone.learning[2])
            assert torch.equal(now, backbone.learning[2 + step])
            assert "<tom>" in known or known[0] == "<rex>"
        assert not torch.equal(backbone.learning[3], backbone.learning[2])


class StopError(Exception):
    """What stops a run in the middle."""


@pytest.mark.parametrize("method", [DSC(over=EWCDC(over=SMALL, pictures=2)), DSC(over=SMALL, teacher_share=0.25)])
def test_a_concept_with_teachers_repeats_and_resumes_to_the_same_bytes(method, tmp_path, monkeypatch):
    monkeypatch.setattr("stamina_diffusion.learn.CHECKPOINT_SECONDS", -1.0)
    second = testing.noise_concept("tom")

    def run(stop: int | None = None, file=None) -> list[Tensor]:
        backbone, memory = taught(method, "rex")

        def watch(step):
            if step.step == stop:
                raise StopError

        learned = learn(backbone, method, second, memory, PLAN, checkpoint=file, watch=watch)
        return [*learned.changes.values(), *(learned.memory[key] for key in sorted(learned.memory))]

    whole = run()
    for stop in range(1, PLAN.steps):
        file = tmp_path / f"{stop}.safetensors"
        with pytest.raises(StopError):
            run(stop, file)
        assert all(map(torch.equal, run(file=file if file.exists() else None), whole)), stop


def test_the_first_concept_is_the_plain_loras_to_the_byte():
    (one, _), (other, _) = taught(SMALL, "rex"), taught(DSC(over=SMALL), "rex")
    assert torch.equal(one.network.get_parameter(KEY), other.network.get_parameter(KEY))


def test_dsc_keeps_what_is_said_of_the_first_word_better_than_the_lora_alone():
    def moved(method: Method) -> float:
        backbone, memory = taught(method, "rex", plan=dataclasses.replace(PLAN, steps=20))
        noisy = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        question = backbone.tokenize(["a photo of <rex>"] * 8), noisy, torch.linspace(0.1, 0.9, 8)
        before = backbone.network(*question)
        learn(backbone, method, testing.noise_concept("tom"), memory, dataclasses.replace(PLAN, steps=40))
        return float((backbone.network(*question) - before).square().mean())

    assert moved(DSC(over=SMALL, strength=10.0)) < 0.7 * moved(SMALL)


# ---------------------------------------------------------------------------------------------- what is known of them


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: EWCDC(over=LoRA()), "ewc-dc cannot hold lora"),
        (lambda: DSC(over=LoRA()), "dsc cannot hold lora"),
        (lambda: DSC(over=DSC()), "dsc cannot hold dsc"),
        (lambda: DSC(teacher_share=1.0), r"teacher_share is 1\.0"),
        (lambda: resolve("embedded", "dsc", overrides={"concepts": "1"}), "concepts"),
        (lambda: resolve("embedded", "ewc-dc", overrides={"temperature": "0"}), "temperature"),
    ],
)
def test_settings_that_mean_nothing_are_refused(made, said):
    with pytest.raises(SettingsError, match=said):
        made()


@pytest.mark.parametrize("method", [EWCDC(), DSC()])
def test_a_classifier_refuses_to_score_words(method):
    backbone, concept = ToyClassifier(), testing.noise_concept("rex")
    backbone.grow(concept, method, 0)
    with pytest.raises(SettingsError, match="a classifier denoises nothing"):
        backbone.material(concept, method, testing.PLAN)


def test_what_teachers_cost_is_foretold():
    backbone, plan = StableDiffusion(testing.tiny_pipeline()), Plan(batch=4)
    backbone.grow(testing.noise_concept("rex"), DSC(), 0)
    assert not backbone.blank(DSC(), plan)[0].scored
    alone = estimate(backbone, EWCDC(), plan, "tom", None).step
    assert [len(backbone.blank(method, plan)[0].scored) for method in (DSC(concepts=3), EWCDC())] == [3, 0]
    assert estimate(backbone, DSC(), plan, "ann", None).step > 1.5 * alone

    rows = ("lora, continued", "dsc")
    benchmark = Customization(read_protocol("cpu", {"steps": "10", "batch": "3"}), tuple(table.chosen(",".join(rows))))
    plain, taught_by_two = (benchmark.passes(Cell(row, "mixed", 3, 0))["learning"] for row in rows)
    # Two later concepts, five steps of three pictures with teachers, five words: twice by the network, twice by them.
    assert taught_by_two - plain == 2 * 5 * 3 * 5 * 4


def test_they_are_rows_of_the_table_and_their_strength_is_tuned():
    names = [row.name for row in table.chosen("all")]
    assert {"ewc-dc", "dsc"} <= set(names)
    assert not {"ewc-dc", "dsc"} & {row.name for row in table.chosen("paper")}
    assert set(searched(DSC())) == set(searched(EWCDC())) == {"rate", "word_rate", "strength"}
