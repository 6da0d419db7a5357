"""The embedded ViT: small enough to ship, read by plain transformers, made by a resumable recipe, good enough."""

import json

import numpy as np
import pytest
import torch
from transformers import ViTForImageClassification

from stamina_diffusion import embedded, files
from stamina_diffusion.backbones import vit
from stamina_diffusion.backbones.seeing import Sight
from stamina_diffusion.embedded.recipe import data, probe, run_vision, vision
from stamina_diffusion.learn import learn
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.plan import Plan
from stamina_diffusion.world import FAMILIES

SMALL = vision.VisionRecipe(
    identities=2, views=2, captions=1, width=16, heads=2, depth=1, steps=4, batch=4, warm_up=2, patches=5
)


def test_it_is_small_and_plain_transformers_reads_it():
    folder = embedded.vit_folder()
    assert sum(path.stat().st_size for path in folder.iterdir()) < run_vision.LARGEST
    network = ViTForImageClassification.from_pretrained(folder)
    assert network.dtype == torch.float32
    assert 2_500_000 < sum(parameter.numel() for parameter in network.parameters()) < 3_500_000
    assert vit.load(folder).sight == Sight(64)


def test_it_tells_things_apart_that_it_never_saw(tmp_path):
    """Its card's probe on 8 of the 200 identities: most are right by their class means, where chance is one in 8."""
    network = vit.load(embedded.vit_folder())
    asked = probe.prepare(tmp_path, identities=4)
    taught = vision.as_input(asked.pictures.reshape(-1, 64, 64, 3))
    with torch.no_grad():
        features = torch.cat([network.encoded(part) for part in taught.split(240)])
    found = asked.accuracies(lambda pictures: features)
    assert found["nearest_mean"] > 0.85


def test_it_learns_a_task(tmp_path):
    network = vit.load(embedded.vit_folder())
    from stamina_diffusion.class_streams.atlas import Atlas, atlas

    lesson = atlas(Atlas(classes=4, train=8, test=8)).lessons(1)[0]
    learned = learn(network, LoRA(rank=4, rate=1e-3, word_rate=5e-3), lesson.taught, {}, Plan(steps=12, batch=16))
    assert learned.losses[-1] < learned.losses[0]
    right = network.predict(lesson.asked.images).argmax(1) == torch.tensor(lesson.asked.labels)
    assert float(right.float().mean()) > 0.8


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "data").mkdir()
    for family in FAMILIES:  # in this process: a new one would import everything again
        data._render_shard((folder / "data" / f"{family}-000000.npz", family, 0, 2, SMALL.views, SMALL.captions))
    return folder


def test_the_recipe_runs_from_nothing_and_resumes_to_the_same_bytes(rendered, monkeypatch):
    monkeypatch.setattr("stamina_diffusion.embedded.recipe.loop.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(run_vision, "PROBE_EVERY", 2)
    found = run_vision.main(rendered, SMALL, identities=1)
    assert set(found) == {"nearest_mean", "linear"}
    whole = files.sha256(rendered / "weights" / "model.safetensors")
    card = (rendered / "weights" / "README.md").read_text()
    assert "| 4 |" in card
    assert json.loads(card.split("```json")[1].split("```")[0])["steps"] == 4
    for file in ("vision.checkpoint.safetensors", "vision.jsonl", "probe.jsonl", "weights/model.safetensors"):
        (rendered / file).unlink()
    real = vision.renditions_of
    calls = []

    def stop(pictures, drawn):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(pictures, drawn)

    monkeypatch.setattr(vision, "renditions_of", stop)
    with pytest.raises(KeyboardInterrupt):
        run_vision.main(rendered, SMALL, identities=1)
    run_vision.main(rendered, SMALL, identities=1)
    assert files.sha256(rendered / "weights" / "model.safetensors") == whole


def test_the_first_layer_starts_as_whitened_components():
    taught = vision.Taught(SMALL, 2)
    pictures = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    pictures[..., :32, :] //= 4  # patches of two kinds, so that there is a direction to find
    vision.start_with_components(taught, pictures)
    layer = taught.vit.vit.embeddings.patch_embeddings.projection
    out = layer(vision.as_input(pictures)).flatten(2).permute(0, 2, 1).reshape(-1, 16)
    assert torch.allclose(out.mean(0), torch.zeros(16), atol=0.05)
    assert float(torch.cov(out.detach().T)[0, 0]) == pytest.approx(1, abs=0.05)


def test_patches_that_are_not_looked_at_do_not_count():
    taught = vision.Taught(SMALL, 2).eval()
    images = torch.rand(2, 3, 64, 64)
    places = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    seen = taught.tokens(images, places)
    assert seen.shape == (2, 5, 16)
    images[:, :, 16:] = 0  # all but the first row of patches
    assert torch.allclose(taught.tokens(images, places), seen, atol=1e-6)
    everything = torch.arange(16).expand(2, 16)
    assert torch.allclose(taught.tokens(images, everything), taught.tokens(images), atol=1e-5)


def test_pretrain_names_what_it_makes():
    from typer.testing import CliRunner

    from stamina_diffusion.cli import app

    ran = CliRunner().invoke(app, ["pretrain", "--what", "vit", "--out", "run", "--go-on"])
    assert ran.exit_code == 2
    assert "the ViT's run goes on by itself" in " ".join(ran.output.replace("│", " ").split())
    ran = CliRunner().invoke(app, ["pretrain", "--what", "vit", "--out", "run", "--set", "stpes=3"])
    assert ran.exit_code == 2
    assert "stpes" in ran.output
