"""Each family of models from end to end, on tiny pipelines with random weights: what differs between them is right."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import httpx
import huggingface_hub
import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

from stamina_diffusion import bases, measure, testing
from stamina_diffusion.backbones.diffusion import families
from stamina_diffusion.backbones.diffusion.flux import Flux
from stamina_diffusion.backbones.diffusion.sd3 import SD3
from stamina_diffusion.backbones.diffusion.sdxl import SDXL
from stamina_diffusion.backbones.diffusion.stable_diffusion import StableDiffusion
from stamina_diffusion.backbones.diffusion.text_to_image import TextToImage
from stamina_diffusion.errors import BaseModelError, NameTakenError
from stamina_diffusion.exports import export
from stamina_diffusion.learn import learn
from stamina_diffusion.methods.fine_tune import FineTune
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.photos import Photo, collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.settings import draw_settings, preset_for
from stamina_diffusion.studio import Studio
from stamina_diffusion.testing_pipelines import (
    LENGTH,
    SD3_MEDIUM_SIZE,
    SD35_LARGE_SIZE,
    SDXL_SIZE,
    TINY,
    tiny_flux,
    tiny_sd3,
)

CLASSES: dict[str, Any] = {"Stable Diffusion": StableDiffusion, "SDXL": SDXL, "SD3": SD3, "FLUX": Flux}
NEW = ("SDXL", "SD3", "FLUX")
REX = testing.noise_concept("rex")
PLAN = Plan(steps=3, batch=2, prior_images=0)
PROMPTS = ["a photo of a dog", "the sea"]


@cache
def pristine(family: str) -> TextToImage:
    return CLASSES[family](TINY[family]())


@pytest.fixture
def backbone(request: pytest.FixtureRequest) -> TextToImage:
    return copy.deepcopy(pristine(request.param))


@cache
def saved(family: str, root: Path) -> Path:
    folder = root / family.replace(" ", "-")
    TINY[family]().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the family on disk; not to be written to."""
    return saved(request.param, tmp_path_factory.getbasetemp())


every_family = pytest.mark.parametrize("backbone", CLASSES, indirect=True)
every_new_family = pytest.mark.parametrize("backbone", NEW, indirect=True)
every_folder = pytest.mark.parametrize("folder", CLASSES, indirect=True)


@every_folder
def test_where_no_preset_is_named_it_is_that_of_the_family(folder, request):
    wanted = {
        "Stable Diffusion": ("paper", 6.0, 50),
        "SDXL": ("sdxl", 5.0, 50),
        "SD3": ("sd3", 4.5, 28),
        "FLUX": ("flux", 3.5, 28),
    }
    record = bases.find(str(folder)).record()
    draw = draw_settings(preset_for(record))
    assert (preset_for(record), draw.guidance, draw.steps) == wanted[request.node.callspec.params["folder"]]
    # Where the base is gone, whoever loads it says so; the preset is then the same for all.
    assert preset_for(record | {"source": str(folder / "gone")}) == "paper"


# ---------------------------------------------------------------------------------------------------------------- text


@every_family
@torch.no_grad()
def test_learning_reads_a_prompt_as_the_plain_pipeline_does(backbone):
    text = backbone.text_states(backbone.tokenize(PROMPTS))
    pipeline = backbone.pipeline
    if isinstance(backbone, SD3):
        states, _, pooled, _ = pipeline.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)
    elif isinstance(backbone, Flux):
        states, pooled, _ = pipeline.encode_prompt(PROMPTS)
    elif isinstance(backbone, SDXL):
        states, _, pooled, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    else:
        states, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)
        pooled = None
    assert torch.equal(text["states"], states)
    if pooled is None:
        assert set(text) == {"states"}
    else:
        assert torch.equal(text["pooled"], pooled)


@every_family
@torch.no_grad()
def test_learning_asks_the_denoiser_what_drawing_asks_it(backbone):
    """Sizes, summaries, places, packing, times and guidance: the answer to a step of the plain pipeline is the same."""
    heard: list[tuple[Any, ...]] = []

    def hear(module, args, kwargs, answer):
        asked = {"noisy": kwargs.get("hidden_states"), "time": kwargs.get("timestep"), **kwargs}
        if args:
            asked |= {"noisy": args[0], "time": args[1]}
        heard.append((asked["noisy"].clone(), torch.as_tensor(asked["time"]).clone(), answer[0].clone()))

    backbone.denoiser.register_forward_hook(hear, with_kwargs=True)
    backbone.draw(["the sea"], [3], steps=2, guidance=1.0)
    noisy, time, said = heard[1]
    if isinstance(backbone, Flux):
        time = time * 1000
        noisy, said = (backbone.pipeline._unpack_latents(some, 8, 8, 2) for some in (noisy, said))
    text = backbone.text_states(backbone.tokenize(["the sea"]))
    torch.testing.assert_close(backbone.predict(noisy, time.reshape(1), text), said, rtol=1e-5, atol=1e-5)


