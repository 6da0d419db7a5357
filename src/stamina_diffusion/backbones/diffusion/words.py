"""The words of a pipeline: its CLIP tokenizers, and one row for each word in the table of each encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tokenizers import AddedToken
from torch import Tensor, nn

from ...errors import NameTakenError
from ...sites import Site

Text = Mapping[str, Tensor]
"""Something of P prompts, by name, each with P rows: token ids, or features of them."""


class Words:
    """A pipeline's text encoders that learn words."""

    encoder_names: ClassVar[tuple[str, ...]] = ("text_encoder",)
    """The text encoders that learn words; each has the tokenizer of the same number."""
    pipeline: Any
    device: Any
    learned: list[str]

    @property
    def encoders(self) -> list[Any]:
        return [getattr(self.pipeline, name) for name in self.encoder_names]

    @property
    def tokenizers(self) -> list[Any]:
        return [getattr(self.pipeline, name.replace("text_encoder", "tokenizer")) for name in self.encoder_names]

    @property
    def tables(self) -> list[nn.Embedding]:
        """The tables that hold the words' rows, one for each encoder."""
        return [encoder.get_input_embeddings() for encoder in self.encoders]

    @property
    def words(self) -> list[str]:
        """Every `<word>` that the first tokenizer knows, and with it the others."""
        return [token for token in self.tokenizers[0].get_added_vocab() if not token.startswith("<|")]

    def pool_where_prompts_end(self) -> None:
        """Tell every encoder its tokenizer's own end of a prompt, from where the prompt's summary is taken."""
        # The published CLIP configurations say 2, which makes transformers take it at the highest token id: where a new
        # word stands, once there is one, instead of where the prompt ends. Without new words both are the same place.
        for encoder, tokenizer in zip(self.encoders, self.tokenizers, strict=True):
            network = getattr(encoder, "text_model", encoder)
            if getattr(network, "eos_token_id", None) == 2 and tokenizer.eos_token_id != 2:
                encoder.config.eos_token_id = network.eos_token_id = tokenizer.eos_token_id

    def add_word(self, word: str, *rows: Tensor) -> dict[str, Site]:
        """Give every tokenizer a new word, with one of `rows` (width,) for each encoder; the answer is its sites.

        Raises NameTakenError when a tokenizer has the word.
        """
        for tokenizer in self.tokenizers:
            if word in tokenizer.get_vocab():
                raise NameTakenError(f"the base's tokenizer already has the word {word}", do="Take another name.")
        for table, row in zip(self.tables, rows, strict=True):
            if row.shape != table.weight.shape[1:]:
                raise ValueError(f"a word of this base has {table.embedding_dim} numbers, not {list(row.shape)}")
        for tokenizer, encoder, row in zip(self.tokenizers, self.encoders, rows, strict=True):
            tokenizer.add_tokens(AddedToken(word, normalized=False))
            if len(tokenizer) > encoder.get_input_embeddings().num_embeddings:
                encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
                encoder.requires_grad_(False)
            table = encoder.get_input_embeddings().weight
            table.data[tokenizer.convert_tokens_to_ids(word)] = row.to(table)
        self.learned.append(word)
        return self.word_sites(word)

    def word_sites(self, word: str) -> dict[str, Site]:
        """The rows of a word: 'token/<rex>' in the first encoder's table, 'token_2/<rex>' in the second's."""
        sites = {}
        for name, tokenizer, table in zip(self.row_names(word), self.tokenizers, self.tables, strict=True):
            place = tokenizer.convert_tokens_to_ids(word)
            sites[name] = Site(name, "token", table, "weight", (place, place + 1))
        return sites

    def row_names(self, word: str) -> list[str]:
        return [f"{name.replace('text_encoder', 'token')}/{word}" for name in self.encoder_names]

    def tokenize(self, prompts: Sequence[str]) -> Text:
        """What never changes about prompts: each encoder's token ids (P, tokens) under its name, on the device."""
        ids = {}
        for name, tokenizer in zip(self.encoder_names, self.tokenizers, strict=True):
            options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
            ids[name] = tokenizer(list(prompts), return_tensors="pt", **options).input_ids.to(self.device)
        return ids

    def tokenize_each(self, prompts: Mapping[str, str]) -> dict[str, Text]:
        """Each prompt as `tokenize` gives it, one row, under its own key."""
        tokens = self.tokenize([*prompts.values()]) if prompts else {}
        return {key: {name: rows[[place]] for name, rows in tokens.items()} for place, key in enumerate(prompts)}
