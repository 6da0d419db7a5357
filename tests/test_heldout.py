"""The held-out loss is a fixed set of questions, and its number is the loss of exactly those."""

import dataclasses

import pytest
import torch

from stamina_diffusion import testing
from stamina_diffusion.backbones.toy import Toy, _clock, _pixels
from stamina_diffusion.concepts import Concept
from stamina_diffusion.heldout import heldout_loss
from stamina_diffusion.learn import learn
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.replay import Replay
from stamina_diffusion.plan import Plan

METHOD = LoRA(rank=2, rate=0.1)
SEEN = Concept("rex", testing.noise_pictures(8)[:4], class_word="dog")
HELD_OUT = Concept("rex", testing.noise_pictures(8)[4:], class_word="dog")


@pytest.fixture(scope="module")
def taught():
    backbone = Toy()
    learn(backbone, METHOD, SEEN, {}, testing.PLAN)
    return backbone


def test_the_same_question_has_the_same_answer_to_the_bit_and_changes_nothing(taught):
    before = {name: value.clone() for name, value in taught.network.state_dict().items()}
    torch.manual_seed(1)
    first = heldout_loss(taught, METHOD, HELD_OUT, testing.PLAN)
    torch.manual_seed(2)
    assert heldout_loss(taught, METHOD, HELD_OUT, dataclasses.replace(testing.PLAN, steps=9, batch=7)) == first
    assert all(torch.equal(before[name], value) for name, value in taught.network.state_dict().items())


def test_it_is_the_mean_square_error_of_the_noise(taught):
    # By hand: the batches' pictures, noise and times; then ‖noise − Denoiser‖² over all of them.
    plan = Plan(batch=4)
    material = taught.material(HELD_OUT, METHOD, dataclasses.replace(plan, prior_images=0))
    total = 0.0
    for place in range(3):
        (part,) = taught.batch(material, plan, plan.seed, "rex", place, "held out")
        assert len(part.noisy) == 4
        signal = _clock(part.time)[:, 0, None, None, None]
        scale = _clock(part.time)[:, 1, None, None, None]
        shown = (part.noisy - scale * part.noise) / signal
        pictures = _pixels(HELD_OUT.images)
        assert all(bool((picture - pictures).flatten(1).norm(dim=1).min() < 1e-3) for picture in shown)
        total += float((taught.network(part.words, part.noisy, part.time) - part.noise).square().mean()) / 3
    assert heldout_loss(taught, METHOD, HELD_OUT, plan, draws=3) == pytest.approx(total, rel=1e-6)


def test_it_falls_on_what_was_learned():
    backbone, plan = Toy(), dataclasses.replace(testing.PLAN, steps=60, batch=4)
    learn(backbone, METHOD, SEEN, {}, testing.PLAN)
    fresh = Toy()
    fresh.grow(SEEN, METHOD, plan.seed)
    taught = Toy()
    learn(taught, METHOD, SEEN, {}, plan)
    assert heldout_loss(taught, METHOD, SEEN, plan) < heldout_loss(fresh, METHOD, SEEN, plan) - 0.02


def test_prior_pictures_and_replays_are_left_out(taught):
    plan = dataclasses.replace(testing.PLAN, prior_images=5, replay_images=5)
    with_replay = heldout_loss(taught, Replay(over=METHOD), HELD_OUT, plan)
    assert with_replay == heldout_loss(taught, METHOD, HELD_OUT, testing.PLAN)