@every_family
@torch.no_grad()
def test_a_word_with_the_row_of_a_letter_reads_like_that_letter(backbone):
    """Also in the summary: it is taken where the prompt ends, not where the highest token stands."""
    rows = [
        table.weight[tokenizer.convert_tokens_to_ids("x</w>")].clone()
        for table, tokenizer in zip(backbone.tables, backbone.tokenizers, strict=True)
    ]
    before = backbone.text_states(backbone.tokenize(["by x sea"]))
    backbone.add_word("<rex>", *rows)
    after = backbone.text_states(backbone.tokenize(["by <rex> sea"]))
    unchanged = backbone.text_states(backbone.tokenize(["by x sea"]))
    if not isinstance(backbone, Flux):  # its states are all T5's
        assert torch.equal(before["states"][:, :LENGTH], after["states"][:, :LENGTH])
    for name, value in before.items():
        assert torch.equal(value, unchanged[name])
        assert name == "states" or torch.equal(value, after[name])


@pytest.mark.parametrize("backbone", ["SD3", "FLUX"], indirect=True)
@torch.no_grad()
def test_t5_reads_the_spelling_of_a_word_and_learns_nothing(backbone):
    encoder = backbone.pipeline.text_encoder_3 if isinstance(backbone, SD3) else backbone.pipeline.text_encoder_2
    parameters = {name: value.clone() for name, value in encoder.state_dict().items()}
    for concept in (REX, testing.noise_concept("tom")):
        backbone.grow(concept, LoRA(), 0)
    rex, tom = backbone.tokenize(["a photo of <rex>", "a photo of <tom>"])["t5"]
    assert not torch.equal(rex, tom)
    assert not any("t5" in name or module is encoder for name, module in backbone.modules.items())
    assert all(torch.equal(value, parameters[name]) for name, value in encoder.state_dict().items())


def test_a_pipeline_without_t5_learns_from_what_it_has():
    backbone = SD3(tiny_sd3(t5=False))
    testing.moves_only_its_own(lambda: copy.deepcopy(backbone), LoRA(rank=2))
    text = backbone.text_states(backbone.tokenize(["the sea"]))
    assert text["states"][:, LENGTH:].count_nonzero() == 0


# --------------------------------------------------------------------------------------------------------------- sites


@every_new_family
def test_a_word_has_a_row_in_each_clip_and_all_or_nothing(backbone):
    tables = [table.weight.detach().clone() for table in backbone.tables]
    numbers = ["token/<rex>", "token_2/<rex>"][: len(tables)]
    rows = [torch.full((table.shape[1],), float(place)) for place, table in enumerate(tables)]
    sites = backbone.add_word("<rex>", *rows)
    assert list(sites) == numbers
    for site, table, grown, row in zip(sites.values(), tables, backbone.tables, rows, strict=True):
        assert site.module is grown
        assert torch.equal(site.value[0], row)
        assert torch.equal(grown.weight[: len(table)], table)
        assert len(grown.weight) == len(table) + 1
    backbone.tokenizers[-1].add_tokens("<tom>")
    with pytest.raises(NameTakenError, match="<tom>"):
        backbone.add_word("<tom>", *rows)
    assert backbone.words == (["<rex>"] if len(tables) > 1 else ["<rex>", "<tom>"])


@pytest.mark.parametrize(
    ("family", "count", "example"),
    [
        ("SDXL", 16, "unet.mid_block.attentions.0.transformer_blocks.1.attn2.to_k.weight"),
        ("SD3", 4, "transformer.transformer_blocks.1.attn.add_v_proj.weight"),
        ("FLUX", 4, "transformer.transformer_blocks.0.attn.add_k_proj.weight"),
    ],
)
def test_the_keys_and_values_of_the_text_are_the_sites(family, count, example):
    sites = pristine(family).weight_sites("cross-attention")
    assert len(sites) == count
    assert example in sites
    assert not [name for name in sites if "single" in name or "bias" in name or "attn1" in name]
    assert {site.shape[1] for site in sites.values()} == {{"SDXL": 40, "SD3": 16, "FLUX": 16}[family]}


