"""Each format is read again by the host's own code, or by its key rules written here anew, and compared to the bit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub.errors import HTTPError
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel
from typer.testing import CliRunner

from stamina_diffusion import files, loras, seeds, single_files, testing
from stamina_diffusion.cli import app
from stamina_diffusion.errors import BaseChangedError, BaseModelError, ExportError, LoraError
from stamina_diffusion.exports import FORMATS, export, hub, source
from stamina_diffusion.exports.source import Wanted, rows_of
from stamina_diffusion.methods import build
from stamina_diffusion.photos import Photo, collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.settings import Draw
from stamina_diffusion.studio import Studio

PLAN = Plan(steps=3, batch=2, prior_images=0)
METHOD = build("stamina", {"rank": 4, "rate": 2e-3})
QUICK = Wanted(pictures=False)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    """Single files are unpacked into the user's cache: here into one that the tests throw away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    testing.tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Photo, ...]:
    folder = tmp_path_factory.mktemp("photos")
    for place, picture in enumerate(testing.noise_pictures(3, 16)):
        picture.save(folder / f"{place}.png")
    return collect(folder, resolution=16)


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory, base: Path, photos: tuple[Photo, ...]) -> Studio:
    """A studio that knows <rex>."""
    studio = Studio.create(tmp_path_factory.mktemp("young") / "mine", str(base))
    studio.learn(photos, "rex", method=METHOD, plan=PLAN, class_word="dog")
    return studio


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, young: Studio, photos: tuple[Photo, ...]) -> Studio:
    """A studio that knows <rex> and <tom>."""
    studio = Studio.open(Path(shutil.copytree(young.folder, tmp_path_factory.mktemp("studio") / "mine")))
    studio.learn(photos, "tom", method=METHOD, plan=PLAN)
    return studio


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, base: Path, photos: tuple[Photo, ...]) -> Studio:
    """A studio whose whole U-Net was fine-tuned: convolutions, norms and biases moved too."""
    studio = Studio.create(tmp_path_factory.mktemp("tuned") / "mine", str(base))
    method = build("fine-tune", {"weights": "network", "prior": False, "rate": 0.01})
    studio.learn(photos, "rex", method=method, plan=PLAN)
    return studio


def plain(base: Path) -> Any:
    """The base as a host has it, by diffusers' own code."""
    return StableDiffusionPipeline.from_pretrained(base, safety_checker=None)


