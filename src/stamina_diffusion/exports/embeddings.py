"""The words alone, one file a concept: diffusers' textual inversion, an embedding in ComfyUI and A1111.

With one text encoder that learns words (Stable Diffusion 1.x and 2.x, FLUX.1) the only key is the word itself; with two
(SDXL, Stable Diffusion 3) the keys are `clip_l` and `clip_g`. A host that calls an embedding by its file's name
(ComfyUI: `embedding:rex`, A1111: `rex`) finds it under the concept's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .. import files
from ..backbones.diffusion.text_to_image import TextToImage
from ..errors import ExportError
from . import hosts
from .source import Source, Written

FOLDER = "embeddings"

KEYS = ("clip_l", "clip_g")

_USE = """\
```python
{lines}```

{uis}
"""
_UIS = "Put the files where embeddings go; ComfyUI calls them `embedding:{name}`, A1111 and Forge `{name}`."
_UIS_WITH_T5 = """\
In ComfyUI put the files where embeddings go and give each encoder its own prompt (`CLIPTextEncodeFlux`,
`CLIPTextEncodeSD3`): CLIP reads `embedding:{name}`, and T5, which learns no words, `{word}` as it is spelled."""

_ENDS = """\
for tokenizer, encoder in ({pairs}):
    # Where a prompt's summary is taken: at its end, and not at a new word, as the published configurations would.
    encoder.config.eos_token_id = getattr(encoder, "text_model", encoder).eos_token_id = tokenizer.eos_token_id
"""
_PAIRS = {
    "text_encoder": "(pipeline.tokenizer, pipeline.text_encoder)",
    "text_encoder_2": "(pipeline.tokenizer_2, pipeline.text_encoder_2)",
}
_ONE = 'pipeline.load_textual_inversion("{file}")\n'
_BOTH = """\
rows = load_file("{file}")
pipeline.load_textual_inversion(rows["clip_l"], token="{word}")
second = {{"tokenizer": pipeline.tokenizer_2, "text_encoder": pipeline.text_encoder_2}}
pipeline.load_textual_inversion(rows["clip_g"], token="{word}", **second)
"""
_BY_HAND = """\
rows = load_file("{file}")
first, second = (pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2)
for key, (tokenizer, encoder) in zip(("clip_l", "clip_g"), (first, second)):
    tokenizer.add_tokens("{word}")
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    encoder.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids("{word}")] = rows[key][0]
"""


def write(source: Source, folder: Path) -> Written:
    """A file for each word."""
    if not source.words:
        raise ExportError("no word was learned", where=source.studio.folder, do="Learn a concept first.")
    paths = [_write(source, folder, name, word) for name, word in source.words.items()]
    lost = ("The changes of the denoiser's weights are not in it: take --to weights, kohya or lora for them.",)
    return Written(_USE.format(lines=how(source, paths), uis=in_uis(source)), lost if source.moved else ())


def how(source: Source, paths: Sequence[Path], *, imported: bool = False) -> str:
    """Lines of Python that give `pipeline` the words of these files; `imported` if `load_file` is there already."""
    names, knows, lines = source.now.encoder_names, hosts.known(source.now), ""
    if paths and knows.summarises:
        lines += _ENDS.format(pairs=", ".join(_PAIRS[name] for name in names) + ("," if len(names) == 1 else ""))
    for path, word in zip(paths, source.words.values(), strict=True):
        file = path.name if path.parent.name != FOLDER else f"{FOLDER}/{path.name}"
        form = _ONE if len(names) == 1 else _BOTH if knows.diffusers_reads_words else _BY_HAND
        lines += form.format(file=file, word=word)
    if "load_file(" in lines and not imported:
        return f"from safetensors.torch import load_file\n\n{lines}"
    return lines


def in_uis(source: Source) -> str:
    """Where the words' files go in programs with windows."""
    name, word = next(iter(source.words.items()), ("name", "<name>"))
    return (_UIS_WITH_T5 if hosts.known(source.now).has_t5 else _UIS).format(name=name, word=word)


def load(host: TextToImage, path: Path, word: str) -> None:
    """Give a plain model a word from its file, by diffusers' own code where it has some."""
    rows = files.read_tensors(path)
    if len(rows) == 1:
        host.pipeline.load_textual_inversion(str(path))
    elif hosts.known(host).diffusers_reads_words:
        for key, tokenizer, encoder in zip(KEYS, host.tokenizers, host.encoders, strict=True):
            host.pipeline.load_textual_inversion(rows[key], token=word, tokenizer=tokenizer, text_encoder=encoder)
    else:
        host.add_word(word, *(rows[key][0] for key in KEYS))


def write_words(source: Source, folder: Path) -> list[Path]:
    """The words beside another format's file; where it cannot hold them, a host needs both."""
    if source.words:
        (folder / FOLDER).mkdir()
    return [_write(source, folder / FOLDER, name, word) for name, word in source.words.items()]


def tensors_of(word: str, rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """What a word's file holds, from its row in each text encoder."""
    if len(rows) == 1:
        return {word: rows[0]}
    # Hosts take several vectors a word here, so the rows stand in a table of one.
    return {key: row.unsqueeze(0) for key, row in zip(KEYS, rows, strict=True)}


def _write(source: Source, folder: Path, name: str, word: str) -> Path:
    path = folder / f"{name}.safetensors"
    files.write_tensors(path, tensors_of(word, source.rows(word)), {"format": "pt", "modelspec.trigger_phrase": word})
    return path
