"""SDXL, SD 3 and FLUX.1 in every format: read by diffusers' code, by the card's own lines, or by a host's key rules."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from stamina_diffusion import loras, single_files, testing
from stamina_diffusion.backbones.diffusion.flux import Flux
from stamina_diffusion.backbones.diffusion.original_names import gathered
from stamina_diffusion.backbones.diffusion.text_to_image import TextToImage
from stamina_diffusion.cli import app
from stamina_diffusion.errors import ExportError, LoraError
from stamina_diffusion.exports import export, ldm, source
from stamina_diffusion.exports.source import Wanted, rows_of
from stamina_diffusion.methods import build
from stamina_diffusion.photos import collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.settings import Draw
from stamina_diffusion.studio import Studio
from stamina_diffusion.testing_pipelines import TINY

FAMILIES = ("SDXL", "SD3", "FLUX")
PLAN = Plan(steps=3, batch=2, prior_images=0)
METHOD = build("stamina", {"rank": 4, "rate": 2e-3, "word_rate": 0.02})
QUICK = Wanted(pictures=False)
PROMPT = "a photo of <rex> and <tom>"


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Single files are unpacked into the user's cache: here into one that the tests throw away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@cache
def taught(family: str, root: Path) -> Studio:
    """A studio of a family that knows <rex> and <tom>; not to be written to."""
    base, photos = root / f"base-{family}", root / f"photos-{family}"
    TINY[family]().save_pretrained(base)
    photos.mkdir()
    for place, picture in enumerate(testing.noise_pictures(3, 16)):
        picture.save(photos / f"{place}.png")
    studio = Studio.create(root / f"studio-{family}" / "mine", str(base))
    for name in ("rex", "tom"):
        studio.learn(collect(photos, resolution=16), name, method=METHOD, plan=PLAN, class_word="dog")
    return studio


@pytest.fixture
def studio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return taught(request.param, tmp_path_factory.getbasetemp())


every_family = pytest.mark.parametrize("studio", FAMILIES, indirect=True)


def stamina(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@cache
def loaded(studio: Studio) -> Any:
    return getattr(diffusers, type(studio.backbone().pipeline).__name__).from_pretrained(studio.base["source"])


def plain(studio: Studio) -> Any:
    """The base as a host has it, by diffusers' own code."""
    return copy.deepcopy(loaded(studio))


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without SD3's table of positions, which is no weight."""
    return {name: tensor for name, tensor in state.items() if name != "pos_embed.pos_embed"}


def denoiser_of(pipeline: Any) -> Any:
    return pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer


def state_of(studio: Studio) -> dict[str, Tensor]:
    return studio.backbone().denoiser.state_dict()


def same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def follow_the_card(out: Path, pipeline: Any = None) -> Any:
    """Run the Python lines of an export's card, as its reader would, in its folder; the answer is the pipeline."""
    code = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[-1]
    names: dict[str, Any] = {"pipeline": pipeline}
    with chdir(out):
        exec(code, names)
    return names["pipeline"]


def drawn(pipeline: Any) -> bytes:
    pipeline.set_progress_bar_config(disable=True)
    draw = {"num_inference_steps": 2, "guidance_scale": 2.0, "height": 8, "width": 8}
    return pipeline(PROMPT, generator=torch.Generator("cpu").manual_seed(7), **draw).images[0].tobytes()


def ours(studio: Studio) -> bytes:
    return studio.backbone().draw([PROMPT], [7], steps=2, guidance=2.0)[0].tobytes()


# ----------------------------------------------------------------------------------------------------- exact formats


