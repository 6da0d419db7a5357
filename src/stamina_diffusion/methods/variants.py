"""Every row of a table of methods by its name: a method with settings, the ablations among them."""

from __future__ import annotations

from typing import Any

PAPER: dict[str, tuple[str, dict[str, Any]]] = {
    "textual inversion": ("textual-inversion", {}),
    "dreambooth": ("dreambooth", {}),
    "dreambooth, no prior images": ("dreambooth", {"prior": False}),
    "custom diffusion": ("custom-diffusion", {}),
    "custom diffusion, merged": ("custom-diffusion-merged", {}),
    "lora": ("lora", {}),
    "lora, merged": ("lora-merged", {}),
    "ewc over custom diffusion": ("ewc", {"over": "custom-diffusion"}),
    "replay over custom diffusion": ("replay", {"over": "custom-diffusion"}),
    "c-lora": ("c-lora", {}),
    "c-lora, no self-regularisation": ("c-lora", {"strength": 0.0}),
    "c-lora, class word": ("c-lora", {"class_word": True}),
    "c-lora, word from the class word": ("c-lora", {"class_word": True, "word_start": "class"}),
    "stamina": ("stamina", {}),
}
"""The rows that C-LoRA's and STAMINA's tables are believed to have (paper names certain, numbers ours)."""

ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "stamina, no mask": ("stamina", {"mask": "none"}),
    "stamina, plain word": ("stamina", {"word_mlp": False}),
    "stamina, no self-regularisation": ("stamina", {"strength": 0.0}),
    "stamina, sparse": ("stamina", {"sparsity": 1e-2}),
    "stamina, gates": ("stamina", {"mask": "gates"}),
    "stamina, scaling 1/r": ("stamina", {"scaling": "1/r"}),
}
"""STAMINA without one of its parts, or with another form of it."""

SIBLINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora, continued": ("lora-continued", {}),
    "lora, orthogonal start": ("lora-orthogonal", {}),
    "lora, largest magnitude": ("lora-merged", {"merge": "largest"}),
    "o-lora": ("o-lora", {}),
    "ewc over lora": ("ewc", {"over": "lora"}),
    "ewc-dc": ("ewc-dc", {}),
    "dsc": ("dsc", {}),
}
"""Later papers' methods. What arXiv 2410.04891 calls merge and initialise is `lora`."""

OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "stamina, generic prompts held": ("stamina-held", {}),
    "guard over lora": ("guard", {"over": "lora"}),
    "guard over c-lora": ("guard", {"over": "c-lora"}),
    "guard over stamina": ("guard", {"over": "stamina"}),
}

VARIANTS = {**PAPER, **ABLATIONS, **SIBLINGS, **OURS}
"""Row → the method's name and its settings beside the preset's."""

CLASSIFICATION: dict[str, tuple[str, dict[str, Any]]] = {
    "ft": ("fine-tune", {"weights": "network", "rate": 5e-5}),
    "ft++": ("fine-tune", {"weights": "network", "rate": 5e-5}),
    "lwf": ("lwf", {}),
    "ewc": ("ewc", {"over": "lora"}),
    "lora": ("lora", {}),
    "lora, averaged": ("averaged", {"over": "lora"}),
    "lora, perturb-and-merge": ("perturb-and-merge", {"over": "lora"}),
    "o-lora": ("o-lora", {}),
    "c-lora": ("c-lora", {}),
    "inflora": ("inflora", {}),
    "sd-lora": ("sd-lora", {}),
    "slca": ("slca", {}),
    "stamina": ("stamina", {}),
}
"""The rows of a table of continual classification. All train a local softmax, but those of `SEEN_SOFTMAX`."""

SEEN_SOFTMAX = frozenset({"ft"})
"""Rows that train the softmax over every class so far: what tells FT from FT++ (arXiv 2211.13218, its code)."""

ADAPTERS = ("lora", "c-lora", "o-lora", "inflora", "sd-lora", "stamina")
MERGES = ("sum", "averaged", "perturb-and-merge")
"""What becomes of each task's change: all of it is folded, or the share that the method of that name says."""


def merged(adapter: str, merge: str) -> tuple[str, dict[str, Any]]:
    """An adapter of `ADAPTERS` under a merge of `MERGES`, as a row of a table.

    >>> merged("stamina", "averaged"), merged("stamina", "sum")
    (('averaged', {'over': 'stamina'}), ('stamina', {}))
    """
    return (adapter, {}) if merge == "sum" else (merge, {"over": adapter})


GRID = {f"{adapter}, {merge}": merged(adapter, merge) for adapter in ADAPTERS for merge in MERGES}
"""Adapter × merge; each of them under every head of `heads.HEADS` is the grid that nobody has published."""
