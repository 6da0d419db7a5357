"""A classifier that learns: its sites, its loss, what it shows of pictures; a plain ViT after it, in two layouts."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification

from stamina_diffusion import testing
from stamina_diffusion.backbones import timm_layout, vit
from stamina_diffusion.backbones.seeing import Sight
from stamina_diffusion.backbones.toy_classifier import ToyClassifier
from stamina_diffusion.concepts import Concept, Task
from stamina_diffusion.errors import BaseModelError, NameTakenError, SettingsError
from stamina_diffusion.learn import learn
from stamina_diffusion.methods.c_lora import CLoRA
from stamina_diffusion.methods.custom_diffusion_merged import CustomDiffusionMerged
from stamina_diffusion.methods.fine_tune import FineTune
from stamina_diffusion.methods.lora import LoRA
from stamina_diffusion.methods.replay import Replay
from stamina_diffusion.methods.stamina import Stamina
from stamina_diffusion.plan import Plan

REPO = Path(__file__).parents[1]


def tiny_config(**changes) -> ViTConfig:
    made = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    made |= {"image_size": 8, "patch_size": 4, "num_labels": 0, "layer_norm_eps": 1e-6}
    return ViTConfig(**made | changes)


@pytest.fixture(scope="module")
def pristine() -> ViTForImageClassification:
    torch.manual_seed(0)
    network = ViTForImageClassification(tiny_config())
    with torch.no_grad():
        for parameter in network.parameters():  # transformers starts biases at zero, where a swap would not show
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def classifier(pristine) -> vit.VisionTransformer:
    return vit.VisionTransformer(copy.deepcopy(pristine))


def task(name: str, classes: int = 2, pictures: int = 6, first: int = 0) -> Task:
    images = testing.noise_pictures(first + pictures)[first:]
    labels = tuple(place % classes for place in range(pictures))
    return Task(name, images, classes=tuple(f"{name} {place}" for place in range(classes)), labels=labels)


PLAN = Plan(steps=3, batch=4, clip_norm=0.0, weight_decay=0.0)


# ------------------------------------------------------------------------------------------------ a task and its rows


@pytest.mark.parametrize(
    ("classes", "labels", "found"),
    [
        (("cat", "cat"), (0, 1, 0), "has the class 'cat' twice"),
        (("cat", "dog"), (0, 1), "2 labels for 3 pictures"),
        (("cat", "dog"), (0, 0, 0), "2 classes, and its pictures' labels are \\[0\\]"),
        (("cat", "dog"), (0, 1, 2), "labels are \\[0, 1, 2\\]"),
    ],
)
def test_a_task_whose_labels_make_no_sense_is_refused(classes, labels, found):
    with pytest.raises(SettingsError, match=found):
        Task("pets", testing.noise_pictures(3), classes=classes, labels=labels)


def test_a_class_that_is_known_is_refused_and_nothing_grows(classifier):
    learn(classifier, LoRA(rank=2), task("first"), {}, PLAN)
    again = Task("second", testing.noise_pictures(2), classes=("new", "first 1"), labels=(0, 1))
    with pytest.raises(NameTakenError, match="already has the class 'first 1'"):
        classifier.grow(again, LoRA(), 0)
    assert classifier.head.out_features == 2
    assert classifier.learned == ["first 0", "first 1"]


def test_a_concept_without_classes_is_no_task(classifier):
    with pytest.raises(SettingsError, match="learns classes, and 'rex' has none"):
        classifier.grow(Concept("rex", testing.noise_pictures(1)), LoRA(), 0)


def test_replay_is_refused_since_a_classifier_cannot_draw(classifier):
    with pytest.raises(SettingsError, match="cannot draw its earlier classes"):
        learn(classifier, Replay(over=LoRA(rank=2)), task("first"), {}, PLAN)


def test_text_features_are_refused_before_the_first_step(classifier):
    steps = []
    with pytest.raises(SettingsError, match="reads no text"):
        learn(classifier, CustomDiffusionMerged(), task("first"), {}, PLAN, watch=steps.append)
    assert steps == []


def test_a_base_that_is_full_of_classes_begins_with_none():
    network = ViTForImageClassification(tiny_config(num_labels=5))
    classifier = vit.VisionTransformer(network)
    assert classifier.learned == []
    assert classifier.head.weight.shape == (0, 16)
    assert network.config.num_labels == 0


def test_a_head_of_other_statistics_is_refused(classifier):
    learn(classifier, LoRA(rank=2), task("first"), {}, PLAN)
    with pytest.raises(SettingsError, match="the head does not match"):
        classifier.set_head(torch.zeros(3, 16), torch.zeros(3))
    classifier.set_head(torch.ones(2, 16), torch.zeros(2))
    assert bool((classifier.head.weight == 1).all())


# ------------------------------------------------------------------------------------------------------------- sites


@pytest.mark.parametrize("matrices", [("query", "key", "value"), ("key", "value"), ("value",)])
def test_the_attention_of_every_block_changes_as_far_as_it_was_chosen(pristine, matrices):
    classifier = vit.VisionTransformer(copy.deepcopy(pristine), matrices=matrices)
    first = task("first")
    classifier.grow(first, LoRA(), 0)
    weights = [name for name, site in classifier.sites(first, "cross-attention").items() if site.role == "weight"]
    letters = "".join(matrix[0] for matrix in matrices)
    wanted = [f"vit.layers.{layer}.attention.{letter}_proj.weight" for layer in range(2) for letter in letters]
    assert sorted(weights) == sorted(wanted)
    tokens = classifier.sites(first, "tokens")
    assert list(tokens) == ["head/first", "head_bias/first"]
    assert [site.shape for site in tokens.values()] == [(2, 16), (2,)]
    everything = classifier.sites(first, "network")
    assert len(everything) == len(list(classifier.network.named_parameters()))


def test_an_unknown_matrix_is_refused(pristine):
    with pytest.raises(SettingsError, match="cannot take matrices output"):
        vit.VisionTransformer(copy.deepcopy(pristine), matrices=("output",))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- the loss


def test_the_local_softmax_is_the_one_whose_past_logits_are_minus_infinity(classifier):
    learn(classifier, LoRA(rank=2), task("first"), {}, PLAN)
    second = task("second", classes=3, first=6)
    classifier.grow(second, LoRA(), 0)
    batch = classifier.batch(classifier.material(second, LoRA(), PLAN), PLAN, 0, "second", 0)
    logits = classifier.logits(batch.pixels).detach().clone()
    logits[:, :2] = -math.inf
    assert torch.allclose(classifier.loss(batch), F.cross_entropy(logits, batch.rows), atol=1e-6)
    classifier.head.requires_grad_(True)
    classifier.loss(batch).backward()
    assert bool((classifier.head.weight.grad[:2] == 0).all())
    assert bool((classifier.head.weight.grad[2:] != 0).any())


def test_the_other_softmax_is_over_everything_seen(pristine):
    classifier = vit.VisionTransformer(copy.deepcopy(pristine), softmax="seen")
    learn(classifier, LoRA(rank=2), task("first"), {}, PLAN)
    second = task("second", first=6)
    classifier.grow(second, LoRA(), 0)
    batch = classifier.batch(classifier.material(second, LoRA(), PLAN), PLAN, 0, "second", 0)
    assert torch.allclose(classifier.loss(batch), F.cross_entropy(classifier.logits(batch.pixels), batch.rows))


def test_past_rows_are_the_same_to_the_bit_for_ever(classifier):
    memory = {}
    kept = []
    for place, name in enumerate(("first", "second", "third")):
        method = Stamina(rank=2, mask_rank=2, strength=1.0)
        memory = learn(classifier, method, task(name, first=6 * place), memory, PLAN).memory
        kept.append((classifier.head.weight.data.clone(), classifier.head.bias.data.clone()))
    weight, bias = classifier.head.weight, classifier.head.bias
    for rows, biases in kept:
        assert torch.equal(weight[: len(rows)], rows)
        assert torch.equal(bias[: len(biases)], biases)


def test_an_epoch_shows_each_picture_once():
    classifier, own = ToyClassifier(), task("first", pictures=10)
    classifier.grow(own, LoRA(), 0)
    material = classifier.material(own, LoRA(), PLAN)
    pixels = [classifier.batch(material, PLAN, 0, "first", step).pixels for step in range(5)]
    seen = torch.cat(pixels).flatten(1)
    whole = material.seen.flatten(1)
    places = [int((whole == row).all(1).nonzero()[0, 0]) for row in seen]
    assert sorted(places[:10]) == sorted(places[10:]) == list(range(10))
    assert places[:10] != places[10:]
    again = classifier.batch(material, PLAN, 0, "first", 3).pixels
    assert torch.equal(again, pixels[3])


def test_the_rate_falls_as_in_codas_code():
    plan = Plan(steps=20, epochs=10, schedule="coda")
    shares = [plan.share_of_rate(step) for step in range(20)]
    assert shares[0] == shares[1] == 1
    # Of 10 epochs the fifth's rate is cos(99π·4/(200·9)), the last's cos(99π/200).
    assert shares[8] == pytest.approx(math.cos(99 * math.pi * 4 / 1800))
    assert shares[-1] == pytest.approx(0.015707, abs=1e-6)


def test_a_schedule_reaches_the_optimizer(classifier):
    """A rate that is nothing after the first epoch leaves what the first epoch made."""
    whole = learn(copy.deepcopy(classifier), LoRA(rank=2), task("first"), {}, Plan(steps=2, batch=4))
    falling = learn(
        copy.deepcopy(classifier), LoRA(rank=2), task("first"), {}, Plan(steps=2, batch=4, schedule="cosine")
    )
    name = "head/first"
    assert not torch.equal(whole.changes[name], falling.changes[name])
    assert float((whole.changes[name]).abs().sum()) > float(falling.changes[name].abs().sum())


# ------------------------------------------------------------------------------------- what it makes of pictures


def test_features_and_predictions_do_not_depend_on_the_batch(classifier):
    own = task("first", pictures=7)
    learn(classifier, CLoRA(rank=2), own, {}, PLAN)
    logits = classifier.predict(own.images)
    assert logits.shape == (7, 2)
    assert torch.allclose(logits, classifier.predict(own.images, batch=2), atol=1e-6)
    features = classifier.features(own.images)
    head = classifier.head
    assert torch.allclose(features @ head.weight.T + head.bias, logits, atol=1e-5)
    assert classifier.predict([]).shape[0] == 0


def test_class_statistics_are_those_of_the_features(classifier):
    own = task("first", pictures=6)
    learn(classifier, LoRA(rank=2), own, {}, PLAN)
    known = classifier.statistics(own)
    rows = classifier.features(own.images)[1::2].double()
    assert torch.allclose(known.means[1], rows.mean(0).float(), atol=1e-6)
    assert np.allclose(known.covariances[1], np.cov(rows.numpy().T), atol=1e-6)


def test_a_picture_is_seen_as_its_sight_says():
    picture = Image.fromarray(np.arange(12 * 8 * 3, dtype=np.uint8).reshape(8, 12, 3))
    squeezed = Sight(side=4).tested([picture])
    assert squeezed.shape == (1, 3, 4, 4)
    middle = Sight(side=8, resize=8, mean=(0, 0, 0), spread=(1, 1, 1)).tested([picture])
    wanted = torch.from_numpy(np.array(picture)[:, 2:10]).movedim(-1, 0) / 255
    assert torch.allclose(middle[0], wanted)
    draw = torch.Generator().manual_seed(0)
    sight = Sight(side=4, training="crop", mirror=True)
    crops = sight.trained([picture] * 8, draw)
    assert len({crop.numpy().tobytes() for crop in crops}) > 4
    again = sight.trained([picture] * 8, torch.Generator().manual_seed(0))
    assert torch.equal(crops, again)
    with pytest.raises(SettingsError, match="side is 8 and resize 4"):
        Sight(side=8, resize=4)


def test_training_crops_are_drawn_anew_at_every_step(pristine):
    classifier = vit.VisionTransformer(copy.deepcopy(pristine), Sight(side=8, training="crop"))
    own = task("first", pictures=4)
    classifier.grow(own, LoRA(), 0)
    material = classifier.material(own, LoRA(), PLAN)
    first, second = (classifier.batch(material, PLAN, 0, "first", step).pixels for step in (0, 0))
    assert torch.equal(first, second)
    later = classifier.batch(material, PLAN, 0, "first", 1).pixels
    assert not torch.equal(first.sort(0).values, later.sort(0).values)


# ------------------------------------------------------------------------------------------------ plain after the fold

READ = """
import json, sys, torch
from transformers import ViTForImageClassification
assert not any(name.startswith("stamina") for name in sys.modules)
network, told = ViTForImageClassification.from_pretrained(sys.argv[1], output_loading_info=True)
assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
pixels = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)
with torch.no_grad():
    print(json.dumps([network.eval()(pixels).logits.tolist(), network.config.id2label]))