@every_family
def test_weights_and_words_by_the_cards_lines_are_the_model_to_the_bit(studio: Studio, tmp_path: Path) -> None:
    out = export(studio, "weights", tmp_path / "out", QUICK)
    assert not same(denoiser_of(plain(studio)).state_dict(), state_of(studio))
    pipeline = follow_the_card(out, plain(studio))
    assert same(denoiser_of(pipeline).state_dict(), state_of(studio))
    assert drawn(pipeline) == ours(studio)
    tensors = load_file(out / "weights.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert len(tensors) == len(studio.backbone().weight_sites("cross-attention"))


@every_family
def test_a_words_file_holds_its_row_of_each_encoder(studio: Studio, tmp_path: Path) -> None:
    out = export(studio, "embeddings", tmp_path / "out", QUICK)
    pipeline, live = follow_the_card(out, plain(studio)), studio.backbone()
    for word in ("<rex>", "<tom>"):
        theirs = rows_of(pipeline, word, live.encoder_names)
        mine = rows_of(live.pipeline, word, live.encoder_names)
        assert len(theirs) == len(live.encoder_names)
        assert all(torch.equal(one, other) for one, other in zip(theirs, mine, strict=True))
    # ComfyUI asks for an encoder's own key, and takes the first where there is none; a table of rows or one row.
    found = load_file(out / "rex.safetensors")
    expected = {"<rex>"} if isinstance(live, Flux) else {"clip_l", "clip_g"}
    assert found.keys() == expected
    for key, row in zip(("clip_l", "clip_g"), rows_of(live.pipeline, "<rex>", live.encoder_names), strict=False):
        assert torch.equal(found.get(key, next(iter(found.values()))).reshape(-1), row)
    assert ("CLIPTextEncode" in (out / "README.md").read_text()) == (not hasattr(pipeline, "unet"))


def original(state: dict[str, Tensor], backbone: TextToImage) -> dict[str, Tensor]:
    """A denoiser's weights as ComfyUI, Forge and kohya's tools hold them."""
    if backbone.denoiser_name == "unet":
        named = ldm.unet(state, backbone.denoiser.config.layers_per_block)
        return {name.removeprefix(ldm.UNET): tensor for name, tensor in named.items()}
    return gathered(state, backbone.place)


def back(state: dict[str, Tensor], backbone: TextToImage) -> dict[str, Tensor]:
    """`original` undone by diffusers' own code, or for a U-Net left as it is."""
    if backbone.denoiser_name == "unet":
        return state
    if isinstance(backbone, Flux):
        # It knows the published width only in FLUX's single blocks, of which nothing was changed.
        state = {name: value for name, value in state.items() if not name.startswith("single_blocks.")}
        for end, shape in {"linear1": (21504, 1), "linear2": (1, 1), "modulation.lin": (1, 1)}.items():
            state |= {f"single_blocks.0.{end}.{part}": torch.empty(shape, device="meta") for part in ("weight", "bias")}
        state |= {f"single_blocks.0.norm.{one}_norm.scale": torch.empty(1, device="meta") for one in ("query", "key")}
        found = single_file_utils.convert_flux_transformer_checkpoint_to_diffusers(state)
        return {name: value for name, value in found.items() if not name.startswith("single_")}
    return single_file_utils.convert_sd3_transformer_checkpoint_to_diffusers(state)


@pytest.mark.parametrize("studio", ["SD3", "FLUX"], indirect=True)
def test_original_names_are_what_diffusers_turns_into_its_own(studio: Studio) -> None:
    backbone = studio.backbone()
    state = dict(backbone.denoiser.state_dict())
    native = original(weights(state), backbone)
    if "pos_embed.pos_embed" in state:
        native["pos_embed"] = state["pos_embed.pos_embed"]
    expected = {name: value for name, value in state.items() if not name.startswith("single_")}
    assert same(back(native, backbone), expected)


def test_every_name_of_fluxs_transformer_at_its_real_size() -> None:
    with torch.device("meta"):
        network = diffusers.FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True)
    backbone = Flux.__new__(Flux)
    backbone.pipeline = type("Pipeline", (), {"transformer": network})
    state = network.state_dict()
    found = single_file_utils.convert_flux_transformer_checkpoint_to_diffusers(gathered(state, backbone.place))
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in state.items()}


