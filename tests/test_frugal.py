"""Less memory, the same learning: recomputed activations, smaller batches when memory is full, the 8-bit optimizer."""

import sys

import pytest
import torch
from torch import Tensor

from stamina_diffusion import testing
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.errors import SettingsError, TrainingError
from stamina_diffusion.learn import Learned, learn
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.plan import Plan

REX = testing.noise_concept("rex")
METHOD = Stamina(rank=2, mask_rank=3, mask_bias=0.0, word_width=8)
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


class Narrow(Toy):
    """A toy whose memory holds only so many pictures at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def loss(self, batch) -> Tensor:
        if sum(len(part.noisy) for part in batch) > self.most:
            raise torch.OutOfMemoryError(FULL)
        return super().loss(batch)


def values(learned: Learned) -> dict[str, Tensor]:
    return dict(learned.changes)


def test_when_memory_is_full_as_many_pictures_are_learned_in_smaller_batches_to_the_same_bytes():
    with pytest.warns(UserWarning, match="memory is full") as told:
        narrow = learn(Narrow(2), METHOD, REX, {}, Plan(steps=3, batch=6, prior_images=0))
    # Half of 6 is 3, still too many; half of 3, rounded down to what divides 6, is 1.
    assert [str(warning.message) for warning in told] == [
        "the memory is full with batches of 6: going on with batches of 3, 2 of them a step",
        "the memory is full with batches of 3: going on with batches of 1, 6 of them a step",
    ]
    same = learn(Toy(), METHOD, REX, {}, Plan(steps=3, batch=1, accumulation=6, prior_images=0))
    assert narrow.losses == same.losses
    for name, change in values(narrow).items():
        assert torch.equal(change, values(same)[name]), name


def test_memory_that_fills_in_the_middle_of_a_step_costs_only_that_step():
    class Later(Toy):
        calls = 0

        def loss(self, batch) -> Tensor:
            self.calls += 1
            if self.calls == 6:  # the second of two batches of step 3
                raise torch.OutOfMemoryError(FULL)
            return super().loss(batch)

    with pytest.warns(UserWarning, match="batches of 1, 4 of them"):
        learned = learn(Later(), METHOD, REX, {}, Plan(steps=4, batch=2, accumulation=2, prior_images=0))
    whole = learn(Toy(), METHOD, REX, {}, Plan(steps=4, batch=2, accumulation=2, prior_images=0))
    assert learned.losses[:2] == whole.losses[:2]
    assert len(learned.losses) == 4


def test_one_picture_too_many_says_what_to_set_and_changes_nothing():
    backbone = Narrow(0)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    with (
        pytest.warns(UserWarning, match="memory is full"),
        pytest.raises(TrainingError, match=r"one picture(.|\n)*checkpointing=true"),
    ):
        learn(backbone, METHOD, REX, {}, Plan(steps=3, batch=4, prior_images=0))
    for name, value in backbone.network.state_dict().items():
        assert torch.equal(value[: len(before[name])], before[name]), name


def test_another_error_is_not_taken_for_a_full_memory():
    class Wrong(Toy):
        def loss(self, batch) -> Tensor:
            raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        learn(Wrong(), METHOD, REX, {}, Plan(steps=3, batch=4, prior_images=0))


def test_the_8_bit_optimizer_is_refused_before_anything_is_done_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    backbone = Toy()
    with pytest.raises(SettingsError, match=r"bitsandbytes(.|\n)*pip install bitsandbytes"):
        learn(backbone, METHOD, REX, {}, Plan(steps=1, optimizer="adamw8bit"))
    assert "<rex>" not in backbone.vocabulary


def test_the_8_bit_optimizer_is_the_one_that_is_used(monkeypatch):
    class Bits:
        class optim:
            AdamW8bit = torch.optim.SGD

    monkeypatch.setitem(sys.modules, "bitsandbytes", Bits)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", Bits.optim)
    plan = Plan(steps=2, batch=2, prior_images=0)
    eight = learn(Toy(), METHOD, REX, {}, Plan(steps=2, batch=2, prior_images=0, optimizer="adamw8bit"))
    assert eight.losses[0] == learn(Toy(), METHOD, REX, {}, plan).losses[0]
    assert eight.losses[1] != learn(Toy(), METHOD, REX, {}, plan).losses[1]


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(SettingsError, match="adamw or adamw8bit"):
        Plan(optimizer="adam")  # type: ignore[arg-type]


def test_recomputed_activations_change_no_byte_and_leave_the_network_plain():
    def run(checkpointing: bool) -> tuple[Learned, StableDiffusion, list[bool]]:
        backbone, grads = StableDiffusion(testing.tiny_pipeline()), []
        unet = backbone.pipeline.unet
        # One behind the first attention: before it nothing has a gradient, and so nothing is computed again.
        block = unet.up_blocks[-1].resnets[-1]
        block.register_forward_pre_hook(lambda *_: grads.append(torch.is_grad_enabled()))
        learned = learn(backbone, METHOD, REX, {}, Plan(steps=2, batch=2, prior_images=0, checkpointing=checkpointing))
        return learned, backbone, grads

    plain, backbone, once = run(False)
    again, spared, twice = run(True)
    assert len(twice) == 2 * len(once), "each block should be computed once more for the backward pass"
    assert plain.losses == again.losses
    for name, change in values(plain).items():
        assert torch.equal(change, values(again)[name]), name
    for one, other in zip(backbone.pipeline.unet.modules(), spared.pipeline.unet.modules(), strict=True):
        assert sorted(vars(one)) == sorted(vars(other))
        assert getattr(other, "gradient_checkpointing", False) is False
