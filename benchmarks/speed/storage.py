"""What a further concept costs on the disk: the model that draws, its ledger, and a LoRA file beside it for each."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any

from peft import LoraConfig

from stamina_diffusion import embedded, testing
from stamina_diffusion.exports import export
from stamina_diffusion.exports.source import Wanted
from stamina_diffusion.methods import build
from stamina_diffusion.photos import collect
from stamina_diffusion.plan import Plan
from stamina_diffusion.studio import Studio

CONCEPTS = 3


def bytes_of(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def lora_bytes(folder: Path, rank: int) -> int:
    """A LoRA file of diffusers for the same keys and values, as people keep one a concept."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_pretrained(embedded.folder(), subfolder="unet")
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=["attn2.to_k", "attn2.to_v"]))
    unet.save_lora_adapter(folder)
    return bytes_of(folder, "*.safetensors")


def rows(rank: int) -> list[dict[str, object]]:
    """Bytes that the third concept added; it does not matter how well it was learned."""
    method, plan = build("stamina", {"rank": rank}), Plan(steps=1, batch=1, prior_images=0)
    sizes: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "photos").mkdir()
        for place, picture in enumerate(testing.noise_pictures(2, 64)):
            picture.save(work / "photos" / f"{place}.png")
        photos = collect(work / "photos", resolution=64)
        studio = Studio.create(work / "studio")
        for place in range(CONCEPTS):
            studio.learn(photos, f"c{place}", method=method, plan=plan)
            pipeline = export(studio, "diffusers", work / f"pipeline-{place}", Wanted(pictures=False))
            weights = export(studio, "weights", work / f"weights-{place}", Wanted(pictures=False))
            sizes.append(
                {
                    "model": bytes_of(pipeline, "*.safetensors"),
                    "weights": (weights / "weights.safetensors").stat().st_size,
                    "ledger": (studio.folder / "ledger.json").stat().st_size,
                    "history": bytes_of(studio.folder / "concepts", "*.safetensors"),
                }
            )
        lora = lora_bytes(work / "lora", rank)
        width = studio.backbone().tables[0].embedding_dim
    grown = {key: statistics.median(b[key] - a[key] for a, b in itertools.pairwise(sizes)) for key in sizes[0]}
    ours = grown["model"] + grown["ledger"]
    return [
        {
            "measure": "stored bytes per concept after folding: the model that draws, and its line in the ledger",
            "model": f"the embedded base, rank {rank}, float32",
            "ours": ours,
            "peer": lora + 4 * width,
            "peer_name": f"a LoRA file of rank {rank} and the word's row, a concept each",
            "ratio": round(ours / (lora + 4 * width), 4),
            "of_the_model": grown["model"],
            "of_the_ledger": grown["ledger"],
            "of_the_keys_and_values": grown["weights"],
            "a_words_row": 4 * width,
            "of_the_studios_history": grown["history"],
            "note": "the studio also keeps each concept's change and memory, to roll back and to forget",
        }
    ]
