"""Stage 1: the base pool as arrays: pictures, the grades of their factors, and tokenized captions."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import CLIPTokenizer

from ... import files
from ...errors import SettingsError
from ...world import FAMILIES, View, WorldConcept
from ..encoder import RESOLUTION, factors
from . import Recipe

SHARD = 130
"""Concepts in one file: the unit that an interrupted rendering repeats."""
TOKENIZED = 10_000
"""Captions that are tokenized at once."""


class Rendered(Protocol):
    """The numbers of a recipe that say what is rendered."""

    @property
    def identities(self) -> int: ...

    @property
    def views(self) -> int: ...

    @property
    def captions(self) -> int: ...


@dataclass(frozen=True)
class BasePool:
    """N pictures of the base pool; a picture's identity is its row in `identities`, (N,)."""

    pictures: np.ndarray
    """(N, 64, 64, 3) uint8"""
    grades: np.ndarray
    """(N, factors) int8: the place of each factor's grade, −1 where the factor is of the other family"""
    identities: np.ndarray
    captions: list[list[str]]


def grade_row(view: View) -> np.ndarray:
    """The place of each factor's grade of a view, (factors,) int8; −1 for the factors of the other family."""
    row = []
    for name, values in factors().items():
        family, factor = name.split("/", 1)
        row.append(values.index(view.attributes[factor]) if family == view.concept.family else -1)
    return np.array(row, dtype=np.int8)


def _render_shard(task: tuple[Path, str, int, int, int, int]) -> None:
    path, family, start, stop, views, captions = task
    pictures, rows, words = [], [], []
    for index in range(start, stop):
        concept = WorldConcept(family, "base", index)
        for number in range(views):
            view = concept.view(number)
            pictures.append(np.asarray(view.render(RESOLUTION)))
            rows.append(grade_row(view))
            words.append([view.caption(variant) for variant in range(captions)])
    beside = path.with_suffix(".part")
    with open(beside, "wb") as file:
        np.savez(file, pictures=np.stack(pictures), grades=np.stack(rows), captions=np.array(words, dtype=np.str_))
    beside.rename(path)


def render(folder: Path, recipe: Rendered, processes: int | None = None) -> BasePool:
    """Render the base pool into `folder` (what is there is not rendered again) and read it."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        (folder / f"{family}-{start:06d}.npz", family, start, min(start + SHARD, recipe.identities))
        for family in FAMILIES
        for start in range(0, recipe.identities, SHARD)
    ]
    missing = [(*task, recipe.views, recipe.captions) for task in tasks if not task[0].exists()]
    if missing:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for _ in tqdm(pool.imap_unordered(_render_shard, missing), total=len(missing), desc="rendering"):
                pass
    shards = [np.load(task[0]) for task in tasks]
    for (path, _, start, stop), shard in zip(tasks, shards, strict=True):
        if shard["captions"].shape != ((stop - start) * recipe.views, recipe.captions):
            what = "was rendered by a recipe of other numbers of identities, views or captions"
            raise SettingsError(what, where=path, do="Give another folder, or delete this one's data.")
    count = len(FAMILIES) * recipe.identities
    return BasePool(
        pictures=np.concatenate([shard["pictures"] for shard in shards]),
        grades=np.concatenate([shard["grades"] for shard in shards]),
        identities=np.repeat(np.arange(count), recipe.views),
        captions=[row.tolist() for shard in shards for row in shard["captions"]],
    )


def as_input(pictures: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Pictures (N, H, W, 3) uint8 → (N, 3, H, W) in [−1, 1]."""
    return torch.as_tensor(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def tokenizer_of(folder: Path, pool: BasePool, recipe: Recipe) -> CLIPTokenizer:
    """The run's tokenizer: made once and kept in `folder`, for every later stage must give a word the same place."""
    path = folder / "tokenizer"
    if not path.exists():
        beside = folder / "tokenizer.part"
        captions = (caption for row in pool.captions for caption in row)
        make_tokenizer(captions, recipe.text_length).save_pretrained(beside)
        beside.rename(path)
    return CLIPTokenizer.from_pretrained(path)


def tokens_of(folder: Path, pool: BasePool, tokenizer: CLIPTokenizer, recipe: Recipe) -> torch.Tensor:
    """Every caption's token ids, (N, captions, text length) int16, made once."""
    path = folder / "tokens.safetensors"
    if not path.exists():
        captions = [caption for row in pool.captions for caption in row]
        parts = [captions[i : i + TOKENIZED] for i in range(0, len(captions), TOKENIZED)]
        # Without the wrapper, whose lists and masks take most of the time, and on all cores.
        fast = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        fast.enable_truncation(recipe.text_length)
        pad = {"pad_id": tokenizer.pad_token_id, "pad_token": tokenizer.pad_token}
        fast.enable_padding(length=recipe.text_length, **pad)
        made = [
            np.array([encoded.ids for encoded in fast.encode_batch_fast(part)], dtype=np.int16)
            for part in tqdm(parts, desc="tokens")
        ]
        files.write_tensors(path, {"tokens": torch.from_numpy(np.concatenate(made))})
    return files.read_tensors(path)["tokens"].view(len(pool.captions), -1, recipe.text_length)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str], length: int) -> torch.Tensor:
    """Token ids, padded or cut to `length`, (N, length)."""
    return tokenizer(captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids


def make_tokenizer(captions: Iterable[str], length: int) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges spell the captions' words, one token a word; any other text falls to its bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, min_frequency=2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    words = sorted({word for caption in captions for word in caption.lower().replace(",", " , ").split()})
    # Every word with a count of its own: the trainer breaks ties by the order of a hash table, another in every run.
    trained.train_from_iterator((" ".join([word] * (4 + place)) for place, word in enumerate(words)), trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    tokens = alphabet + [f"{letter}</w>" for letter in alphabet] + ["".join(pair) for pair in merges]
    tokens = [*list(dict.fromkeys(tokens)), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)  # type: ignore[arg-type]