@pytest.mark.parametrize(
    ("family", "network", "config", "millions", "shapes"),
    [
        (SDXL, UNet2DConditionModel, SDXL_SIZE, 2567, {(640, 2048): 20, (1280, 2048): 120}),
        (SD3, SD3Transformer2DModel, SD3_MEDIUM_SIZE, 2028, {(1536, 1536): 48}),
        (SD3, SD3Transformer2DModel, SD35_LARGE_SIZE, 8057, {(2432, 2432): 76}),
        (Flux, FluxTransformer2DModel, {"guidance_embeds": True}, 11901, {(3072, 3072): 38}),
    ],
    ids=["SDXL", "SD3 medium", "SD3.5 large", "FLUX.1-dev"],
)
def test_at_real_size_the_sites_are_those_of_the_published_models(family, network, config, millions, shapes):
    with torch.device("meta"):
        denoiser = network(**config)
    backbone = family.__new__(family)
    backbone.pipeline = SimpleNamespace(**{family.denoiser_name: denoiser})
    found = [tuple(site.shape) for site in backbone.weight_sites("cross-attention").values()]
    assert {shape: found.count(shape) for shape in set(found)} == shapes
    assert round(sum(parameter.numel() for parameter in denoiser.parameters()) / 1e6) == millions


# ------------------------------------------------------------------------------------------------------- flow matching


@pytest.mark.parametrize("backbone", ["SD3", "FLUX"], indirect=True)
def test_noise_is_mixed_in_along_a_straight_line(backbone):
    latents, noise = torch.randn(2, 3, 4, 4, 4).unbind()
    noisy, target, _ = backbone.noised(latents, noise, torch.tensor([0.0, 250.0, 1000.0]))
    assert torch.equal(noisy[0], latents[0])
    torch.testing.assert_close(noisy[1], 0.75 * latents[1] + 0.25 * noise[1])
    assert torch.equal(noisy[2], noise[2])
    # To go along the direction for the time that is left is to arrive at the noise.
    torch.testing.assert_close(noisy[1] + 0.75 * target[1], noise[1])


def test_times_are_logit_normal_and_shifted_as_the_schedule_says():
    latents = torch.zeros(1, 4, 4, 4)
    shares = torch.tensor([0.0, 0.15865525, 0.5, 0.84134475, 1.0])  # −1, 0 and 1 standard deviations
    plain = torch.sigmoid(torch.tensor([-1.0, 0.0, 1.0]))
    schnell = Flux(tiny_flux(guidance=False)).times(shares, latents)
    torch.testing.assert_close(schnell[1:4], 1000 * plain, rtol=1e-5, atol=0)
    assert 0 < float(schnell[0]) < float(schnell[4]) < 1000
    sd3 = pristine("SD3").times(shares, latents)
    torch.testing.assert_close(sd3[1:4], 1000 * 3 * plain / (1 + 2 * plain), rtol=1e-5, atol=0)
    # FLUX.1-dev: e^μ / (e^μ + 1/t − 1), μ on the line through (256 places, 0.5) and (4096, 1.15); 4 places here.
    shift = torch.exp(torch.tensor(0.5 + (4 - 256) * (1.15 - 0.5) / (4096 - 256)))
    dev = pristine("FLUX").times(shares, latents)
    torch.testing.assert_close(dev[1:4], 1000 * shift / (shift + 1 / plain - 1), rtol=1e-5, atol=0)


def test_a_model_that_takes_guidance_is_told_none_while_it_learns():
    told: list[Any] = []
    for guided in (True, False):
        backbone = Flux(tiny_flux(guidance=guided))
        backbone.denoiser.register_forward_pre_hook(
            lambda module, args, kwargs: told.append(kwargs["guidance"]), with_kwargs=True
        )
        backbone.grow(REX, LoRA(), 0)
        backbone.loss(backbone.batch(backbone.material(REX, LoRA(), PLAN), PLAN, "a"))
    assert told[0].tolist() == [1.0, 1.0]
    assert told[1] is None


# ---------------------------------------------------------------------------------------------------------------- laws


ABOUT_THE_NETWORK = (
    testing.starts_unchanged,
    testing.moves_only_its_own,
    testing.folds_exactly,
    testing.costs_nothing_after,
    testing.repeats,
    testing.old_words_stay,
)
"""The other laws speak of the method alone, and stand in test_laws.py."""


@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize("law", ABOUT_THE_NETWORK, ids=lambda law: law.__name__)
def test_law(law, family):
    law(lambda: copy.deepcopy(pristine(family)), Stamina(rank=2, mask_rank=3, mask_bias=0.0, word_width=8))


