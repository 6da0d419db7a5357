"""The embedded base: small enough to ship, loaded by plain diffusers, made by a resumable recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from stamina_diffusion import embedded, files
from stamina_diffusion.embedded.encoder import EmbeddedEncoder, factors, to_tensor
from stamina_diffusion.embedded.recipe import autoencoder, card, data, judge, loop, pack, pair, run
from stamina_diffusion.errors import SettingsError
from stamina_diffusion.world import WorldConcept

PARTS = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")
SMALL = {
    "identities": 4,
    "views": 2,
    "captions": 2,
    "pair_steps": 3,
    "pair_batch": 4,
    "encoder_steps": 2,
    "decoder_steps": 3,
    "decoder_batch": 2,
    "autoencoder_width": 8,
    "decoder_blocks": (1, 1, 1),
    "denoiser_channels": (16, 32),
    "denoiser_steps": 4,
    "denoiser_batches": ((0, 2),),
}


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(embedded.folder())
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> data.BasePool:
    return data.render(tmp_path_factory.mktemp("data"), run.recipe_with(**SMALL), processes=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe from nothing, as small as it can be."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    verdict = run.main(folder, run.recipe_with(**SMALL), captions=2)
    assert 0 <= verdict.generated <= 1
    return folder


def test_the_base_takes_at_most_20_mb_and_the_classifiers_vit_8_and_none_is_a_pickle() -> None:
    shipped = [path for path in embedded.WEIGHTS.rglob("*") if path.is_file()]
    of_vit = [path for path in shipped if path.is_relative_to(embedded.WEIGHTS / "vit")]
    assert sum(path.stat().st_size for path in of_vit) <= 8_000_000
    assert sum(path.stat().st_size for path in shipped if path not in of_vit) <= 20_000_000
    assert {path.suffix for path in shipped} <= {".safetensors", ".json", ".md", ".png", ".jpg", ".txt"}


def test_plain_diffusers_loads_and_draws_it(pipeline: StableDiffusionPipeline) -> None:
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == pipeline.vae.dtype == torch.float32
    generator = torch.Generator("cpu").manual_seed(0)
    picture = pipeline("a photo of a castle", num_inference_steps=3, generator=generator).images[0]
    assert picture.size == (64, 64)


def test_any_text_has_tokens_and_words_of_the_world_have_one(pipeline: StableDiffusionPipeline) -> None:
    tokenizer = pipeline.tokenizer
    assert tokenizer.tokenize("castle") == ["castle</w>"]
    ids = tokenizer("Überraschung 東京 🐕").input_ids
    assert len(ids) > 5
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_pictures_come_back_from_their_latents(pipeline: StableDiffusionPipeline) -> None:
    pictures = [WorldConcept(family, "tuning", 3).view(v).render() for family in ("faces", "landmarks") for v in (0, 1)]
    images = to_tensor(pictures) * 2 - 1
    with torch.no_grad():
        again = pipeline.vae.decode(pipeline.vae.encode(images).latents).sample.clamp(-1, 1)
    decibel = 10 * torch.log10(4 / (again - images).square().mean())
    assert decibel > 27


def test_the_encoder_tells_views_of_one_concept_from_others() -> None:
    encoder = embedded.load_encoder()
    concepts = [WorldConcept(family, "tuning", i) for family in ("faces", "landmarks") for i in range(20, 30)]
    with torch.no_grad():
        first = encoder(to_tensor([concept.view(0).render() for concept in concepts]))
        second = encoder(to_tensor([concept.view(1).render() for concept in concepts]))
    right = ((first @ second.T).argmax(1) == torch.arange(len(concepts))).float().mean()
    assert right >= 0.6, "chance is 0.05"


def test_the_card_and_the_verdict_belong_to_the_shipped_files() -> None:
    verdict = json.loads((embedded.WEIGHTS / "verdict.json").read_text())
    assert verdict["captions"] == 200
    assert verdict["samples"] == 4
    assert verdict["ratio"] == pytest.approx(verdict["generated"] / verdict["true_renders"])
    assert f"{verdict['ratio']:.1%}" in (embedded.WEIGHTS / "README.md").read_text()


def test_the_encoder_of_the_autoencoder_is_the_principal_components(pool: data.BasePool) -> None:
    model = autoencoder.build(run.recipe_with(**SMALL), pool)
    images = autoencoder.pictures_of(pool, torch.arange(8))
    mean, axes = autoencoder.components(autoencoder.pictures_of(pool, torch.arange(16)), 12)
    autoencoder.write_components(model, mean, axes)
    blocks = F.pixel_unshuffle((images + 1) / 2, 4).permute(0, 2, 3, 1)
    expected = ((blocks - mean) @ axes.T).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(model.encode(images).latents, expected, atol=1e-4, rtol=0)


def test_grades_are_where_the_heads_look_for_them() -> None:
    view = WorldConcept("faces", "base", 0).view(0)
    row = data.grade_row(view)
    for place, (name, values) in enumerate(factors().items()):
        family, factor = name.split("/", 1)
        assert row[place] == (values.index(view.attributes[factor]) if family == "faces" else -1)


def test_a_caption_that_is_judged_says_what_it_is_judged_by() -> None:
    for _, caption, named in judge.held_out(30):
        for grade in named.values():
            assert set(grade.split()) <= set(caption.replace(",", " ").split())


def test_the_recipe_runs_from_nothing_and_resumes_to_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = run.recipe_with(**SMALL)
    monkeypatch.setattr("stamina_diffusion.embedded.recipe.loop.CHECKPOINT_SECONDS", 0.0)
    real = pair.augment
    calls = 0

    def stop_once(*arguments: object, **options: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pair, "augment", stop_once)
    with pytest.raises(KeyboardInterrupt):
        run.main(tmp_path / "stopped", recipe, captions=2)
    run.main(tmp_path / "stopped", recipe, captions=2)
    for file in ("encoder.safetensors", "pipeline/unet/diffusion_pytorch_model.safetensors"):
        assert files.sha256(made / "weights" / file) == files.sha256(tmp_path / "stopped/weights" / file)
    told = (made / "weights/README.md").read_text()
    assert "| denoiser | 4 |" in told
    assert isinstance(EmbeddedEncoder.load(made / "weights/encoder.safetensors"), EmbeddedEncoder)


def test_a_pools_tokens_are_those_of_the_tokenizer(pool: data.BasePool, tmp_path: Path) -> None:
    recipe = run.recipe_with(**SMALL | {"text_length": 16})  # some captions are longer
    tokenizer = data.tokenizer_of(tmp_path, pool, recipe)
    found = data.tokens_of(tmp_path, pool, tokenizer, recipe)
    assert found.dtype == torch.int16
    for row, captions in zip(found, pool.captions, strict=True):
        assert torch.equal(row.long(), data.tokenize(tokenizer, captions, 16))


def test_pictures_of_another_recipe_are_not_taken_for_ones_own(made: Path) -> None:
    with pytest.raises(SettingsError, match="rendered by a recipe of other numbers"):
        data.render(made / "data", run.recipe_with(**SMALL | {"views": 1}), processes=1)


def test_stages_run_in_any_process_and_make_the_same_base(made: Path, tmp_path: Path) -> None:
    recipe = run.recipe_with(**SMALL)
    shutil.copytree(made / "data", tmp_path / "data")
    with pytest.raises(SettingsError, match="stage pair is not finished"):
        run.stage(tmp_path, recipe, "denoiser")
    for name in ("autoencoder", "data", "pair", "encoder", "denoiser"):
        run.stage(tmp_path, recipe, name)
    run.main(tmp_path, recipe, captions=2)
    for file in ("encoder.safetensors", *(f"pipeline/{part}.safetensors" for part in PARTS)):
        assert files.sha256(made / "weights" / file) == files.sha256(tmp_path / "weights" / file)


def test_the_denoiser_goes_on_from_packed_weights_and_leaves_the_other_parts(made: Path, tmp_path: Path) -> None:
    first = made / "weights"
    shutil.copytree(made / "data", tmp_path / "second" / "data")
    run.main(tmp_path / "second", run.recipe_with(**SMALL | {"seed": 1}), captions=2, start=first)
    second = tmp_path / "second" / "weights"
    for file in ("encoder.safetensors", "pipeline/text_encoder/model.safetensors"):
        assert files.sha256(first / file) == files.sha256(second / file)
    unet = "pipeline/unet/diffusion_pytorch_model.safetensors"
    before, after = load_file(first / unet), load_file(second / unet)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert max(float((before[name].float() - after[name].float()).abs().max()) for name in before) < 0.05
    told = (second / "README.md").read_text()
    assert told.count("```json") == 2
    assert "| denoiser | 4 |" in told.split("## Before that")[1]


def test_the_encoder_goes_on_from_packed_weights_and_leaves_the_other_parts(made: Path, tmp_path: Path) -> None:
    first, second = made / "weights", tmp_path / "second" / "weights"
    shutil.copytree(made / "data", tmp_path / "second" / "data")
    recipe = run.recipe_with(**SMALL | {"encoder_rate": 1e-3, "encoder_decay": 1.0})
    run.main(tmp_path / "second", recipe, captions=2, start=first, part="encoder")
    for part in PARTS:
        assert files.sha256(first / f"pipeline/{part}.safetensors") == files.sha256(
            second / f"pipeline/{part}.safetensors"
        )
    before, after = (load_file(folder / "encoder.safetensors") for folder in (first, second))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(before["text_projection.weight"], after["text_projection.weight"])
    told = (second / "README.md").read_text()
    assert "Only the encoder was trained" in told
    assert "| encoder | 2 |" in told


def test_an_identity_head_begins_at_the_mean_features(made: Path, pool: data.BasePool) -> None:
    pipeline, encoder = pack.unpack(made / "weights")
    recipe = run.recipe_with(**SMALL)
    found = pair.from_packed(recipe, pool, pipeline.tokenizer, pipeline.text_encoder, encoder).identity_head
    with torch.no_grad():
        seen = encoder(torch.from_numpy(pool.pictures[pool.identities == 3]).permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(found[3].detach(), F.normalize(seen.sum(0), dim=0), atol=1e-5, rtol=0)


def test_weights_that_are_judged_again_keep_the_story_of_their_making(made: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(made / "weights", weights)
    before = (weights / "README.md").read_text()
    verdict, shown = judge.judge(*pack.unpack(weights), captions=4, steps=2)
    card.judged_again(weights, verdict, shown)
    after = (weights / "README.md").read_text()
    assert "4 captions of concepts" in after
    assert "(2 steps" in after
    head, making = before.split("## Verdict")[0], before.split("## Recipe")[1]
    assert (after.split("## Verdict")[0], after.split("## Recipe")[1]) == (head, making)
    assert json.loads((weights / "verdict.json").read_text())["captions"] == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_captured_step_learns_what_a_plain_one_does(tmp_path: Path) -> None:
    def learned(capture: bool) -> torch.Tensor:
        weight = torch.zeros(3, 5, device="cuda", requires_grad=True)

        def batch_at(step: int) -> dict[str, torch.Tensor]:
            drawn = torch.randn(4, 5, generator=torch.Generator().manual_seed(step)).cuda()
            return {"given": drawn, "wanted": drawn[:, :3]}

        loop.train(
            f"captured-{capture}",
            tmp_path,
            steps=12,
            rate=0.1,
            warm_up=2,
            trained=[weight],
            state={"weight": weight.data},
            loss_at=lambda batch: {"loss": F.mse_loss(batch["given"] @ weight.T, batch["wanted"])},
            batch_at=batch_at,
            capture=capture,
        )
        return weight.detach()

    plain = learned(False)
    assert plain.abs().max() > 0.1
    torch.testing.assert_close(learned(True), plain, rtol=1e-4, atol=1e-5)
