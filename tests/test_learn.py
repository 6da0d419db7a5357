"""Learning a concept: what comes out, what must not happen, and that neither batches nor processes alter the result."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stamina_diffusion import checkpoints, testing
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.errors import NameTakenError, SettingsError, TrainingError
from stamina_diffusion.learn import Learned, Step, learn
from stamina_diffusion.methods.c_lora import CLoRA
from stamina_diffusion.methods.fine_tune import FineTune
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.methods.textual_inversion import TextualInversion
from stamina_diffusion.plan import Plan
from stamina_diffusion.sites import changed

REX = testing.noise_concept("rex")
PLAN = Plan(steps=4, batch=2, prior_images=0)
SMALL_STAMINA = Stamina(rank=2, mask_rank=3, mask_bias=0.0, word_width=8)


def state(backbone: Toy) -> dict[str, Tensor]:
    return copy.deepcopy(backbone.network.state_dict())


def test_the_learned_network_is_the_pre_trained_one_plus_the_changes():
    before, backbone = Toy(), Toy()
    learned = learn(backbone, SMALL_STAMINA, REX, {}, PLAN)
    before.grow(REX, SMALL_STAMINA, PLAN.seed)
    with changed(before.sites(REX, "cross-attention"), learned.changes):
        expected = testing.outputs(before, REX, SMALL_STAMINA)
    for one, other in zip(testing.outputs(backbone, REX, SMALL_STAMINA), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_answer_is_plain_tensors_on_the_cpu():
    for method in (FineTune(), SMALL_STAMINA):
        learned = learn(Toy(), method, REX, {}, PLAN)
        for value in (*learned.changes.values(), *learned.memory.values(), *learned.start.values()):
            assert type(value) is Tensor
            assert not value.requires_grad
            assert value.dtype == torch.float32
            assert value.device.type == "cpu"


def test_the_words_row_is_its_start_plus_its_change():
    backbone = Toy()
    learned = learn(backbone, TextualInversion(), REX, {}, PLAN)
    row = backbone.network.words.weight[backbone.vocabulary["<rex>"]]
    assert torch.equal(row, (learned.start["start"] + learned.changes["token/<rex>"])[0])
    assert not torch.equal(row, learned.start["start"][0])


def test_learning_lowers_the_loss():
    plan = Plan(steps=150, batch=4, prior_images=0)
    losses = learn(Toy(), FineTune(weights="network", rate=3e-3), REX, {}, plan).losses
    assert len(losses) == 150
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


def test_who_watches_sees_every_step_with_its_loss_and_penalty():
    memory = learn(Toy(), CLoRA(rank=2, rate=0.05), REX, {}, PLAN).memory
    seen: list[Step] = []
    learned = learn(Toy(), CLoRA(rank=2, rate=0.05), REX, memory, PLAN, watch=seen.append)
    assert [(step.step, step.steps) for step in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert tuple(step.loss for step in seen) == learned.losses
    assert seen[0].penalty == 0, "nothing has changed before the first step"
    assert all(step.penalty > 0 for step in seen[1:])


def test_who_peeks_sees_what_would_be_learned_there_and_alters_nothing():
    plain = testing._bytes(learn(Toy(), SMALL_STAMINA, REX, {}, PLAN))
    backbone, peeked = Toy(), {}

    def peek(step: int) -> None:
        torch.rand(3)  # a picture's noise, drawn carelessly
        peeked[step] = testing.outputs(backbone, REX, SMALL_STAMINA)

    learned = learn(backbone, SMALL_STAMINA, REX, {}, PLAN, peek=peek, peek_at={2, PLAN.steps})
    assert testing._bytes(learned) == plain
    assert list(peeked) == [2, PLAN.steps]
    for one, other in zip(peeked[PLAN.steps], testing.outputs(backbone, REX, SMALL_STAMINA), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert not torch.equal(peeked[2][-1], peeked[PLAN.steps][-1])


def test_the_penalty_keeps_changes_off_the_entries_that_earlier_ones_moved():
    sites = Toy()
    sites.grow(REX, CLoRA(), 0)
    weights = [(n, s) for n, s in sites.sites(REX, "cross-attention").items() if s.role == "weight"]
    memory = {f"moved/{name}": torch.ones(site.shape).tril() for name, site in weights}
    plan = Plan(steps=60, batch=2, prior_images=0)

    def moved(strength: float) -> tuple[float, float]:
        values = learn(Toy(), CLoRA(rank=4, strength=strength, rate=0.01), REX, memory, plan).changes
        hit = sum(float((values[name] * memory[f"moved/{name}"]).square().sum()) for name, _ in weights)
        return hit, sum(float(values[name].square().sum()) for name, _ in weights)

    (free, _), (kept, whole) = moved(0.0), moved(1e3)
    assert kept < 0.05 * free
    assert kept < 0.2 * whole


def test_each_kind_of_site_learns_at_its_own_rate():
    learned = learn(Toy(), FineTune(rate=0.0, word_rate=0.01), REX, {}, PLAN)
    weights = {name: change for name, change in learned.changes.items() if not name.startswith("token/")}
    assert weights
    assert all(change.count_nonzero() == 0 for change in weights.values())
    assert learned.changes["token/<rex>"].count_nonzero() > 0


def test_density_is_the_share_of_the_weights_entries_that_moved():
    changes = {
        "a": torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
        "b": torch.tensor([[2.0], [0.0]]),
        "token/<rex>": torch.ones(9),
    }
    assert Learned(changes, {"start": torch.zeros(1, 9)}, {}, (), 0.0).density == 2 / 6
    assert Learned({"token/<rex>": torch.ones(9)}, {"start": torch.zeros(1, 9)}, {}, (), 0.0).density is None


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_a_loss_that_is_no_number_raises_and_leaves_every_weight_bit_equal():
    backbone = Toy()
    before = state(backbone)
    with pytest.raises(TrainingError, match=r"no longer a number at step \d+(.|\n)*lower rate"):
        learn(backbone, FineTune(weights="network", rate=1e30), REX, {}, PLAN)
    for name, value in state(backbone).items():
        assert torch.equal(value[: len(before[name])], before[name]), name


def test_a_change_that_is_no_number_at_the_end_is_not_folded():
    class Poisoned(LoRA):
        def fold(self, changes, memory):
            return {name: change.value * math.nan for name, change in changes.items()}

    backbone = Toy()
    before = state(backbone)
    with pytest.raises(TrainingError):
        learn(backbone, Poisoned(rank=2), REX, {}, PLAN)
    for name, value in state(backbone).items():
        assert torch.equal(value[: len(before[name])], before[name]), name


def test_an_interruption_leaves_every_weight_bit_equal():
    def interrupt(step: Step) -> None:
        raise KeyboardInterrupt

    backbone = Toy()
    before = state(backbone)
    with pytest.raises(KeyboardInterrupt):
        learn(backbone, SMALL_STAMINA, REX, {}, PLAN, watch=interrupt)
    for name, value in state(backbone).items():
        assert torch.equal(value[: len(before[name])], before[name]), name


def test_a_name_is_learned_once():
    backbone = Toy()
    learn(backbone, LoRA(rank=2), REX, {}, PLAN)
    before = state(backbone)
    with pytest.raises(NameTakenError, match="<rex>"):
        learn(backbone, LoRA(rank=2), REX, {}, PLAN)
    assert all(torch.equal(value, before[name]) for name, value in state(backbone).items())


def test_fp16_on_a_cpu_is_refused_before_anything_is_done():
    backbone = Toy()
    with pytest.raises(SettingsError, match=r"fp16 needs a GPU(.|\n)*bf16 or no"):
        learn(backbone, LoRA(rank=2), REX, {}, Plan(steps=1, precision="fp16"))
    assert "<rex>" not in backbone.vocabulary


def test_a_checkpoint_of_another_training_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["stamina_diffusion.learn"], "CHECKPOINT_SECONDS", -1)
    file = tmp_path / "checkpoint.safetensors"
    learn(Toy(), LoRA(rank=2), REX, {}, PLAN, checkpoint=file)
    for other in (SMALL_STAMINA, LoRA(rank=3)):
        with pytest.raises(KeyError, match="checkpoint of another training"):
            learn(Toy(), other, REX, {}, PLAN, checkpoint=file)


def test_an_optimizer_comes_back_in_the_layout_of_its_parameters(tmp_path):
    # Fused optimizers on a GPU refuse a moment whose layout is not its parameter's.
    def trained() -> tuple[torch.nn.Conv2d, torch.optim.AdamW]:
        layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return layer, torch.optim.AdamW(layer.parameters())

    layer, optimizer = trained()
    layer(torch.randn(1, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    named = checkpoints.named_tensors(layer=layer)
    checkpoints.save(tmp_path / "file.safetensors", parameters=named, optimizer=optimizer, progress={})
    again, other = trained()
    checkpoints.load(tmp_path / "file.safetensors", parameters=checkpoints.named_tensors(layer=again), optimizer=other)
    for mine, theirs in zip(layer.parameters(), again.parameters(), strict=True):
        found = other.state[theirs]["exp_avg"]
        assert found.stride() == theirs.stride() == optimizer.state[mine]["exp_avg"].stride()
        assert torch.equal(found, optimizer.state[mine]["exp_avg"])


# ---------------------------------------------------------------------------------------- precision, batches, processes


def test_bf16_computes_roughly_the_same_and_keeps_changes_in_float32():
    exact = learn(Toy(), SMALL_STAMINA, REX, {}, PLAN)
    rough = learn(Toy(), SMALL_STAMINA, REX, {}, Plan(steps=4, batch=2, prior_images=0, precision="bf16"))
    assert rough.losses != exact.losses, "nothing was computed in bf16"
    assert rough.losses == pytest.approx(exact.losses, rel=0.02)
    assert {value.dtype for value in rough.changes.values()} == {torch.float32}


def test_the_precision_of_one_concept_does_not_stick_to_the_next():
    alone = learn(Toy(), LoRA(rank=2), REX, {}, PLAN)
    learn(Toy(), LoRA(rank=2), REX, {}, Plan(steps=1, precision="bf16", prior_images=0))
    assert learn(Toy(), LoRA(rank=2), REX, {}, PLAN).losses == alone.losses


def test_accumulation_takes_the_mean_over_its_batches():
    plan = Plan(steps=3, batch=2, accumulation=2, prior_images=0)
    learned = learn(Toy(), LoRA(rank=2), REX, {}, plan)
    assert all(math.isfinite(loss) for loss in learned.losses)
    # The first step's two batches, on the network as it starts.
    fresh = Toy()
    fresh.grow(REX, LoRA(), plan.seed)
    material = fresh.material(REX, LoRA(), plan)
    losses = [float(fresh.loss(fresh.batch(material, plan, plan.seed, "rex", place))) for place in (0, 1)]
    assert learned.losses[0] == pytest.approx(sum(losses) / 2)
    assert losses[0] != losses[1]


def test_a_step_of_two_batches_moves_by_their_mean_gradient():
    # Adam's first step is −rate · g / (|g| + 1e-8), entry by entry: its signs are those of the mean of both gradients.
    plan = Plan(steps=1, batch=2, accumulation=2, prior_images=0, clip_norm=0.0, weight_decay=0.0)
    method = TextualInversion(word_rate=0.1)
    learned = learn(Toy(), method, REX, {}, plan)
    fresh = Toy()
    fresh.grow(REX, method, plan.seed)
    change = torch.zeros(1, 16, requires_grad=True)
    material = fresh.material(REX, method, plan)
    with changed(fresh.sites(REX, "tokens"), {"token/<rex>": change}):
        for place in (0, 1):
            (fresh.loss(fresh.batch(material, plan, plan.seed, "rex", place)) / 2).backward()
    gradient = change.grad
    assert gradient is not None
    torch.testing.assert_close(learned.changes["token/<rex>"], -0.1 * gradient / (gradient.abs() + 1e-8))


TWO_PROCESSES = """
import sys
from accelerate import debug_launcher
from stamina_diffusion import testing
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.files import write_tensors
from stamina_diffusion.learn import learn
from stamina_diffusion.methods import build
from stamina_diffusion.plan import Plan
from pathlib import Path

