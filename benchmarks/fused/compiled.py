"""Do the kernels compile for GPUs that are not here? As machine code, with what each thread of it needs.

    python benchmarks/fused/compiled.py 80 90

Triton's compiler and NVIDIA's assembler need no GPU. Prints one row a kernel and GPU, as JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stamina_diffusion import fused, kernels

NUMBERS = {"seed": "i64", "sharpness": "fp32", "ROWS": "constexpr", "COLUMNS": "constexpr"}
MATRICES = ("weight", "up", "down", "left", "right", "given", "of_product", "of_logits", "costs")
SIZES = ("rows", "columns")

WAYS: dict[str, dict[str, dict[str, str | None]]] = {
    "noise": {"": {"out": "*fp32"}},
    "form": {
        "W + change, bf16": {"out": "*bf16"},
        "W + change, fp16": {"out": "*fp16"},
        "W + change, fp32": {"out": "*fp32"},
        "the change": {"out": "*fp32", "weight": None},
    },
    "pull": {"of a gradient": {"costs": None}, "of a bf16 gradient": {"costs": None, "given": "*bf16"}, "penalty": {}},
}
"""What each kernel is asked for, by the types of its arguments where they vary; None for what is left out."""


def compiled(name: str, types: dict[str, str | None], capability: int) -> dict[str, Any]:
    """A kernel's code in each of its languages, for sizes that are multiples of 16 and well aligned matrices."""
    kernel = getattr(kernels, name)
    known = dict.fromkeys(MATRICES, "*fp32") | NUMBERS | types
    signature = {argument: known.get(argument, "i32") or "constexpr" for argument in kernel.arg_names}
    constants = {"ROWS": fused.TILE[0], "COLUMNS": fused.TILE[1]} | {a: None for a, kind in types.items() if not kind}
    even = {
        (place,): [["tt.divisibility", 16]]
        for place, argument in enumerate(kernel.arg_names)
        if signature[argument].startswith("*") or argument in SIZES
    }
    source = ASTSource(kernel, signature, constants, even)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm


def needs(code: bytes) -> dict[str, int]:
    """Registers and spilled bytes of a thread, as NVIDIA's tool reads them from machine code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        said = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said.stdout)}
    return {"registers": found["REG"], "spilled_bytes": found["STACK"] + found["LOCAL"]}


def row(name: str, way: str, types: dict[str, str | None], capability: int) -> dict[str, Any]:
    made = compiled(name, types, capability)
    casts = sorted(set(re.findall(r"cvt\.(\w+)\.(?:bf16|f16)x?2?\.f32", made["ptx"])))
    return {"kernel": name, "way": way, "gpu": f"sm_{capability}", **needs(made["cubin"]), "casts": casts}


def rows(capabilities: list[int]) -> list[dict[str, Any]]:
    return [
        row(name, way, types, capability)
        for capability in capabilities
        for name, ways in WAYS.items()
        for way, types in ways.items()
    ]


if __name__ == "__main__":
    print(json.dumps(rows([int(word) for word in sys.argv[1:]]), indent=1))
