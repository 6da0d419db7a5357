"""Stable Diffusion as a backbone: its noise and targets, latents, words, prompts, prior pictures and drawing."""

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stamina_diffusion import testing
from stamina_diffusion.backbones.diffusion import families
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.concepts import Concept
from stamina_diffusion.errors import (
    BaseModelError,
    NameTakenError,
    SettingsError,
    UnknownWordError,
    UnsafeNameError,
)
from stamina_diffusion.learn import learn
from stamina_diffusion.method import Scope
from stamina_diffusion.methods.fine_tune import FineTune
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.methods.textual_inversion import TextualInversion
from stamina_diffusion.plan import Plan

REX = testing.noise_concept("rex")
PLAN = Plan(steps=3, batch=2, prior_images=0)


@cache
def pristine(prediction_type) -> StableDiffusion:
    return StableDiffusion(testing.tiny_pipeline(prediction_type))


@pytest.fixture
def backbone() -> StableDiffusion:
    return copy.deepcopy(pristine("epsilon"))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def ids(backbone: StableDiffusion, text: str) -> list[int]:
    return backbone.pipeline.tokenizer(text, add_special_tokens=False).input_ids


# --------------------------------------------------------------------------------------------------- noise and targets


def remaining_signal(zero_snr: bool) -> Tensor:
    """ᾱ of every timestep, from the published formulas: β from √0.00085 to √0.012 in equal steps of its root.

    With a last step of pure noise √ᾱ is shifted so that it ends at 0 and scaled so that it begins as before
    (arXiv 2305.08891, algorithm 1).
    """
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    root = np.sqrt(np.cumprod(1 - betas))
    if zero_snr:
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return torch.from_numpy(root**2)


@pytest.mark.parametrize("timestep", [0, 1, 500, 998, 999])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_and_target_are_those_of_the_papers(prediction_type, timestep):
    draw = torch.Generator().manual_seed(timestep)
    latents, noise = torch.randn(2, 4, 4, 4, generator=draw), torch.randn(2, 4, 4, 4, generator=draw)
    noisy, target, _ = pristine(prediction_type).noised(latents, noise, torch.tensor([timestep, timestep]))
    signal = float(remaining_signal(prediction_type == "v_prediction")[timestep])
    a, s = signal**0.5, (1 - signal) ** 0.5
    torch.testing.assert_close(noisy, a * latents + s * noise, rtol=0, atol=2e-4)
    expected = noise if prediction_type == "epsilon" else a * noise - s * latents
    torch.testing.assert_close(target, expected, rtol=0, atol=2e-4)


def test_the_last_step_of_the_second_kind_is_pure_noise():
    latents, noise = torch.ones(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    noisy, target, _ = pristine("v_prediction").noised(latents, noise, torch.tensor([999]))
    assert torch.equal(noisy, noise)
    assert torch.equal(target, -latents)


def test_the_loss_is_the_mean_squared_error_of_the_plain_unet(backbone):
    method = LoRA()
    backbone.grow(REX, method, 0)
    (part,) = backbone.batch(backbone.material(REX, method, PLAN), PLAN, "some", "purpose")
    pipeline = backbone.pipeline
    with torch.no_grad():
        assert len(part.tokens["text_encoder"]) < len(part.noisy)  # each distinct prompt once
        text = pipeline.text_encoder(part.tokens["text_encoder"][part.rows]).last_hidden_state
        said = pipeline.unet(part.noisy, part.timesteps, encoder_hidden_states=text).sample
        assert float(backbone.loss([part])) == pytest.approx(float(((said - part.target) ** 2).mean()), rel=1e-5)


def test_a_batch_is_a_function_of_its_purpose_alone(backbone):
    backbone.grow(REX, LoRA(), 0)
    material = backbone.material(REX, LoRA(), PLAN)
    (first,) = backbone.batch(material, PLAN, 0, "rex", 7)
    torch.rand(5)
    (other,) = backbone.batch(material, PLAN, 0, "rex", 8)
    (again,) = backbone.batch(material, PLAN, 0, "rex", 7)
    assert torch.equal(first.noisy, again.noisy)
    assert torch.equal(first.timesteps, again.timesteps)
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.noisy, other.noisy)