@every_family
def test_kohya_is_the_model_to_the_bit_under_the_names_of_the_family(studio: Studio, tmp_path: Path) -> None:
    """ComfyUI's and Forge's rule: lora_unet_ and a weight's original name with _; .diff in the weight's own shape."""
    said: list[str] = []
    out = export(studio, "kohya", tmp_path / "out", QUICK, said.append)
    backbone = studio.backbone()
    host = original(weights(denoiser_of(plain(studio)).state_dict()), backbone)
    left = load_file(out / "mine.safetensors")
    for name in [name for name in host if name.endswith(".weight")]:
        key = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}.diff"
        if key in left:
            difference = left.pop(key)
            assert (difference.shape, difference.dtype) == (host[name].shape, torch.float32)
            host[name] = host[name] + 1.0 * difference
    assert not left
    now = original(weights(state_of(studio)), backbone)
    off = sum(int((host[name] != now[name]).sum()) for name in now)
    inexact = re.fullmatch(r"\d+ weights; (\d+) of (\d+) entries come back to the bit in float32", said[0])
    assert inexact
    assert off == int(inexact[2]) - int(inexact[1])
    assert off <= 0.01 * int(inexact[2])
    assert all(torch.allclose(host[name], now[name], rtol=0, atol=1e-7) for name in now)


@pytest.mark.parametrize("studio", ["SDXL"], indirect=True)
def test_a_single_file_of_sdxl_is_the_model_to_the_bit_and_a_base(studio: Studio, tmp_path: Path) -> None:
    out = export(studio, "checkpoint", tmp_path / "out", QUICK)
    pipeline, before = follow_the_card(out), plain(studio)
    assert same(pipeline.unet.state_dict(), state_of(studio))
    assert same(pipeline.vae.state_dict(), before.vae.state_dict())
    for name in ("text_encoder", "text_encoder_2"):
        old, new = getattr(before, name).state_dict(), getattr(pipeline, name).state_dict()
        # Longer by the new words, which the card's lines have loaded.
        assert all(torch.equal(value, new[key][: len(value)]) for key, value in old.items())
    assert drawn(pipeline) == ours(studio)
    made = stamina("init", tmp_path / "next", "--base", out / "model.safetensors")
    assert made.exit_code == 0, made.stderr
    again = Studio.open(tmp_path / "next")
    assert same(state_of(again), state_of(studio))
    single_files.check(out / "model.safetensors")


@pytest.mark.parametrize("studio", ["SD3", "FLUX"], indirect=True)
def test_a_format_that_nothing_opens_is_refused_with_those_that_there_are(studio: Studio, tmp_path: Path) -> None:
    ran = stamina("export", studio.folder, tmp_path / "out", "--to", "checkpoint", "--no-pictures")
    assert ran.exit_code == 2, ran.stdout
    said = " ".join(ran.stderr.split())
    assert "the format 'checkpoint' is not there for" in said
    assert "Take one of: diffusers, weights, kohya, lora, embeddings." in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExportError, match="and not the other way"):
        export(studio, "checkpoint", tmp_path / "out")


# ---------------------------------------------------------------------------------------------------------- the LoRA


