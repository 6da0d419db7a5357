"""The words alone, one file a concept: diffusers' textual inversion, an embedding in ComfyUI and A1111.

With one text encoder the only key is the word itself; with two the keys are `clip_l` and `clip_g`. A host that calls an
embedding by its file's name (ComfyUI: `embedding:rex`, A1111: `rex`) finds it under the concept's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .. import files
from ..errors import ExportError
from .source import Source, Written

FOLDER = "embeddings"

_USE = """\
```python
{lines}
```

In ComfyUI and A1111 put the files where embeddings go; ComfyUI calls them `embedding:{name}`, A1111 `{name}`.
"""


def write(source: Source, folder: Path) -> Written:
    """A file for each word."""
    if not source.words:
        raise ExportError("no word was learned", where=source.studio.folder, do="Learn a concept first.")
    paths = [_write(source, folder, name, word) for name, word in source.words.items()]
    lines = "\n".join(f'pipeline.load_textual_inversion("{path.name}")' for path in paths)
    lost = ("The changes of the U-Net's weights are not in it: take --to weights, kohya or lora for them.",)
    return Written(_USE.format(lines=lines, name=next(iter(source.words))), lost if source.moved else ())


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
    return {key: row.unsqueeze(0) for key, row in zip(("clip_l", "clip_g"), rows, strict=True)}


def _write(source: Source, folder: Path, name: str, word: str) -> Path:
    path = folder / f"{name}.safetensors"
    files.write_tensors(path, tensors_of(word, source.rows(word)), {"format": "pt", "modelspec.trigger_phrase": word})
    return path
