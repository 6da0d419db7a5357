"""Do the kernels of the full mask say what the equations say, and how fast are they where there is a GPU?

    python benchmarks/fused/fused.py --out benchmarks/fused/results.json
    python benchmarks/fused/fused.py --part gpu --out benchmarks/fused/results.json     what --out has of others stays

Needs Triton, which comes with the CUDA builds of torch. Without a GPU the kernels run in Triton's interpreter and are
compiled for GPUs that are not here; what only a GPU can say is then said to be not measured. With one, the same
comparison runs on it, and the keys and values of SDXL are timed: kernels, plain version and peft's LoRA take turns.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stamina_diffusion import files

HERE = Path(__file__).parent
SHAPES = [(320, 768), (640, 768), (640, 2048)]
"""(out, in) of keys and values of Stable Diffusion 1.5 and SDXL."""
RANK = 16


def compared(rows: int, columns: int, device: torch.device) -> dict[str, Any]:
    """‖kernel − equations‖ / ‖equations‖ of all that a change is asked for, the equations in float64 with one noise."""
    from stamina_diffusion.compact import MaskedChange
    from stamina_diffusion.forming import noise_of
    from stamina_diffusion.methods.stamina import straight_through

    torch.manual_seed(0)
    shapes = [(rows, RANK), (RANK, columns), (rows, RANK + 1), (RANK + 1, columns)]
    factors = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
    weight, moved = torch.randn(2, rows, columns, device=device)
    x = torch.randn(77, columns, device=device, requires_grad=True)
    wanted = torch.randn(77, rows, device=device)
    value = MaskedChange(*factors, 1.0)
    if not value.mask.fused:
        sys.exit("The kernels are not used here; the notice above says why.")
    y, paid, dense = value.linear(x, weight, None), value.weighted_squares(moved), value.dense()
    got = [y, paid, dense]
    got += [*torch.autograd.grad((y * wanted).sum(), [x, *factors]), *torch.autograd.grad(paid, factors)]

    exact = [factor.detach().double().requires_grad_() for factor in factors]
    x64 = x.detach().double().requires_grad_()
    noisy = exact[2] @ exact[3] + noise_of(value.mask.seed, rows, columns, like=weight).double()
    change = (exact[0] @ exact[1]) * straight_through(noisy, 1.0)
    y64, paid64 = x64 @ (weight.double() + change).T, (moved.double() * change).square().sum()
    expected = [y64, paid64, change]
    expected += torch.autograd.grad((y64 * wanted).sum(), [x64, *exact], retain_graph=True)
    expected += torch.autograd.grad(paid64, exact)
    names = ["output", "penalty", "change", "gradient of the input"]
    names += [
        f"gradient of {name}, from the {of}" for of in ("output", "penalty") for name in ("B", "A", "left", "right")
    ]
    errors = {
        name: float(f"{float((one.detach().double() - other).norm() / other.norm()):.2e}")
        for name, one, other in zip(names, got, [some.detach() for some in expected], strict=True)
    }
    # Where L + g is all but 0, the last digit decides whether an entry is open.
    flipped = int(((dense != 0) != (change != 0)).sum())
    shown = {"shape": [rows, columns], "rank": RANK, "entries_open_in_one_only": flipped}
    return shown | {"largest_error": max(errors.values()), "errors": errors}


def alone(words: list[str], **variables: str) -> Any:
    """The JSON that a script prints in a process of its own: Triton looks at its variables once."""
    ran = subprocess.run(
        [sys.executable, *words], env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(ran.stdout)


def timed(device: torch.device, shapes: list[tuple[int, int]], prompts: int, turns: int) -> dict[str, Any]:
    """Seconds of a forward and backward pass through keys and values, in bf16 by autocast."""
    sys.path.insert(0, str(HERE.parent / "speed"))
    import layers

    from stamina_diffusion.methods.stamina import Stamina

    method = Stamina(rank=RANK, mask_rank=RANK)
    ours = layers.Ours(layers.Layers(shapes).to(device), method)
    ours.deltas.to(device)
    lora = layers.peft_lora(layers.Layers(shapes), RANK).to(device)
    arms: dict[str, tuple[str, Callable[[Tensor], list[Tensor]]]] = {
        "kernels": ("1", ours.forward),
        "plain": ("0", ours.forward),
        "peft LoRA": ("0", lora),
    }
    x = torch.randn(prompts, layers.TOKENS, shapes[0][1], device=device)
    gradients = [torch.randn(prompts, layers.TOKENS, rows, device=device).bfloat16() for rows, _ in shapes]
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(turns + 3):
        for name, (asked, forward) in arms.items():
            os.environ["STAMINA_FUSED"] = asked
            wait(device)
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16):
                out = forward(x.clone().requires_grad_())
            torch.autograd.backward(out, gradients)
            wait(device)
            if turn >= 3:
                times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {
        "what": f"{len(shapes)} K/V matrices, {prompts} prompt(s), rank {RANK}, bf16",
        "seconds": {name: round(median, 6) for name, median in medians.items()},
        "kernels_over_plain": round(medians["kernels"] / medians["plain"], 3),
        "kernels_over_peft": round(medians["kernels"] / medians["peft LoRA"], 3),
    }


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def on_gpu() -> dict[str, Any] | str:
    if not torch.cuda.is_available():
        return "not measured: no GPU"
    device = torch.device("cuda")
    sdxl = [(640, 2048)] * 20 + [(1280, 2048)] * 120
    os.environ["STAMINA_FUSED"] = "1"
    return {
        "name": torch.cuda.get_device_name(device),
        "compared": [compared(*shape, device) for shape in SHAPES],
        "timed": [timed(device, sdxl, prompts, turns=20) for prompts in (1, 8)],
    }


def interpreted() -> list[dict[str, Any]]:
    from stamina_diffusion import fused

    # Larger tiles are fewer turns for the interpreter, and of no influence on any value.
    fused.TILE = (64, 256)
    return [compared(*shape, torch.device("cpu")) for shape in SHAPES]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--interpreted", action="store_true", help="print the comparison in the interpreter, and end")
    parser.add_argument("--part", action="append", choices=("interpreter", "compiled", "gpu"), help="only this one")
    given = parser.parse_args()
    if given.interpreted:
        print(json.dumps(interpreted()))
        sys.exit()
    import triton

    made = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
        f"triton {triton.__version__}",
        "date": datetime.date.today().isoformat(),
    }
    parts: dict[str, Callable[[], Any]] = {
        "interpreter": lambda: alone([__file__, "--interpreted"], TRITON_INTERPRET="1", STAMINA_FUSED="1"),
        "compiled": lambda: alone([str(HERE / "compiled.py"), "80", "90"]),
        "gpu": on_gpu,
    }
    answer = files.read_json(given.out) if given.out and given.out.exists() else {}
    for name in given.part or parts:
        command = f"python benchmarks/fused/fused.py --part {name}"
        answer[name] = made | {"command": command, "found": parts[name]()}
        print(json.dumps(answer[name], ensure_ascii=False), flush=True)
    if given.out:
        files.write_json(given.out, answer)