@every_family
@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_the_lora_is_w_plus_ba_for_whoever_reads_it(studio: Studio, tmp_path: Path, layout: Any) -> None:
    said: list[str] = []
    out = export(studio, "lora", tmp_path / "out", Wanted(layout=layout, rank=3, pictures=False), said.append)
    (file,) = out.glob("*.safetensors")
    tensors, backbone = load_file(file), studio.backbone()
    before, after = denoiser_of(plain(studio)).state_dict(), state_of(studio)
    deltas = [name for name in after if not torch.equal(after[name], before[name])]
    expected = dict(before)
    if layout == "diffusers":
        for name in deltas:
            key = f"{backbone.denoiser_name}.{name.removesuffix('.weight')}"
            if f"{key}.lora_A.weight" in tensors:
                a, b = tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"]
                assert (len(a), b.shape[1]) == (3, 3)
                expected[name] = before[name] + b @ a
    else:
        host = original(weights(before), backbone)
        for name in [name for name in host if name.endswith(".weight")]:
            key = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            if f"{key}.alpha" in tensors:
                assert tensors.pop(f"{key}.alpha") == 3
                host[name] = host[name] + tensors.pop(f"{key}.lora_up.weight") @ tensors.pop(f"{key}.lora_down.weight")
        assert not tensors
        names = {name: backbone.place(f"{backbone.denoiser_name}.{name}") for name in deltas}
        for name, at in names.items():
            expected[name] = host[at.name][at.start : at.start + len(before[name])]
    moved = [name for name in deltas if not torch.equal(expected[name], before[name])]
    assert len(moved) >= 3
    if backbone.name == "Stable Diffusion 3" and layout == "kohya":
        assert "In diffusers" not in (out / "README.md").read_text()
    else:
        pipeline = follow_the_card(out, plain(studio))
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        theirs = denoiser_of(pipeline).state_dict()
        assert all(torch.allclose(theirs[name], expected[name], atol=1e-6) for name in theirs)
    with safe_open(file, framework="pt") as opened:
        told = opened.metadata()
    start = {"unet": "stable-diffusion-xl-v1-base/lora", "transformer": ("stable-diffusion-3", "flux-1-dev/lora")}
    assert told["modelspec.architecture"].startswith(start[backbone.denoiser_name])
    assert told["ss_network_dim"] == "3"
    # What it says of itself: the first layer's ‖Δ − BA‖/‖Δ‖, of a layer as the layout calls it.
    if layout == "diffusers":
        name = next(name for name in deltas if not torch.equal(expected[name], before[name]))
        change = after[name].double() - before[name].double()
        error = float((change - (expected[name].double() - before[name].double())).norm() / change.norm())
        told_of = next(line for line in said if line.endswith(name.removesuffix(".weight")))
        assert abs(float(told_of.split("%")[0]) / 100 - error) < 1e-3


@every_family
def test_at_full_rank_the_lora_draws_what_the_studio_draws(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "draw_settings", lambda preset: Draw(steps=2, guidance=2.0))
    said: list[str] = []
    export(studio, "lora", tmp_path / "out", Wanted(rank=16), said.append)
    found = re.search(r"by ([\d.e-]+) of 255 on the mean over 2 pictures; .* by ([\d.e-]+)\.", said[-1])
    assert found, said[-1]
    assert float(found[1]) < 0.05
    assert float(found[2]) > 2 * float(found[1])


# ---------------------------------------------------------------------------------------------- a LoRA as a concept


def somebodys_lora(studio: Studio, folder: Path) -> Path:
    """As somebody else makes it: peft's adapter on diffusers' pipeline, saved by diffusers; rank 3, alpha 6."""
    pipeline = plain(studio)
    part = studio.backbone().denoiser_name
    modules = ["to_k", "to_v", "to_q", "add_k_proj", "add_v_proj"]
    config = LoraConfig(r=3, lora_alpha=6, target_modules=modules, init_lora_weights=False)
    denoiser_of(pipeline).add_adapter(config)
    layers = {f"{part}_lora_layers": get_peft_model_state_dict(denoiser_of(pipeline))}
    told = {f"{part}_lora_adapter_metadata": denoiser_of(pipeline).peft_config["default"].to_dict()}
    type(pipeline).save_lora_weights(str(folder), **layers, **told)
    return folder / "pytorch_lora_weights.safetensors"


def adopted(studio: Studio, file: Path, tmp_path: Path) -> dict[str, Tensor]:
    copied = Path(shutil.copytree(studio.folder, tmp_path / "copied"))
    ran = stamina("learn", copied, "--from-lora", file, "--name", "sks", "--class", "sks dog", "--no-report")
    assert ran.exit_code == 0, ran.stderr
    opened = Studio.open(copied)
    assert opened.backbone().words == ["<rex>", "<tom>", "<sks>"]
    return state_of(opened)