def test_every_picture_comes_before_any_comes_twice_and_timesteps_cover_the_schedule(backbone):
    backbone.grow(REX, LoRA(), 0)
    material = backbone.material(REX, LoRA(), PLAN)
    (part,) = backbone.batch(material, Plan(batch=6, prior_images=0), "a")
    assert [int(step) // 167 for step in part.timesteps] == [0, 1, 2, 3, 4, 5]
    clean = material.own.latents
    signal = remaining_signal(False)[part.timesteps].float()[:, None, None, None]
    guessed = (part.noisy - (1 - signal).sqrt() * part.target) / signal.sqrt()
    nearest = [int((clean - one).square().sum((1, 2, 3)).argmin()) for one in guessed]
    assert sorted(nearest[:3]) == sorted(nearest[3:]) == [0, 1, 2]


# ------------------------------------------------------------------------------------------------------------- latents


def test_pictures_become_latents_as_the_pipeline_scales_them(backbone):
    vae = backbone.pipeline.vae
    inputs = torch.from_numpy(np.stack([pixels(image) for image in REX.images])).movedim(-1, 1) / 255 * 2 - 1
    with torch.no_grad():
        expected = vae.encode(inputs).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(backbone.encode(REX.images), expected)
    torch.testing.assert_close(backbone.encode(REX.images, batch=2), expected)
    # As the pipeline's own decoding undoes it.
    with torch.no_grad():
        decoded = vae.decode(backbone.encode(REX.images) / vae.config.scaling_factor).sample
        torch.testing.assert_close(decoded, vae.decode(vae.encode(inputs).latent_dist.mean).sample)


# --------------------------------------------------------------------------------------------------------------- words


def test_new_words_are_one_token_each_and_leave_every_old_row_bit_equal(backbone):
    table = backbone.tables[0].weight.detach().clone()
    for number, word in enumerate(["<rex>", "<rex2>", "<Rex>"]):
        sites = backbone.add_word(word, torch.full((16,), float(number)))
        place = len(table) + number
        assert {name: site.rows for name, site in sites.items()} == {f"token/{word}": (place, place + 1)}
        assert ids(backbone, f"photo of {word} dog")[-4:] == [place, *ids(backbone, "dog")]
    now = backbone.tables[0].weight
    assert torch.equal(now[: len(table)], table)
    assert now[len(table) :, 0].tolist() == [0, 1, 2]
    assert not now.requires_grad
    assert backbone.words == ["<rex>", "<rex2>", "<Rex>"]
    assert backbone.pipeline.text_encoder.config.vocab_size == len(table) + 3


def test_a_table_with_room_is_not_made_longer(backbone):
    length = len(backbone.tables[0].weight)
    backbone.pipeline.text_encoder.resize_token_embeddings(length + 5, mean_resizing=False)
    before = backbone.tables[0].weight.detach().clone()
    (site,) = backbone.add_word("<rex>", torch.ones(16)).values()
    place = length
    assert site.rows == (place, place + 1)
    assert backbone.tables[0].weight.shape == (length + 5, 16)
    assert torch.equal(backbone.tables[0].weight[place], torch.ones(16))
    others = [row for row in range(length + 5) if row != place]
    assert torch.equal(backbone.tables[0].weight[others], before[others])


def test_a_word_is_taken_once(backbone):
    backbone.add_word("<rex>", torch.ones(16))
    with pytest.raises(NameTakenError, match="<rex>"):
        backbone.add_word("<rex>", torch.zeros(16))
    assert float(backbone.tables[0].weight[-1, 0]) == 1


def test_a_word_may_start_at_the_mean_of_the_class_words_rows(backbone):
    expected = backbone.tables[0].weight[ids(backbone, "dog")].mean(0)
    backbone.grow(REX, FineTune(word_start="class"), 0)
    torch.testing.assert_close(backbone.tables[0].weight[-1], expected)
    with pytest.raises(SettingsError, match="no class word"):
        backbone.grow(Concept("tom", REX.images), FineTune(word_start="class"), 0)
    assert "<tom>" not in backbone.words


def test_a_word_that_starts_at_random_has_a_words_size(backbone):
    table = backbone.tables[0].weight
    sizes = table.norm(dim=1)
    backbone.grow(REX, LoRA(), 0)
    assert float(sizes.min()) < float(backbone.tables[0].weight[-1].norm()) < float(sizes.max())
    twin = copy.deepcopy(pristine("epsilon"))
    twin.grow(REX, LoRA(), 1)
    assert not torch.equal(twin.tables[0].weight[-1], backbone.tables[0].weight[-1])


@pytest.mark.parametrize("name", ["re x", "<rex>", "../rex", "", "9lives", "x" * 41])
def test_a_name_that_is_no_word_is_refused(name):
    with pytest.raises(UnsafeNameError):
        _ = Concept(name, REX.images).word


# --------------------------------------------------------------------------------------------------------------- sites


def test_the_sites_of_each_scope(backbone):
    backbone.grow(REX, LoRA(), 0)
    unet = {f"unet.{name}": parameter for name, parameter in backbone.pipeline.unet.named_parameters()}
    scopes: dict[Scope, set[str]] = {
        "tokens": set(),
        "cross-attention": {name for name in unet if "attn2.to_k" in name or "attn2.to_v" in name},
        "network": set(unet),
    }
    assert len(scopes["cross-attention"]) == 8
    for scope, names in scopes.items():
        sites = backbone.sites(REX, scope)
        assert set(sites) == {"token/<rex>", *names}
        assert sites["token/<rex>"].rows == (len(backbone.tables[0].weight) - 1, len(backbone.tables[0].weight))
        for name in names:
            assert sites[name].value.data_ptr() == unet[name].data_ptr()
            assert sites[name].role == "weight"


def test_activation_checkpointing_does_not_alter_what_is_learned(backbone):
    method = Stamina(rank=2, mask_rank=2, mask_bias=0.0, rate=0.01)
    twin = copy.deepcopy(backbone)
    twin.pipeline.unet.enable_gradient_checkpointing()
    plain, again = (learn(some, method, REX, {}, PLAN).changes for some in (backbone, twin))
    assert any(change.count_nonzero() > 0 for change in plain.values())
    for name, change in plain.items():
        torch.testing.assert_close(change, again[name], rtol=0, atol=1e-6)


def test_bf16_runs(backbone):
    learned = learn(backbone, Stamina(rank=2), REX, {}, Plan(steps=2, batch=2, prior_images=0, precision="bf16"))
    assert all(0 < loss < 10 for loss in learned.losses)
    assert {parameter.dtype for parameter in backbone.pipeline.unet.parameters()} == {torch.float32}


# --------------------------------------------------------------------------------------------- prompts and prior images


def test_prompts_hold_the_word_and_the_class_word_only_if_wanted():
    assert REX.prompts(("a photo of {}", "{} by the sea"), False) == [["a photo of <rex>", "<rex> by the sea"]] * 3
    assert REX.prompts(("a photo of {}",), True) == [["a photo of <rex> dog"]] * 3
    assert Concept("rex", REX.images).prompts(("a photo of {}",), True) == [["a photo of <rex>"]] * 3


def test_captions_hold_the_word_where_their_author_put_it_else_in_front():
    captions = ("<rex> asleep", "a sketch of [trigger]", "{} and a cat", "by the sea", None)
    concept = Concept("rex", testing.noise_pictures(5), captions, class_word="dog")
    assert concept.prompts(("a photo of {}",), False) == [
        ["<rex> asleep"],
        ["a sketch of <rex>"],
        ["<rex> and a cat"],
        ["a photo of <rex>, by the sea"],
        ["a photo of <rex>"],
    ]
    assert concept.prompts(("a photo of {}",), True)[0] == ["<rex> dog asleep"]


def test_a_concept_without_pictures_or_with_too_few_captions_is_refused():
    with pytest.raises(SettingsError, match="no pictures"):
        Concept("rex", ())
    with pytest.raises(SettingsError, match="2 captions for 3 pictures"):
        Concept("rex", REX.images, ("a", "b"))


def test_each_picture_is_shown_with_its_own_prompt(backbone):
    concept = Concept("rex", REX.images, ("<rex> one", None, "<rex> two"))
    backbone.grow(concept, LoRA(), 0)
    shown = backbone.material(concept, LoRA(), Plan(prompts=("a {}", "b {}"), prior_images=0)).own
    ids = shown.prompts["text_encoder"]
    shown_with = [[ids[row].tolist() for row in rows] for rows in shown.choices]
    expected = [["<rex> one"], ["a <rex>", "b <rex>"], ["<rex> two"]]
    assert shown_with == [backbone.tokenize(prompts)["text_encoder"].tolist() for prompts in expected]


@pytest.mark.parametrize(
    ("method", "class_word", "count", "wanted"),
    [
        (LoRA(), "dog", 3, True),
        (LoRA(prior=False), "dog", 3, False),
        (LoRA(), None, 3, False),
        (LoRA(), "dog", 0, False),
        (TextualInversion(), "dog", 3, False),
    ],
)
def test_prior_pictures_are_drawn_only_for_a_method_that_asks_and_a_class_word(
    backbone, method, class_word, count, wanted
):
    concept = Concept("rex", REX.images, class_word=class_word)
    backbone.grow(concept, method, 0)
    plan = Plan(batch=2, prior_images=count)
    material = backbone.material(concept, method, plan)
    parts = backbone.batch(material, plan, "a")
    assert len(parts) == (2 if wanted else 1)
    if wanted:
        assert material.prior.latents.shape == (count, 4, 4, 4)
        # The word must not be in the prior prompt: what the class looked like is to stay.
        place = backbone.pipeline.tokenizer.convert_tokens_to_ids("<rex>")
        assert place not in material.prior.prompts["text_encoder"]
        assert place in material.own.prompts["text_encoder"]


def test_prior_pictures_count_by_their_weight(backbone):
    backbone.grow(REX, LoRA(), 0)

    def parts(weight: float) -> list:
        plan = Plan(batch=2, prior_images=2, prior_weight=weight)
        return backbone.batch(backbone.material(REX, LoRA(), plan), plan, "a")

    with torch.no_grad():
        own, prior = (float(backbone.loss([part])) for part in parts(1.0))
        assert float(backbone.loss(parts(1.0))) == pytest.approx(own + prior, rel=1e-5)
        assert float(backbone.loss(parts(0.25))) == pytest.approx(own + prior / 4, rel=1e-5)


# ------------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_drawing_is_calling_the_plain_pipeline_with_the_same_generator(prediction_type):
    backbone = copy.deepcopy(pristine(prediction_type))
    learn(backbone, LoRA(rank=2, rate=0.05), REX, {}, PLAN)
    prompts = ["a photo of <rex>", "a dog", "<rex> and a cat"]
    drawn = backbone.draw(prompts, [4, 5, 6], steps=3, guidance=2.5)
    plain: Any = backbone.pipeline(
        prompts,
        num_inference_steps=3,
        guidance_scale=2.5,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in (4, 5, 6)],
    )
    assert [pixels(one).tolist() for one in drawn] == [pixels(one).tolist() for one in plain.images]
    assert drawn[0].size == (8, 8)