# Not SD3: its last block makes queries of the text whose answers nobody reads, so they can never move.
@pytest.mark.parametrize("family", ["SDXL", "FLUX"])
def test_the_whole_network_can_be_fine_tuned_from_the_class_word(family):
    method = FineTune(weights="network", word_start="class", class_word=True, rate=1e-3)
    testing.moves_only_its_own(lambda: copy.deepcopy(pristine(family)), method)


@pytest.mark.parametrize("family", CLASSES)
def test_a_model_in_fewer_bits_learns_draws_and_is_measured(family):
    """As a preset for a small GPU has it: every way through the networks must compute in their precision."""
    backbone = copy.deepcopy(pristine(family)).store("float8")
    plan = Plan(steps=1, batch=1, precision="bf16", storage="float8", prior_images=1)
    learned = learn(backbone, Stamina(rank=2), REX, {}, plan)
    assert learned.losses[0] > 0
    (picture,) = backbone.draw(["a photo of <rex>"], [0], steps=1)
    assert 0 < measure.held_out_loss(backbone, "a photo of <rex>", [picture]) < 100
    tables = [table.weight.dtype for table in backbone.tables]
    assert tables == [torch.float32] * len(tables)
    assert all(any(p.dtype == torch.bfloat16 for p in encoder.parameters()) for encoder in backbone.encoders)


# ---------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Photo, ...]:
    folder = tmp_path_factory.mktemp("photos")
    for k in range(3):
        Image.effect_noise((20, 24), 60 + 40 * k).convert("RGB").save(folder / f"{k}.png")
    return collect(folder, resolution=16)


@pytest.mark.parametrize("folder", NEW, indirect=True)
def test_two_concepts_are_learned_folded_drawn_exported_and_drawn_again_by_plain_diffusers(folder, photos, tmp_path):
    studio = Studio.create(tmp_path / "studio", str(folder))
    prior = Plan(steps=3, batch=2, prior_images=2)
    studio.learn(photos, "rex", method=Stamina(rank=2, rate=0.05, word_rate=0.05), plan=prior, class_word="dog")
    before = [table.weight.detach().clone() for table in studio.backbone().tables]
    studio.learn(photos, "tom", method=Stamina(rank=2, rate=0.05, word_rate=0.05), plan=PLAN)
    live = studio.backbone()
    for table, rows in zip(live.tables, before, strict=True):
        assert torch.equal(table.weight[: len(rows)], rows)
        assert len(table.weight) == len(rows) + 1

    change = load_file(studio.concept_folder(studio.entries[1]) / "change.safetensors")
    starts = {"start", "start_2"} if len(live.tables) == 2 else {"start"}
    assert {name for name in change if name.startswith("start")} == starts
    assert any(bool(value.any()) for name, value in change.items() if name.endswith("_proj.weight") or "attn2" in name)

    rebuilt = Studio.open(studio.folder).backbone()
    assert rebuilt.words == ["<rex>", "<tom>"]
    for one, other in zip(live.modules.values(), rebuilt.modules.values(), strict=True):
        other_state = other.state_dict()
        assert all(torch.equal(value, other_state[name]) for name, value in one.state_dict().items())

    prompt = "a photo of <rex> and <tom>"
    (ours,) = live.draw([prompt], [7], steps=2, guidance=2.0)
    out = export(studio, "diffusers", tmp_path / "out")
    plain = getattr(diffusers, json.loads((out / "model_index.json").read_text())["_class_name"]).from_pretrained(out)
    plain.set_progress_bar_config(disable=True)
    draw = {"num_inference_steps": 2, "guidance_scale": 2.0, "height": 8, "width": 8}
    theirs = plain(prompt, generator=torch.Generator("cpu").manual_seed(7), **draw).images[0]
    assert theirs.tobytes() == ours.tobytes()
    assert type(plain).__name__ in (out / "README.md").read_text()


# ------------------------------------------------------------------------------------------------- folders and the hub


@every_folder
def test_a_folder_says_which_family_it_is_of(folder):
    bases.check_folder(folder)
    expected = CLASSES[folder.name.replace("-", " ")]
    assert families.backbone_class(families.recognise(folder)) is expected
    assert isinstance(families.load(folder), expected)


def edited(folder: Path, copy_to: Path, file: str, **fields: Any) -> Path:
    """A copy of a pipeline folder with other values in one JSON file."""
    import shutil

    shutil.copytree(folder, copy_to)
    path = copy_to / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return copy_to