"""


def test_transformers_reads_the_export_in_a_process_without_this_package(classifier, tmp_path):
    learn(classifier, Stamina(rank=2, mask_rank=2), task("first"), {}, PLAN)
    learn(classifier, Stamina(rank=2, mask_rank=2), task("second", first=6), {}, PLAN)
    classifier.save(tmp_path / "plain")
    ran = subprocess.run(
        [sys.executable, "-I", "-c", READ, str(tmp_path / "plain")], capture_output=True, text=True, check=True
    )
    logits, names = json.loads(ran.stdout.splitlines()[-1])
    pixels = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(torch.tensor(logits), classifier.logits(pixels), atol=1e-5)
    assert names == {"0": "first 0", "1": "first 1", "2": "second 0", "3": "second 1"}


def test_a_saved_classifier_goes_on_where_it_was(classifier, tmp_path):
    own = task("first")
    learn(classifier, LoRA(rank=2), own, {}, PLAN)
    classifier.save(tmp_path / "plain")
    again = vit.load(tmp_path / "plain", keep_classes=True)
    assert again.learned == classifier.learned
    assert again.sight == classifier.sight
    assert torch.equal(again.predict(own.images), classifier.predict(own.images))
    assert vit.load(tmp_path / "plain").learned == []


# ------------------------------------------------------------------------------------------------------ timm's layout


def of_timm(state: dict[str, torch.Tensor], pixels: torch.Tensor, heads: int, patch: int) -> torch.Tensor:
    """A ViT computed from timm's tensors by hand, as its documentation and the paper (arXiv 2010.11929) have it."""
    width = state["cls_token"].shape[-1]
    x = F.conv2d(pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    x = torch.cat([state["cls_token"].expand(len(pixels), -1, -1), x.flatten(2).mT], 1) + state["pos_embed"]
    block = 0
    while f"blocks.{block}.norm1.weight" in state:
        own = {name.removeprefix(f"blocks.{block}."): value for name, value in state.items()}
        y = F.layer_norm(x, (width,), own["norm1.weight"], own["norm1.bias"], 1e-6)
        qkv = F.linear(y, own["attn.qkv.weight"], own["attn.qkv.bias"])
        q, k, v = qkv.reshape(len(x), -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        y = (q @ k.mT / math.sqrt(width // heads)).softmax(-1) @ v
        x = x + F.linear(y.transpose(1, 2).flatten(2), own["attn.proj.weight"], own["attn.proj.bias"])
        y = F.layer_norm(x, (width,), own["norm2.weight"], own["norm2.bias"], 1e-6)
        y = F.linear(F.gelu(F.linear(y, own["mlp.fc1.weight"], own["mlp.fc1.bias"])), own["mlp.fc2.weight"])
        x = x + y + own["mlp.fc2.bias"]
        block += 1
    x = F.layer_norm(x, (width,), state["norm.weight"], state["norm.bias"], 1e-6)
    return F.linear(x[:, 0], state["head.weight"], state["head.bias"])


def test_timms_layout_holds_the_same_network(classifier, tmp_path):
    learn(classifier, LoRA(rank=2), task("first"), {}, PLAN)
    classifier.save_timm(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    pixels = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(of_timm(state, pixels, heads=2, patch=4), classifier.logits(pixels), atol=1e-5)
    assert state["blocks.1.attn.qkv.weight"].shape == (48, 16)


def test_timms_layout_and_back_is_the_same_to_the_bit(classifier, tmp_path):
    own = task("first")
    learn(classifier, LoRA(rank=2), own, {}, PLAN)
    classifier.save_timm(tmp_path)
    again = vit.load(tmp_path, keep_classes=True)
    state, before = again.network.state_dict(), classifier.network.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert again.learned == classifier.learned
    assert again.sight == classifier.sight


def hand_built(width: int = 64, patch: int = 4, side: int = 8, classes: int = 3) -> dict[str, torch.Tensor]:
    """A checkpoint of timm's of one block, each tensor of another number."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, (side // patch) ** 2 + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "blocks.0.norm1.weight": (width,),
        "blocks.0.norm1.bias": (width,),
        "blocks.0.attn.qkv.weight": (3 * width, width),
        "blocks.0.attn.qkv.bias": (3 * width,),
        "blocks.0.attn.proj.weight": (width, width),
        "blocks.0.attn.proj.bias": (width,),
        "blocks.0.norm2.weight": (width,),
        "blocks.0.norm2.bias": (width,),
        "blocks.0.mlp.fc1.weight": (2 * width, width),
        "blocks.0.mlp.fc1.bias": (2 * width,),
        "blocks.0.mlp.fc2.weight": (width, 2 * width),
        "blocks.0.mlp.fc2.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }
    return {name: torch.full(shape, float(place)) for place, (name, shape) in enumerate(shapes.items())}


def test_the_fused_matrix_is_query_key_value_from_top_to_bottom():
    state = hand_built()
    state["blocks.0.attn.qkv.weight"][:64], state["blocks.0.attn.qkv.weight"][64:128] = 1.0, 2.0
    state["blocks.0.attn.qkv.weight"][128:] = 3.0
    found = timm_layout.from_timm(state)
    kinds = {letter: found[f"vit.layers.0.attention.{letter}_proj.weight"] for letter in "qkv"}
    assert {letter: value.unique().tolist() for letter, value in kinds.items()} == {"q": [1.0], "k": [2.0], "v": [3.0]}
    network = ViTForImageClassification(ViTConfig(hidden_size=64, num_hidden_layers=1, num_labels=3))
    assert found.keys() == network.state_dict().keys()
    back = timm_layout.to_timm(found)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def write_timm(folder: Path, state: dict[str, torch.Tensor], **said) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224", "num_classes": 3} | said))
    return folder


def test_a_checkpoint_of_timm_says_how_it_wants_its_pictures(tmp_path):
    asked = {"input_size": [3, 8, 8], "crop_pct": 0.9, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    folder = write_timm(tmp_path, hand_built(), pretrained_cfg=asked | {"interpolation": "bicubic"})
    found = vit.load(folder)
    assert found.sight == Sight(8, resize=8, mean=(0.1, 0.2, 0.3), filter="bicubic")
    config = found.network.config
    assert (config.num_attention_heads, config.intermediate_size, config.image_size) == (1, 128, 8)
    assert config.layer_norm_eps == 1e-6


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda state: state.pop("norm.bias"), "it lacks vit.layernorm.bias"),
        (lambda state: state.update({"blocks.0.ls1.gamma": torch.ones(64)}), "a plain ViT has no 'blocks.0.ls1.gamma'"),
        (lambda state: state.update({"norm.bias": torch.ones(3)}), "size mismatch for vit.layernorm.bias"),
        (lambda state: state.pop("patch_embed.proj.weight"), "cannot be read"),
    ],
)
def test_what_is_no_plain_vit_of_timm_is_refused(tmp_path, spoil, found):
    state = hand_built()
    spoil(state)
    with pytest.raises(BaseModelError, match=found):
        vit.load(write_timm(tmp_path, state))


def test_timm_computes_the_same(classifier, tmp_path):
    timm = pytest.importorskip("timm")
    learn(classifier, LoRA(rank=2), task("first"), {}, PLAN)
    classifier.save_timm(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    network = timm.create_model(said["architecture"], num_classes=said["num_classes"], **said["model_args"])
    network.load_state_dict(load_file(tmp_path / "model.safetensors"))
    pixels = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network.eval()(pixels), classifier.logits(pixels), atol=1e-5)


# --------------------------------------------------------------------------------------------------- what is refused


def test_a_folder_that_holds_no_vit_is_refused(tmp_path):
    with pytest.raises(BaseModelError, match="no ViT can be read"):
        vit.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(BaseModelError, match="not 'vit'"):
        vit.load(tmp_path)


def test_a_checkpoint_that_lacks_a_weight_is_refused(classifier, tmp_path):
    classifier.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("vit.layernorm.bias")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseModelError, match=r"1 weights are missing .* vit\.layernorm\.bias"):
        vit.load(tmp_path)


def test_a_head_that_does_not_fit_its_names_is_refused(classifier, tmp_path):
    learn(classifier, LoRA(rank=2), task("first"), {}, PLAN)
    classifier.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {str(place): f"c{place}" for place in range(5)}
    config["label2id"] = {name: int(place) for place, name in config["id2label"].items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for keep in (True, False):
        with pytest.raises(BaseModelError, match="names 5 classes and its head has 2 rows"):
            vit.load(tmp_path, keep_classes=keep)


def test_a_timm_head_that_does_not_fit_is_refused(classifier, tmp_path):
    learn(classifier, LoRA(rank=2), task("first"), {}, PLAN)
    classifier.save_timm(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_classes": 7}))
    with pytest.raises(BaseModelError, match="names 7 classes and its head has 2 rows"):
        vit.load(tmp_path)


# ----------------------------------------------------------------------------------------------------------- real size


@pytest.mark.slow
def test_a_vit_of_real_size_learns_a_task_on_a_cpu():
    """ViT-B/16 at 224 pixels with random weights: one step of STAMINA on its queries, keys and values, and the fold."""
    network = ViTForImageClassification(ViTConfig(num_labels=0, layer_norm_eps=1e-6))
    classifier = vit.VisionTransformer(network, Sight(224, resize=256, training="crop", mirror=True))
    own = Task("two", testing.noise_pictures(2, 256), classes=("a", "b"), labels=(0, 1))
    learned = learn(classifier, Stamina(rank=4, prior=False), own, {}, Plan(steps=1, batch=1))
    weights = [change for name, change in learned.changes.items() if not name.startswith("head")]
    assert len(weights) == 36
    assert {change.shape for change in weights} == {(768, 768)}
    assert classifier.predict(own.images).shape == (2, 2)
    assert sum(parameter.numel() for parameter in network.parameters()) == 85_798_656 + 2 * 769


def test_fine_tuning_the_whole_network_moves_no_past_row(classifier):
    learn(classifier, FineTune(weights="network", rate=1e-2), task("first"), {}, PLAN)
    rows = classifier.head.weight.data.clone()
    learn(classifier, FineTune(weights="network", rate=1e-2), task("second", first=6), {}, PLAN)
    assert torch.equal(classifier.head.weight[:2], rows)
