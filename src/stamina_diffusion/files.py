"""Files are written whole or not at all: beside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path` atomically; a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def clear_parts(folder: Path) -> None:
    """Delete, below `folder`, the half-written files of processes that were killed while they wrote."""
    if os.name == "nt":  # there, asking whether a process lives can end it
        return
    for path in folder.rglob(".*.part"):
        writer = re.fullmatch(r"\..+\.(\d{1,9})\.part", path.name)
        if writer and path.is_file() and not path.is_symlink() and not _lives(int(writer[1])):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another person's
        return True
    return True


def flush_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """`tensors` as one safetensors file, atomically; equal tensors and metadata give equal bytes."""
    from safetensors.torch import save

    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    # None rather than {}: of no tensors and empty metadata the library makes bytes that it cannot read itself.
    write_bytes(path, _header_sorted(save(ordered, dict(metadata) if metadata else None)))


def _header_sorted(data: bytes) -> bytes:
    # The library writes metadata in the order of a hash table, which differs from run to run.
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def read_json(path: Path, limit: int = 64 * 2**20) -> Any:
    """A JSON file that may come from anywhere. Raises ValueError for whatever is none, OSError for what is no file."""
    if path.stat().st_size > limit:
        raise ValueError(f"larger than {limit // 2**20} MiB")
    if not path.is_file():  # a pipe would wait for ever, a device never end
        raise ValueError("not a plain file")
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """JSON that may come from anywhere. Raises ValueError for whatever is none, or cannot be written again."""
    try:
        value = json.loads(text, object_pairs_hook=_each_once)
        # Half of a surrogate pair is valid JSON and no valid text.
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's keys and values. Raises ValueError where a key stands twice: readers differ in which they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{twice[:100]!r} stands twice in it")
    return found


def read_tensors(path: Path, *, floats: bool = False) -> dict[str, Tensor]:
    """Every tensor of a safetensors file. Raises ValueError for a file that is none or holds what is no number.

    With `floats` it is refused for whole numbers, too.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OverflowError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if tensor.dim() > 8:  # torch itself fails on some, and no network has so many
            raise ValueError(f"{name[:100]!r} has {tensor.dim()} dimensions")
        if floats and not tensor.is_floating_point():
            raise ValueError(f"{name[:100]!r} holds whole numbers")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name[:100]!r} holds what is no number")
    return tensors


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
