"""The denoiser's pass as CUDA graphs teaches the same; without a GPU, what would be recorded is the same pass."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from stamina_diffusion import testing
from stamina_diffusion.backbones.diffusion.graphs import Replayed
from stamina_diffusion.backbones.diffusion.sdxl import SDXL
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.backbones.diffusion.text_to_image import TextToImage
from stamina_diffusion.errors import Notice, SettingsError
from stamina_diffusion.learn import Learned, learn
from stamina_diffusion.method import Method
from stamina_diffusion.methods.dreambooth import DreamBooth
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.plan import Plan
from stamina_diffusion.testing_pipelines import tiny_pipeline, tiny_sdxl

REX = testing.noise_concept("rex")
STAMINA = Stamina(rank=2, mask_rank=3, mask_bias=0.0, word_width=8)
PLAN = Plan(steps=3, batch=2, prior_images=0)
METHODS = {"stamina": STAMINA, "lora": LoRA(rank=2), "dreambooth": DreamBooth()}


@cache
def pristine(family: str) -> TextToImage:
    return StableDiffusion(tiny_pipeline()) if family == "sd" else SDXL(tiny_sdxl())


class Recorder:
    """Stands for the recording: on a CPU it keeps the function, and counts how often it is asked and replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Callable[..., Tensor], examples: tuple[Tensor, ...], **_: Any) -> Callable[..., Tensor]:
        self.recorded += 1
        asked = [one.requires_grad for one in examples]

        def replay(*inputs: Tensor) -> Tensor:
            assert [one.requires_grad for one in inputs] == asked
            self.replayed += 1
            return run(*inputs)

        return replay


def taught(backbone: TextToImage, method: Method, plan: Plan = PLAN) -> Learned:
    return learn(backbone, method, REX, {}, plan)


def recording(family: str = "sd") -> tuple[TextToImage, Recorder]:
    backbone, recorder = copy.deepcopy(pristine(family)), Recorder()
    backbone.replayed = Replayed(backbone.denoiser, recorder)
    return backbone, recorder


def assert_same(one: Learned, other: Learned) -> None:
    assert one.changes.keys() == other.changes.keys()
    for name, change in one.changes.items():
        torch.testing.assert_close(change, other.changes[name], rtol=1e-4, atol=1e-6)
    assert one.losses == pytest.approx(other.losses, rel=1e-5)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_recorded_once_teaches_the_same(family, method):
    backbone, recorder = recording(family)
    replayed = taught(backbone, METHODS[method])
    assert (recorder.recorded, recorder.replayed) == (1, 3)
    assert_same(replayed, taught(copy.deepcopy(pristine(family)), METHODS[method]))


def test_batches_that_add_up_to_a_step_do_not_share_their_gradients():
    # A graph writes each gradient into the memory of the last one; so does what stands for it here.
    backbone, _ = recording()

    class Same(torch.autograd.Function):
        held: Tensor | None = None

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            Same.held = gradient.clone() if Same.held is None else Same.held.copy_(gradient)
            return Same.held.detach()

    def record(run: Callable[..., Tensor], examples: tuple[Tensor, ...], **_: Any) -> Callable[..., Tensor]:
        last = max(k for k, one in enumerate(examples) if one.requires_grad)
        return lambda *inputs: run(*inputs[:last], Same.apply(inputs[last]), *inputs[last + 1 :])

    backbone.replayed = Replayed(backbone.denoiser, record)
    plan = Plan(steps=3, batch=2, accumulation=2, prior_images=0)
    assert_same(taught(backbone, DreamBooth(), plan), taught(copy.deepcopy(pristine("sd")), DreamBooth(), plan))


def test_another_batch_and_weights_elsewhere_are_recorded_anew():
    backbone, recorder = recording()
    taught(backbone, STAMINA)
    learn(backbone, STAMINA, testing.noise_concept("tom"), {}, PLAN)
    assert recorder.recorded == 1
    learn(backbone, STAMINA, testing.noise_concept("kim"), {}, Plan(steps=1, batch=3, prior_images=0))
    assert recorder.recorded == 2
    for parameter in backbone.denoiser.parameters():
        parameter.data = parameter.data.clone()
    learn(backbone, STAMINA, testing.noise_concept("ann"), {}, PLAN)
    assert recorder.recorded == 3


def test_recomputed_activations_are_not_recorded():
    backbone, recorder = recording()
    taught(backbone, STAMINA, Plan(steps=1, batch=2, prior_images=0, checkpointing=True))
    assert recorder.recorded == 0


def test_a_denoiser_that_cannot_be_recorded_learns_without():
    backbone, _ = recording()

    def record(*_: Any, **__: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    backbone.replayed = Replayed(backbone.denoiser, record)
    with pytest.warns(Notice, match="going on without graphs .*not permitted") as told:
        learned = taught(backbone, STAMINA)
    assert len(told) == 1
    assert_same(learned, taught(copy.deepcopy(pristine("sd")), STAMINA))


def test_the_variable_is_read_and_checked(monkeypatch):
    monkeypatch.setenv("STAMINA_GRAPHS", "1")
    backbone = StableDiffusion(tiny_pipeline())
    assert backbone.replayed.on
    if not torch.cuda.is_available():
        assert_same(taught(backbone, STAMINA), taught(copy.deepcopy(pristine("sd")), STAMINA))
    monkeypatch.setenv("STAMINA_GRAPHS", "yes")
    with pytest.raises(SettingsError, match="neither 0 nor 1"):
        StableDiffusion(tiny_pipeline())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are a GPU's")
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_learns_the_same_by_graphs(method):
    def by(record: Any) -> Learned:
        backbone = copy.deepcopy(pristine("sd")).to(torch.device("cuda"))
        backbone.replayed = Replayed(backbone.denoiser, record)
        return taught(backbone, METHODS[method])

    assert_same(by(torch.cuda.make_graphed_callables), by(None))