@every_family
def test_somebodys_lora_becomes_a_concept_as_diffusers_would_fuse_it(studio: Studio, tmp_path: Path) -> None:
    file = somebodys_lora(studio, tmp_path / "lora")
    after = adopted(studio, file, tmp_path)
    pipeline = studio.rebuilt(studio.version).pipeline
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    theirs, before = denoiser_of(pipeline).state_dict(), state_of(studio)
    assert not same(after, before)
    assert after.keys() == theirs.keys()
    assert all(torch.allclose(after[name], theirs[name], atol=1e-6) for name in after)


@every_family
def test_kohyas_names_of_a_family_are_adopted(studio: Studio, tmp_path: Path) -> None:
    """One matrix of query, key and value in joint attention; numbered blocks in SDXL. Rank 2, alpha 1."""
    torch.manual_seed(0)
    backbone, before = studio.backbone(), state_of(studio)
    native, tensors = original(weights(before), backbone), {}
    signs = {"unet": r".*attn2\.to_k\.weight", "transformer": r"(double|joint)_blocks\..*(txt|context).*qkv\.weight"}
    layers = [name for name in native if re.fullmatch(signs[backbone.denoiser_name], name)]
    assert len(layers) >= 2
    expected = dict(native)
    for name in layers:
        up, down = torch.randn(len(native[name]), 2), torch.randn(2, native[name].shape[1])
        key = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
        tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(1.0)}
        expected[name] = native[name] + 0.5 * up @ down
    tensors["lora_te1_text_model_x.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "a.safetensors")
    after = adopted(studio, tmp_path / "a.safetensors", tmp_path)
    found = original({name: after[name] for name in weights(before)}, backbone)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)


@every_family
def test_an_exported_lora_is_adopted_by_a_fresh_studio(studio: Studio, tmp_path: Path) -> None:
    fresh = Studio.create(tmp_path / "fresh", studio.base["source"]).backbone()
    found = {}
    for layout in ("diffusers", "kohya"):
        out = export(studio, "lora", tmp_path / layout, Wanted(layout=layout, rank=16, pictures=False))  # type: ignore[arg-type]
        (file,) = out.glob("*.safetensors")
        found[layout] = loras.read(file, fresh).changes
    now, before = studio.backbone().weight_sites("network"), fresh.weight_sites("network")
    for changes in found.values():
        assert len(changes) >= 3
        for name, change in changes.items():
            assert torch.allclose(before[name].value + change, now[name].value, atol=1e-6)


PAIR = {"lora_down.weight": torch.ones(2, 16), "lora_up.weight": torch.ones(16, 2)}
OTHERS = {
    "Stable Diffusion 1.x or 2.x": "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
    "Stable Diffusion XL": "lora_unet_input_blocks_7_1_transformer_blocks_0_attn2_to_k",
    "Stable Diffusion 3": "lora_unet_joint_blocks_9_context_block_attn_qkv",
    "FLUX.1": "transformer.single_transformer_blocks.9.attn.to_k",
}


@every_family
@pytest.mark.parametrize("other", OTHERS)
def test_a_lora_of_another_family_is_refused_by_its_name(studio: Studio, tmp_path: Path, other: str) -> None:
    tensors = {f"{OTHERS[other]}.{part}": value for part, value in PAIR.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    backbone = studio.backbone()
    said = "has 2 unknown keys" if backbone.name == other else f"is a LoRA for {re.escape(other)}"
    with pytest.raises(LoraError, match=f"{said}(.|\n)*studio's own base, {re.escape(backbone.name)}"):
        loras.read(tmp_path / "a.safetensors", backbone)


@pytest.mark.parametrize("studio", ["SD3"], indirect=True)
def test_a_header_names_the_family_where_the_names_could_be_anothers(studio: Studio, tmp_path: Path) -> None:
    key = "transformer.transformer_blocks.0.attn.add_k_proj"
    tensors = {f"{key}.lora_A.weight": torch.ones(2, 24), f"{key}.lora_B.weight": torch.ones(24, 2)}
    save_file(tensors, tmp_path / "a.safetensors", {"modelspec.architecture": "flux-1-dev/lora"})
    with pytest.raises(LoraError, match=r"was made for FLUX\.1: at transformer\."):
        loras.read(tmp_path / "a.safetensors", studio.backbone())