def test_a_picture_does_not_depend_on_those_drawn_with_it(backbone):
    together = backbone.draw(["a dog", "a cat", "a dog"], [1, 2, 3], steps=2)
    done: list[int] = []
    in_two = backbone.draw(["a dog", "a cat", "a dog"], [1, 2, 3], steps=2, batch=2, watch=done.append)
    alone = backbone.draw(["a dog"], [3], steps=2)
    assert done == [2, 3]
    for one, other in ((together[0], in_two[0]), (together[2], in_two[2]), (together[2], alone[0])):
        assert np.abs(pixels(one).astype(int) - pixels(other).astype(int)).max() <= 1
    assert pixels(together[0]).tolist() != pixels(together[2]).tolist()


def test_an_unknown_word_is_answered_with_the_nearest(backbone):
    with pytest.raises(UnknownWordError, match=r"unknown word <rex>(.|\n)*Nothing has been learned yet"):
        backbone.draw(["<rex>"], [0])
    backbone.add_word("<rex>", torch.ones(16))
    backbone.add_word("<tower>", torch.ones(16))
    with pytest.raises(UnknownWordError, match=r"unknown word <towre>(.|\n)*Did you mean <tower>\?"):
        backbone.draw(["a photo of <rex>", "<towre> by the sea"], [0, 1])


def test_a_saved_and_loaded_pipeline_draws_the_same(backbone, tmp_path):
    learn(backbone, Stamina(rank=2, rate=0.05), REX, {}, PLAN)
    backbone.pipeline.save_pretrained(tmp_path)
    again = families.load(tmp_path)
    assert again.words == ["<rex>"]
    before, after = (some.draw(["a photo of <rex>"], [3], steps=2)[0] for some in (backbone, again))
    assert pixels(before).tolist() == pixels(after).tolist()


# ------------------------------------------------------------------------------------------------------------ families


def test_a_pipeline_of_another_family_is_refused():
    with pytest.raises(BaseModelError, match=r"somewhere: is a Tensor, not Stable Diffusion 1\.x or 2\.x"):
        StableDiffusion.check(torch.zeros(1), "somewhere")


def test_an_inpainting_model_is_refused(backbone):
    backbone.pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(BaseModelError, match="inpainting"):
        StableDiffusion(backbone.pipeline)


def test_a_model_that_predicts_the_picture_itself_is_refused(backbone):
    backbone.pipeline.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(BaseModelError, match="predicts 'sample'"):
        StableDiffusion(backbone.pipeline)