@pytest.mark.parametrize("folder", ["Stable Diffusion"], indirect=True)
def test_an_unknown_family_is_told_which_are_known(folder, tmp_path):
    strange = edited(folder, tmp_path / "strange", "model_index.json", _class_name="SanaPipeline")
    with pytest.raises(BaseModelError, match=r"is a SanaPipeline\n.*1\.x and 2\.x.*XL.*3 and 3\.5.*FLUX\.1"):
        bases.find(str(strange))


def _without_first_weight(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, {"format": "pt"})


def _without_words(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    words = json.loads(path.read_text())
    words["model"] |= {"vocab": {}, "merges": []}
    path.write_text(json.dumps(words))


def _too_deep(folder: Path) -> None:
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 10**9}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_first_weight, "unet.*lacks 1 of its weights"),
        (_without_words, "tokenizer.*knows . words, and its text encoder has"),
        (_too_deep, "text_encoder.*has 1000000000 as num_hidden_layers"),
    ],
)
def test_a_base_that_cannot_work_is_refused_when_it_is_loaded(tmp_path, spoil, message):
    testing.tiny_pipeline().save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(BaseModelError, match=message):
        families.load(tmp_path)


@pytest.mark.parametrize("folder", ["FLUX"], indirect=True)
def test_quantised_weights_are_refused_with_what_to_take_instead(folder, tmp_path):
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    quantised = edited(folder, tmp_path / "nf4", "transformer/config.json", quantization_config=config)
    with pytest.raises(BaseModelError, match=r"is quantised \(bitsandbytes\)\n.*bfloat16"):
        bases.find(str(quantised))
    eight_bits = edited(folder, tmp_path / "fp8", "model_index.json")
    (weights,) = (eight_bits / "transformer").glob("*.safetensors")
    save_file({name: value.to(torch.float8_e4m3fn) for name, value in load_file(weights).items()}, weights)
    with pytest.raises(BaseModelError, match=r"has weights in F8_E4M3\n.*bfloat16"):
        bases.find(str(eight_bits))


@pytest.mark.parametrize("folder", ["SD3"], indirect=True)
def test_networks_that_the_index_promises_must_be_there(folder, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    shutil.rmtree(broken / "text_encoder_3")
    with pytest.raises(BaseModelError, match=r"has no text_encoder_3/config\.json"):
        bases.find(str(broken))
    index = broken / "model_index.json"
    described = json.loads(index.read_text())
    index.write_text(json.dumps(described | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}))
    bases.check_folder(broken)


@pytest.mark.parametrize("backbone", ["SDXL", "SD3", "FLUX"], indirect=True)
def test_a_denoiser_that_takes_more_than_latents_is_refused(backbone):
    backbone.denoiser.register_to_config(in_channels=backbone.denoiser.config.in_channels + 5)
    with pytest.raises(BaseModelError, match="inpainting or editing"):
        type(backbone)(backbone.pipeline)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's client as HF_HUB_OFFLINE sets it, with a cache of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("folder", ["SDXL"], indirect=True)
def test_a_hub_model_is_found_in_the_cache_when_offline_at_its_revision(folder, offline):
    import shutil

    commit = "0123456789abcdef0123456789abcdef01234567"
    model = offline / "models--someone--tiny-sdxl"
    shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    found = bases.find("someone/tiny-sdxl")
    assert (found.kind, found.revision) == ("hub", commit)
    assert found.folder() == model / "snapshots" / commit
    with pytest.raises(BaseModelError, match="not on this machine"):
        bases.find("someone/tiny-sdxl", revision="v2")


def test_a_hub_model_that_is_not_in_the_cache_cannot_be_had_offline(offline):
    with pytest.raises(
        BaseModelError, match=r"someone/else: is not on this machine, and HF_HUB_OFFLINE is set\nGo onl"
    ):
        bases.find("someone/else")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (huggingface_hub.errors.GatedRepoError, r"is gated(.|\n)*hf auth login"),
        (huggingface_hub.errors.RepositoryNotFoundError, "is not on the hub, or is private"),
        (huggingface_hub.errors.RevisionNotFoundError, "has no revision 'v9'"),
        (huggingface_hub.errors.RemoteEntryNotFoundError, "is no diffusers pipeline"),
    ],
)
def test_what_the_hub_answers_is_explained(error, message, monkeypatch):
    """The answers are the client's own kinds of error; no test goes online."""
    request = httpx.Request("GET", "https://hub.invalid")

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise error("refused", response=httpx.Response(403, request=request))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(BaseModelError, match=message):
        bases.find("someone/model", revision="v9")