def same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def unet_of(studio: Studio) -> dict[str, Tensor]:
    return studio.backbone().pipeline.unet.state_dict()


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def stamina(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(ran: Any, said: str) -> None:
    assert ran.exit_code == 2, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert said in " ".join(ran.stderr.split())


# ------------------------------------------------------------------------------------------------- what all have


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_has_a_card_and_tells_nothing_of_the_machine(studio: Studio, tmp_path: Path, to: str) -> None:
    out = export(studio, to, tmp_path / "out", Wanted(pictures=False, licence="cc-by-4.0", consent="Ann, 2026"))
    card = (out / "README.md").read_text()
    assert "| `<rex>` | dog | stamina | 3 | 3 |" in card
    assert "license: cc-by-4.0" in card
    assert "Ann, 2026" in card
    assert "from `tiny`" in card
    for path in out.rglob("*"):
        if path.is_file():
            assert str(studio.folder.parent).encode() not in path.read_bytes(), path
            assert studio.base["source"].encode() not in path.read_bytes(), path
    assert not list(tmp_path.glob(".*.part"))
    with pytest.raises(ExportError, match="is there already"):
        export(studio, to, out, QUICK)


def test_the_same_studio_gives_the_same_bytes(studio: Studio, tmp_path: Path) -> None:
    again = Studio.open(studio.folder)
    for to in ("kohya",):
        first, second = export(studio, to, tmp_path / to, QUICK), export(again, to, tmp_path / "again" / to, QUICK)
        hashes = [{p.relative_to(f): files.sha256(p) for p in f.rglob("*.safetensors")} for f in (first, second)]
        assert hashes[0]
        assert hashes[0] == hashes[1]


def test_what_is_empty_is_refused(base: Path, photos: tuple[Photo, ...], tmp_path: Path) -> None:
    empty = Studio.create(tmp_path / "empty", str(base))
    for to in ("kohya", "lora", "embeddings"):
        with pytest.raises(ExportError, match=r"no weight was changed|no word was learned"):
            export(empty, to, tmp_path / to, QUICK)
        assert not (tmp_path / to).exists()
    empty.learn(photos, "rex", method=build("textual-inversion"), plan=PLAN)
    with pytest.raises(ExportError, match="--to embeddings"):
        export(empty, "lora", tmp_path / "lora", QUICK)
    with pytest.raises(ExportError, match=r"(?s)is a folder.*folder's name"):
        export(empty, "embeddings", tmp_path / "a.safetensors", QUICK)


# ---------------------------------------------------------------------------------------------- exact formats


def test_diffusers_reads_its_folder_to_the_bit(studio: Studio, tmp_path: Path) -> None:
    out = export(studio, "diffusers", tmp_path / "out", QUICK)
    read = plain(out)
    assert same(read.unet.state_dict(), unet_of(studio))
    assert same(read.text_encoder.state_dict(), studio.backbone().pipeline.text_encoder.state_dict())


@pytest.mark.parametrize("kind", ["studio", "tuned"])
def test_weights_are_the_model_to_the_bit(request, base: Path, tmp_path: Path, kind: str) -> None:
    studio = request.getfixturevalue(kind)
    out = export(studio, "weights", tmp_path / "out", QUICK)
    unet = plain(base).unet
    assert not same(unet.state_dict(), unet_of(studio))
    tensors = load_file(out / "weights.safetensors")
    assert not unet.load_state_dict(tensors, strict=False).unexpected_keys
    assert same(unet.state_dict(), unet_of(studio))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_weights_do_not_grow_with_concepts(young: Studio, studio: Studio, tmp_path: Path) -> None:
    sizes = [
        (export(one, "weights", tmp_path / str(one.version), QUICK) / "weights.safetensors").stat().st_size
        for one in (young, studio)
    ]
    assert sizes[0] == sizes[1]


def comfy(tensors: dict[str, Tensor], unet: nn.Module) -> None:
    """ComfyUI's rule: `lora_unet_` and the weight's name with _, then `.diff`, `.diff_b`, `.w_norm`, `.b_norm`."""
    left, state = dict(tensors), unet.state_dict()
    for name in [name for name in state if name.endswith(".weight")]:
        target = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        places = {".diff": name, ".w_norm": name}
        places |= dict.fromkeys((".diff_b", ".b_norm"), name.removesuffix("weight") + "bias")
        for ending, place in places.items():
            if target + ending in left:
                difference = left.pop(target + ending)
                assert difference.shape == state[place].shape
                assert difference.dtype == torch.float32
                state[place] += 1.0 * difference
    assert not left


def a1111(tensors: dict[str, Tensor], unet: nn.Module) -> None:
    """A1111's rule: the key up to its first dot is the layer; `diff` makes a full one, both norms make a norm."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, part = key.split(".", 1)
        layers.setdefault(name, {})[part] = tensor
    modules = {"lora_unet_" + name.replace(".", "_"): module for name, module in unet.named_modules()}
    for name, parts in layers.items():
        module = modules[name]
        assert isinstance(module, nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm)
        full = "diff" in parts
        assert full or {"w_norm", "b_norm"} <= parts.keys()
        with torch.no_grad():
            module.weight += parts["diff" if full else "w_norm"]
            bias = parts.get("diff_b" if full else "b_norm")
            if bias is not None:
                module.bias += bias


@pytest.mark.parametrize("host", [comfy, a1111])
@pytest.mark.parametrize("kind", ["young", "studio", "tuned"])
def test_kohya_is_the_model_to_the_bit(request, base: Path, tmp_path: Path, kind: str, host) -> None:
    studio = request.getfixturevalue(kind)
    said: list[str] = []
    out = export(studio, "kohya", tmp_path / "out", QUICK, said.append)
    unet = plain(base).unet
    host(load_file(out / "mine.safetensors"), unet)
    found = re.fullmatch(r"\d+ weights; (\d+) of (\d+) entries come back to the bit in float32", said[0])
    assert found
    ours, theirs = unet_of(studio), unet.state_dict()
    off = sum(int((theirs[name] != ours[name]).sum()) for name in ours)
    assert off == int(found[2]) - int(found[1])
    # One concept is exact; after several, entries that came near zero are not, and no host's half floats can tell.
    assert off <= (0 if kind == "young" else 0.01 * int(found[2]))
    assert all(torch.allclose(theirs[name], ours[name], rtol=0, atol=1e-8) for name in ours)
    assert all(torch.equal(theirs[name].bfloat16(), ours[name].bfloat16()) for name in ours)
    assert ("not to the bit" in (out / "README.md").read_text()) == bool(off)


def test_a_kohya_header_says_what_hosts_read(studio: Studio, tmp_path: Path) -> None:
    found = header(export(studio, "kohya", tmp_path / "out", QUICK) / "mine.safetensors")
    assert found["modelspec.sai_model_spec"] == "1.0.1"
    assert found["modelspec.architecture"].endswith("/lora")
    assert found["modelspec.trigger_phrase"] == "<rex>, <tom>"
    minimum = {"ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha"}
    assert minimum <= found.keys()
    ledger = json.loads(found["stamina.ledger"])
    assert [concept["hash"] for concept in ledger["concepts"]] == [entry.hash for entry in studio.entries]


# --------------------------------------------------------------------------------------------------- the LoRA


def deltas(studio: Studio, base: Path) -> dict[str, Tensor]:
    before, after = plain(base).unet.state_dict(), unet_of(studio)
    return {name: after[name].double() - before[name].double() for name in after if re.search(r"attn2\.to_[kv]", name)}


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_diffusers_loads_the_lora_and_computes_w_plus_ba(
    studio: Studio, base: Path, tmp_path: Path, layout: Any
) -> None:
    said: list[str] = []
    wanted = Wanted(layout=layout, rank=3, pictures=False)
    out = export(studio, "lora", tmp_path / "out", wanted, said.append)
    file = out / ("pytorch_lora_weights.safetensors" if layout == "diffusers" else "mine.safetensors")
    tensors = load_file(file)
    pipeline = plain(base)
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    pipeline.load_lora_weights(str(out), weight_name=file.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after = pipeline.unet.state_dict()
    moved = 0
    for name, delta in deltas(studio, base).items():
        module = name.removesuffix(".weight")
        if layout == "diffusers":
            a, b = tensors[f"unet.{module}.lora_A.weight"], tensors[f"unet.{module}.lora_B.weight"]
        else:
            target = "lora_unet_" + module.replace(".", "_")
            a, b = tensors[f"{target}.lora_down.weight"], tensors[f"{target}.lora_up.weight"]
            assert tensors[f"{target}.alpha"] == 3
        if not delta.any():
            continue
        moved += 1
        assert (len(a), b.shape[1]) == (3, 3)
        assert torch.allclose(after[name], before[name] + b @ a, atol=1e-6)
        error = float((delta - b.double() @ a.double()).norm() / delta.norm())
        assert f"{error:6.1%}  {module}" in "\n".join(said)
    assert moved > 4
    if layout == "diffusers":
        told = json.loads(header(file)["lora_adapter_metadata"])
        assert (told["unet.r"], told["unet.lora_alpha"]) == (3, 3)


def test_at_full_rank_the_lora_draws_what_the_studio_draws(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "draw_settings", lambda preset: Draw(steps=4, guidance=2.0))
    said: list[str] = []
    out = export(studio, "lora", tmp_path / "out", Wanted(rank=16), said.append)
    found = re.search(r"by ([\d.e-]+) of 255 on the mean over 2 pictures; .* by ([\d.e-]+)\.", said[-1])
    assert found, said[-1]
    assert float(found[1]) < 0.05
    assert float(found[2]) > 2 * float(found[1])
    card = (out / "README.md").read_text()
    assert said[-1] in card
    assert "![samples](samples.png)" in card
    assert (out / "samples.png").stat().st_size > 100


def test_the_rank_of_an_error_is_the_smallest_that_keeps_it(studio: Studio, base: Path, tmp_path: Path) -> None:
    out = export(studio, "lora", tmp_path / "out", Wanted(error=0.2, pictures=False))
    rank = len(next(t for name, t in load_file(out / "pytorch_lora_weights.safetensors").items() if "lora_A" in name))

    def worst(rank: int) -> float:
        """‖Δ − BA‖/‖Δ‖ of the worst layer, the best BA by numpy's oracle: the tail of the singular values."""
        tails = [torch.linalg.svdvals(delta) for delta in deltas(studio, base).values() if delta.any()]
        return max(float(values[rank:].norm() / values.norm()) for values in tails)

    assert worst(rank) <= 0.2 < worst(rank - 1)


def test_a_lora_of_convolutions_is_loaded_too(tuned: Studio, base: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = export(tuned, "lora", tmp_path / "out", Wanted(error=1e-6, pictures=False), said.append)
    assert any("norms and biases are left out" in line for line in said)
    pipeline = plain(base)
    pipeline.load_lora_weights(str(out))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after, ours = pipeline.unet.state_dict(), unet_of(tuned)
    kernels = [name for name, value in ours.items() if value.dim() == 4]
    assert kernels
    assert all(torch.allclose(after[name], ours[name], atol=1e-5) for name in kernels)


def test_a_rank_above_every_layer_is_refused(studio: Studio, tmp_path: Path) -> None:
    refused(stamina("export", studio.folder, tmp_path / "out", "--to", "lora", "--rank", 17, "--no-pictures"), "has 16")
    assert not (tmp_path / "out").exists()
    refused(stamina("export", studio.folder, tmp_path / "out", "--to", "kohya", "--rank", 4), "only --to lora")
    refused(stamina("export", studio.folder, tmp_path / "out", "--to", "lora", "--rank", 4, "--error", 0.1), "decides")
    refused(stamina("export", studio.folder, tmp_path / "out", "--to", "lora", "--error", 2), "below 1")


# ------------------------------------------------------------------------------------------------- embeddings


def test_diffusers_loads_each_word_to_the_bit(studio: Studio, base: Path, tmp_path: Path) -> None:
    out = export(studio, "embeddings", tmp_path / "out", QUICK)
    pipeline = plain(base)
    for name in ("rex", "tom"):
        assert list(load_file(out / f"{name}.safetensors")) == [f"<{name}>"]
        pipeline.load_textual_inversion(str(out / f"{name}.safetensors"))
        ours = rows_of(studio.backbone().pipeline, f"<{name}>")[0]
        assert torch.equal(rows_of(pipeline, f"<{name}>")[0], ours)


# ----------------------------------------------------------------------------- one file, written and begun from


def sized_base(folder: Path, version: int) -> Path:
    """A base with blocks of two sizes, one without attention, as Stable Diffusion has them; 2.x has other layers."""
    pipeline: Any = testing.tiny_pipeline()
    with seeds.drawing_for("sized", version):
        pipeline.register_modules(
            unet=UNet2DConditionModel(
                sample_size=4,
                block_out_channels=(8, 16),
                layers_per_block=2,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=16,
                attention_head_dim=2,
                norm_num_groups=4,
                use_linear_projection=version == 2,
            )
        )
        if version == 2:
            config = {**pipeline.text_encoder.config.to_dict(), "hidden_act": "gelu", "num_hidden_layers": 2}
            pipeline.register_modules(text_encoder=CLIPTextModel(CLIPTextConfig(**config)))
    pipeline.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("version", [1, 2])
def test_diffusers_reads_the_single_file_to_the_bit(tmp_path: Path, photos: tuple[Photo, ...], version: int) -> None:
    base = sized_base(tmp_path / "base", version)
    studio = Studio.create(tmp_path / "mine", str(base))
    studio.learn(photos, "rex", method=METHOD, plan=PLAN)
    out = export(studio, "checkpoint", tmp_path / "out", QUICK)
    read: Any = StableDiffusionPipeline.from_single_file(
        str(out / "model.safetensors"), config=str(out / "config"), torch_dtype=torch.float32
    )
    before = plain(base)
    assert same(read.unet.state_dict(), unet_of(studio))
    assert same(read.vae.state_dict(), before.vae.state_dict())
    assert same(read.text_encoder.state_dict(), before.text_encoder.state_dict())
    start = "cond_stage_model.transformer.text_model." if version == 1 else "cond_stage_model.model."
    assert any(key.startswith(start) for key in load_file(out / "model.safetensors"))
    read.load_textual_inversion(str(out / "embeddings" / "rex.safetensors"))
    assert torch.equal(rows_of(read, "<rex>")[0], rows_of(studio.backbone().pipeline, "<rex>")[0])


def test_a_studio_begins_from_a_single_file(studio: Studio, photos: tuple[Photo, ...], tmp_path: Path) -> None:
    file = export(studio, "checkpoint", tmp_path / "out", QUICK) / "model.safetensors"
    made = stamina("init", tmp_path / "next", "--base", file)
    assert made.exit_code == 0, made.stderr
    again = Studio.open(tmp_path / "next")
    assert (again.base["kind"], again.base["config"]) == ("file", str(file.parent / "config"))
    assert same(unet_of(again), unet_of(studio))
    again.learn(photos, "ann", method=METHOD, plan=PLAN)
    learned = {name: value.clone() for name, value in unet_of(again).items()}
    # The unpacked folder is only a cache: without it the file is read anew.
    shutil.rmtree(single_files.cache())
    assert same(unet_of(Studio.open(again.folder)), learned)
    config = file.parent / "config" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(BaseChangedError, match="not the one this studio was made with"):
        Studio.open(again.folder).backbone()
    file.unlink()
    with pytest.raises(BaseModelError, match="no longer there"):
        Studio.open(again.folder).backbone()


def test_single_files_that_are_no_base_are_refused(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    whole = {f"{start}x.weight": torch.zeros(2, 2) for start in ("model.diffusion_model.", "first_stage_model.")}
    text = {"cond_stage_model.x": torch.zeros(2)}
    cases: dict[str, tuple[dict[str, Tensor], str]] = {
        "lora": ({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, "is a LoRA, not a model"),
        "refiner": ({**whole, "conditioner.embedders.0.x": torch.zeros(2)}, "is the refiner of Stable Diffusion XL"),
        "unet": ({"model.diffusion_model.x": torch.zeros(2)}, "has no autoencoder"),
        "flux": ({"double_blocks.0.x": torch.zeros(2)}, "has no U-Net"),
        "text": (whole, "has no text encoder"),
        "small": ({**whole, **text, "y": torch.zeros(2).to(torch.float8_e4m3fn)}, "is quantised: it holds F8_E4M3"),
        "alone": ({**whole, **text}, "Give one with --config"),
    }
    for name, (tensors, message) in cases.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        ran = stamina("init", tmp_path / "new", "--base", tmp_path / f"{name}.safetensors")
        refused(ran, message)
    (tmp_path / "old.ckpt").write_bytes(b"x")
    refused(stamina("init", tmp_path / "new", "--base", tmp_path / "old.ckpt"), "is a pickle")
    (tmp_path / "cut.safetensors").write_bytes(b"xxxxxxxxxx")
    refused(stamina("init", tmp_path / "new", "--base", tmp_path / "cut.safetensors"), "cannot be read as safetensors")
    ran = stamina("init", tmp_path / "new", "--base", tmp_path / "alone.safetensors", "--config", tmp_path)
    refused(ran, "has no model_index.json")
    ran = stamina("init", tmp_path / "new", "--base", tmp_path / "alone.safetensors", "--config", studio.base["source"])
    refused(ran, "does not fit the configuration")
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------------------------------------- a LoRA as a concept


def somebodys_lora(base: Path, folder: Path, *, modules: list[str], text: bool = False) -> Any:
    """A LoRA as somebody else makes it: peft's adapter on diffusers' pipeline, saved by diffusers; rank 3, alpha 6."""
    pipeline = plain(base)
    pipeline.unet.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=modules, init_lora_weights=False))
    from peft.utils import get_peft_model_state_dict

    parts: dict[str, Any] = {"unet_lora_layers": get_peft_model_state_dict(pipeline.unet)}
    parts["unet_lora_adapter_metadata"] = pipeline.unet.peft_config["default"].to_dict()
    if text:
        pipeline.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        parts["text_encoder_lora_layers"] = get_peft_model_state_dict(pipeline.text_encoder)
        parts["text_encoder_lora_adapter_metadata"] = pipeline.text_encoder.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(str(folder), **parts)
    return folder / "pytorch_lora_weights.safetensors"


def as_kohya(tensors: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The U-Net's part under kohya's names, as its trainer writes it."""
    found = {}
    for key, tensor in tensors.items():
        if not key.startswith("unet."):
            continue
        module, part = re.fullmatch(r"unet\.(.+)\.(lora_[AB])\.weight", key).groups()  # type: ignore[union-attr]
        name = "lora_unet_" + module.replace(".", "_")
        found[f"{name}.lora_{'down' if part == 'lora_A' else 'up'}.weight"] = tensor
        found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_an_adopted_lora_is_w_plus_alpha_over_r_ba(young: Studio, base: Path, tmp_path: Path, form: str) -> None:
    studio = Path(shutil.copytree(young.folder, tmp_path / "studio"))
    file = somebodys_lora(base, tmp_path / "lora", modules=["to_k", "to_v", "ff.net.0.proj", "proj_in"], text=True)
    tensors = load_file(file)
    if form == "kohya":
        file = tmp_path / "kohya.safetensors"
        save_file(as_kohya(tensors, 6.0), file)
    before = {name: value.clone() for name, value in unet_of(Studio.open(studio)).items()}
    ran = stamina("learn", studio, "--from-lora", file, "--name", "sks", "--class", "sks dog", "--no-report")
    assert ran.exit_code == 0, ran.stderr
    assert "<sks> is adopted: version 2" in ran.stdout
    assert ("left out: 2 tensors of the text encoder" in ran.stderr) == (form == "diffusers")
    opened = Studio.open(studio)
    after, expected = unet_of(opened), dict(before)
    for key in [key for key in tensors if key.startswith("unet.") and "lora_A" in key]:
        name = key.removeprefix("unet.").replace(".lora_A", "")
        a, b = tensors[key], tensors[key.replace("lora_A", "lora_B")]
        expected[name] = before[name] + (2.0 * (b.flatten(1) @ a.flatten(1))).view(before[name].shape)
    assert same(after, expected)
    # And as diffusers' own code fuses it.
    pipeline = studio_pipeline(young)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    pipeline.fuse_lora(components=["unet"])
    pipeline.unload_lora_weights()
    theirs = pipeline.unet.state_dict()
    assert all(torch.allclose(after[name], theirs[name], atol=1e-6) for name in after)
    entry = opened.entries[-1]
    assert (entry.method, entry.photos[0]["sha256"]) == ("adopted", files.sha256(file))
    memory = opened.memory()
    changed = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    earlier = young.memory()[f"moved/{changed}"]
    own = after[changed.removeprefix("unet.")] - before[changed.removeprefix("unet.")]
    assert torch.allclose(memory[f"moved/{changed}"], earlier + own, atol=1e-6)
    pipeline = opened.backbone().pipeline
    ids = pipeline.tokenizer("sks dog", add_special_tokens=False).input_ids
    table = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.allclose(rows_of(pipeline, "<sks>")[0], table[ids].mean(0), atol=1e-6)


def studio_pipeline(studio: Studio) -> Any:
    return studio.rebuilt(studio.version).pipeline


def test_an_adopted_lora_lives_among_learned_concepts(
    young: Studio, base: Path, photos: tuple[Photo, ...], tmp_path: Path
) -> None:
    studio = Path(shutil.copytree(young.folder, tmp_path / "studio"))
    file = somebodys_lora(base, tmp_path / "lora", modules=["to_k"])
    arguments = ["learn", studio, "--from-lora", file, "--name", "sks", "--no-report"]
    ran = stamina(*arguments, "--class", "dog", "--dry-run")
    assert "would adopt <sks>" in ran.stdout
    assert Studio.open(studio).version == 1
    refused(stamina(*arguments), "does not say by which words it is called")
    save_file(load_file(file), file, {**header(file), "modelspec.trigger_phrase": "sks dog"})
    refused(stamina(*arguments, "--method", "guard"), "guard remembers more of a concept than its change")
    assert stamina(*arguments, "--method", "stamina-held").exit_code == 0
    opened = Studio.open(studio)
    opened.learn(photos, "tom", method=METHOD, plan=PLAN)
    assert opened.backbone().words == ["<rex>", "<sks>", "<tom>"]
    assert same(unet_of(Studio.open(studio)), unet_of(opened))
    # Its memory can be made anew, which forgetting another concept needs, and it can be forgotten itself.
    opened.forget("rex")
    opened.forget("sks")
    assert Studio.open(studio).backbone().words == ["<tom>"]
    refused(stamina("learn", studio, photos[0].path, "--from-lora", file, "--name", "bob"), "not both")
    refused(stamina("learn", studio, "--name", "bob"), "PHOTOS is missing")


def test_older_names_of_diffusers_are_read(studio: Studio, tmp_path: Path) -> None:
    backbone = studio.backbone()
    module = "mid_block.attentions.0.transformer_blocks.0.attn2"
    a, b = torch.randn(2, 16), torch.randn(16, 2)
    forms = {
        f"unet.{module}.processor.to_k_lora.{{}}.weight": ("down", "up"),
        f"{module}.to_k.lora.{{}}.weight": ("down", "up"),
        f"unet.{module}.to_k.lora_{{}}.weight": ("A", "B"),
    }
    for form, (down, up) in forms.items():
        save_file({form.format(down): a, form.format(up): b}, tmp_path / "a.safetensors")
        found = loras.read(tmp_path / "a.safetensors", backbone)
        assert list(found.changes) == [f"unet.{module}.to_k.weight"]
        assert torch.equal(found.changes[f"unet.{module}.to_k.weight"], b @ a)
    out = f"unet.{module}.processor.to_out_lora.{{}}.weight"
    save_file({out.format("down"): a, out.format("up"): b}, tmp_path / "a.safetensors")
    assert list(loras.read(tmp_path / "a.safetensors", backbone).changes) == [f"unet.{module}.to_out.0.weight"]


LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
PAIR = {f"{LAYER}.lora_down.weight": torch.ones(2, 16), f"{LAYER}.lora_up.weight": torch.ones(16, 2)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({**PAIR, "lora_te2_text_model_x.lora_down.weight": torch.ones(2, 2), "lora_unet_input_blocks_4_1_x.alpha":
          torch.ones(())}, "is a LoRA for Stable Diffusion XL"),
        ({"lora_unet_double_blocks_0_x.lora_down.weight": torch.ones(2, 2)}, "is a LoRA for FLUX"),
        ({"transformer.transformer_blocks.0.x.lora_A.weight": torch.ones(2, 2)}, "another diffusion transformer"),
        ({f"{LAYER}.lora_down.weight": torch.ones(2, 24), f"{LAYER}.lora_up.weight": torch.ones(16, 2)},
         "changes a 16 × 24 matrix, and the base has 16 × 16"),
        ({f"{LAYER}.lora_down.weight": torch.ones(17, 16), f"{LAYER}.lora_up.weight": torch.ones(16, 17)},
         "has rank 17"),
        ({f"{LAYER}.lora_down.weight": torch.ones(2, 16), f"{LAYER}.lora_up.weight": torch.ones(16, 3)}, "is damaged"),
        ({f"{LAYER}.lora_down.weight": torch.ones(2, 16)}, "has no up matrix"),
        ({name: value.to(torch.float8_e4m3fn) for name, value in PAIR.items()}, "is quantised: it holds F8_E4M3"),
        ({**PAIR, "something.else": torch.ones(2)}, "has 1 unknown keys, such as something.else"),
        ({**PAIR, f"{LAYER}.dora_scale": torch.ones(2)}, "is a DoRA"),
        ({f"{LAYER}.hada_w1_a": torch.ones(2, 2)}, "is a LyCORIS LoHa"),
        ({f"{LAYER}.diff": torch.ones(16, 16)}, "holds whole differences"),
        ({"lora_te_text_model_x.lora_down.weight": torch.ones(2, 2)}, "changes only the text encoder"),
        ({f"{LAYER}.alpha": torch.ones(())}, "has no"),
        ({**PAIR, f"{LAYER}.lora_up.weight": torch.full((16, 2), float("nan"))}, "not finite"),
    ],
)  # fmt: skip
def test_a_lora_that_cannot_be_adopted_is_refused(
    young: Studio, tmp_path: Path, tensors: dict[str, Tensor], said: str
) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(LoraError, match=re.escape(said)):
        loras.read(tmp_path / "a.safetensors", young.backbone())


def test_a_refused_lora_leaves_the_studio_as_it_was(young: Studio, tmp_path: Path) -> None:
    def inside() -> dict[Path, str]:
        found = [path for path in young.folder.rglob("*") if path.is_file() and path.name != ".lock"]
        return {path: files.sha256(path) for path in found}

    before = inside()
    save_file({**PAIR, "something.else": torch.ones(2)}, tmp_path / "a.safetensors")
    arguments = ["learn", young.folder, "--name", "bob", "--class", "x", "--from-lora"]
    refused(stamina(*arguments, tmp_path / "a.safetensors"), "has 1 unknown keys")
    assert inside() == before
    backbone = young.backbone()
    # Never opened: the suffix is enough for a pickle, and the header for what only pretends.
    for name, message in (("a.pt", "is a pickle"), ("b.safetensors", "cannot be read"), ("no", "no such file")):
        if name != "no":
            (tmp_path / name).write_bytes(b"\x80\x04}.")
        with pytest.raises(LoraError, match=message):
            loras.read(tmp_path / name, backbone)


# ------------------------------------------------------------------------------------------------------ the hub


class Hub:
    """Stands where the network would be."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    error: ClassVar[Exception | None] = None

    def create_repo(self, repo: str, **options: Any) -> None:
        self.calls.append((repo, options))
        if self.error:
            raise self.error

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(
            ("upload", options | {"files": sorted(p.name for p in Path(options["folder_path"]).iterdir())})
        )


def test_an_export_is_pushed_as_a_private_repository(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    arguments = ["export", studio.folder, "--to", "embeddings", "--no-pictures", "--push-to-hub"]
    ran = stamina(*arguments, "me/rex", tmp_path / "out")
    assert ran.exit_code == 0, ran.stderr
    assert Hub.calls[0] == ("me/rex", {"private": True, "exist_ok": True})
    assert Hub.calls[1][1]["files"] == ["README.md", "rex.safetensors", "tom.safetensors"]
    assert "/me/rex" in ran.stdout
    monkeypatch.setattr(Hub, "error", HTTPError("the hub cannot be reached"))
    refused(stamina(*arguments, "me/rex", tmp_path / "second"), "the hub cannot be reached")
    assert (tmp_path / "second" / "README.md").is_file()
    refused(stamina(*arguments, "no name/at/all", tmp_path / "third"), "is no name of a repository")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(stamina(*arguments, "me/rex", tmp_path / "third"), "HF_HUB_OFFLINE is set")
    assert not (tmp_path / "third").exists()
    with pytest.raises(ExportError, match="HF_HUB_OFFLINE"):
        hub.check("me/rex")