def run(folder, name, settings):
    from accelerate import PartialState
    plan = Plan(steps=5, batch=2, prior_images=0)
    memory = {}
    backbone = Toy()
    for word in ("rex", "tom"):
        memory = learn(backbone, build(name, settings), testing.noise_concept(word), memory, plan).memory
    state = PartialState()
    assert state.num_processes == 2
    write_tensors(Path(folder) / f"{state.process_index}.safetensors", backbone.network.state_dict())

if __name__ == "__main__":
    debug_launcher(run, (sys.argv[1], "stamina", {"rank": 2, "mask_bias": 0.0, "strength": 100.0}), num_processes=2)
"""


def test_two_processes_learn_what_one_learns_with_two_batches_a_step(tmp_path):
    # In a process of its own: after a backward pass here, a fork of this one could not run another.
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    ran = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    backbone, memory = Toy(), {}
    for name in ("rex", "tom"):
        method = Stamina(rank=2, mask_bias=0.0, strength=100.0)
        plan = Plan(steps=5, batch=2, accumulation=2, prior_images=0)
        memory = learn(backbone, method, testing.noise_concept(name), memory, plan).memory
    first, second = (load_file(tmp_path / f"{process}.safetensors") for process in (0, 1))
    for name, value in backbone.network.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-5)
