"""Less memory, the same learning: recomputed activations, smaller batches when memory is full, the 8-bit optimizer."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from stamina_diffusion import testing
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.backbones.toy import Toy
from stamina_diffusion.errors import Notice, SettingsError, TrainingError
from stamina_diffusion.estimate import Held, estimate
from stamina_diffusion.learn import Learned, check_rank, learn
from stamina_diffusion.methods import build
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.plan import Plan
from stamina_diffusion.settings import resolve
from stamina_diffusion.sites import changed
from stamina_diffusion.testing_pipelines import tiny_pipeline

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


def test_pictures_that_do_not_fit_are_drawn_fewer_at_a_time(monkeypatch):
    backbone, asked = StableDiffusion(tiny_pipeline()), []
    plain = backbone.draw(["a cat"] * 3, [0, 1, 2], steps=2)
    draw = type(backbone.pipeline).__call__

    def narrow(pipeline, prompts, **options):
        asked.append(len(prompts))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError(FULL)
        return draw(pipeline, prompts, **options)

    monkeypatch.setattr(type(backbone.pipeline), "__call__", narrow)
    with pytest.warns(Notice, match="going on with 1 pictures at a time"):
        found = backbone.draw(["a cat"] * 3, [0, 1, 2], steps=2)
    assert asked == [3, 1, 1, 1]
    apart = [np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(plain, found, strict=True)]
    assert max(apart) <= 1
    monkeypatch.setattr(type(backbone.pipeline), "__call__", lambda *_, **__: backbone.loss(None))
    monkeypatch.setattr(backbone, "loss", lambda batch: (_ for _ in ()).throw(torch.OutOfMemoryError(FULL)))
    with pytest.raises(torch.OutOfMemoryError):
        backbone.draw(["a cat"], [0], steps=2)


def test_a_rank_above_every_layer_is_refused_with_the_largest_that_can_be_had():
    sites = StableDiffusion(tiny_pipeline()).weight_sites("cross-attention")
    check_rank(Stamina(rank=16, mask_rank=16), sites)
    with pytest.raises(
        SettingsError, match=r"mask_rank is 17, above every layer's own: the largest has 16\nTake --set"
    ):
        check_rank(Stamina(rank=16, mask_rank=17), sites)
    with pytest.raises(SettingsError, match=r"^rank is 99"):
        check_rank(build("ewc", {"over": {"name": "lora", "rank": 99}}), sites)
    check_rank(build("textual-inversion"), {})


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


@pytest.mark.parametrize(("storage", "most"), [("bf16", 4), ("float8", 16)])
def test_weights_stored_in_fewer_bits_learn_and_draw_almost_the_same_and_what_learns_stays_whole(storage, most):
    whole, stored = (StableDiffusion(tiny_pipeline()) for _ in range(2))
    stored.store(storage)
    (picture,), (same) = whole.draw(["a cat"], [0], steps=2), stored.draw(["a cat"], [0], steps=2)
    apart = np.abs(np.asarray(picture, int) - np.asarray(same[0], int))
    assert apart.max() <= most
    sites = stored.weight_sites("cross-attention")
    assert {site.value.dtype for site in sites.values()} == {torch.float32}
    kept = {name: site.value.clone() for name, site in sites.items()}
    plan = Plan(steps=2, batch=2, precision="bf16")
    learned = [learn(some, METHOD, REX, {}, plan) for some in (whole, stored)]
    assert learned[1].losses == pytest.approx(learned[0].losses, rel=0.05)
    for name, site in sites.items():
        assert torch.equal(site.value, kept[name] + learned[1].changes[name])
    held = {parameter.dtype for parameter in stored.denoiser.parameters()}
    assert held == {torch.float32, torch.bfloat16} | ({torch.float8_e4m3fn} if storage == "float8" else set())


def test_weights_of_fewer_bits_want_a_precision_and_a_method_that_leaves_them():
    with pytest.raises(SettingsError, match="cannot be computed with in precision no"):
        Plan(storage="bf16")
    with pytest.raises(SettingsError, match="fine-tune changes every weight"):
        resolve("sd15-8gb", "fine-tune", overrides={"weights": "network"})


def test_the_memory_of_a_step_is_found_without_computing_it():
    def of(method=METHOD, **changes):
        return estimate(StableDiffusion(tiny_pipeline()), method, Plan(batch=4, **changes), "rex", None)

    backbone = StableDiffusion(tiny_pipeline())
    plain = of()
    assert plain.whole == plain.weights + plain.learned + plain.step
    parameters = [p for network in backbone.modules.values() for p in network.parameters()]
    assert plain.weights >= 4 * sum(p.numel() for p in parameters)
    # The same step for real, counted in the same way; some kernels keep other things than their shapes tell.
    backbone.grow(REX, METHOD, 0)
    sites = backbone.sites(REX, METHOD.scope)
    values = {name: METHOD.delta(site, {})() for name, site in sites.items()}
    with Held() as held, changed(sites, values):
        backbone.loss(backbone.blank(METHOD, Plan(batch=4))).backward()
    known = 4 * sum(p.numel() for p in parameters)  # views of the weights count when they are first seen
    assert held.most - known <= plain.step <= 1.3 * held.most
    assert of(checkpointing=True).step < plain.step
    assert of(precision="bf16").step < plain.step
    eight = of(optimizer="adamw8bit")
    assert eight.learned == plain.learned // 2
    # What is only estimated leaves nothing behind that a later run would compute with.
    before = learn(StableDiffusion(tiny_pipeline()), METHOD, REX, {}, Plan(steps=2, batch=2))
    again = learn(StableDiffusion(tiny_pipeline()), METHOD, REX, {}, Plan(steps=2, batch=2))
    assert before.losses == again.losses
