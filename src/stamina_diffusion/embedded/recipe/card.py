"""The model card: recipe, time, machine, loss curves, verdict, and a sheet of true renders beside drawn pictures."""

from __future__ import annotations

import dataclasses
import json
import platform
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ... import files
from . import Recipe
from .judge import Verdict

STAGES = ("pair", "encoder", "autoencoder", "denoiser")

_CARD = """\
# The embedded base

A small Stable Diffusion pipeline of the procedural world: 64×64 pictures of faces and landmarks, and the encoder that
measures them. Made from nothing by `stamina pretrain --out DIR`; no third-party picture, no real person, no downloaded
weight. It draws its own world and nothing else.

| part | class | parameters |
|---|---|---|
{parts}

{verdict}## Recipe

Trained on {machine}. Seconds are of the training loops, other work on the machine included.

| stage | steps | seconds | last loss |
|---|---|---|---|
{stages}

![losses](losses.png)

```json
{recipe}
```
{before}"""

_VERDICT = """\
## Verdict

{captions} captions of concepts that neither the base nor the encoder has seen, {samples} samples each ({steps} steps,
guidance {guidance}). The encoder finds {true:.1%} of the named attributes in true renders and {made:.1%} in drawn
pictures: {ratio:.1%} of the true agreement.

![left: true render; right: drawn from its caption](sheet.jpg)

| factor | true renders | drawn | captions |
|---|---|---|---|
{factors}

"""

_BEFORE = """
## Before that

Only the {part} was trained in this run, and it did not begin from nothing: these runs, the latest first, made what it
began with and the other parts.

{recipes}
"""


def write(
    out: Path,
    run: Path,
    recipe: Recipe,
    verdict: Verdict,
    shown: list[tuple[str, Image.Image, list[Image.Image]]],
    parts: dict[str, tuple[str, int]],
    start: Path | None = None,
    part: str = "U-Net",
) -> None:
    """Write `README.md`, `sheet.jpg`, `losses.png` and `verdict.json` into `out`.

    The recipe of the weights in `start`, if only `part` was trained, and from them, is told after this run's own.
    """
    logs = {name: log_of(run / f"{name}.jsonl") for name in STAGES if (run / f"{name}.jsonl").exists()}
    keep(out, verdict, shown)
    draw_losses(logs, out / "losses.png")
    card = _CARD.format(
        parts="\n".join(f"| {name} | {kind} | {count:,} |" for name, (kind, count) in parts.items()),
        verdict=told(verdict),
        machine=machine(),
        stages="\n".join(
            f"| {name} | {rows[-1]['step']:,} | {rows[-1]['seconds']:,.0f} | {rows[-1]['loss']:.4f} |"
            for name, rows in logs.items()
        ),
        recipe=json.dumps(dataclasses.asdict(recipe), indent=2),
        before="" if start is None else _BEFORE.format(part=part, recipes=recipes_of(start / "README.md")),
    )
    files.write_bytes(out / "README.md", card.encode())


def keep(out: Path, verdict: Verdict, shown: list[tuple[str, Image.Image, list[Image.Image]]]) -> None:
    """Write `verdict.json` and `sheet.jpg` into `out`."""
    files.write_json(out / "verdict.json", verdict.record())
    # JPEG: the whole card must fit beside the weights into what the package ships.
    sheet(shown[:12]).save(out / "sheet.jpg", quality=88)


def told(verdict: Verdict) -> str:
    """The card's section on the verdict."""
    return _VERDICT.format(
        captions=verdict.captions,
        samples=verdict.samples,
        steps=verdict.steps,
        guidance=verdict.guidance,
        true=verdict.true_renders,
        made=verdict.generated,
        ratio=verdict.ratio,
        factors="\n".join(f"| {k} | {t:.0%} | {m:.0%} | {n} |" for k, (t, m, n) in verdict.by_factor.items()),
    )


def judged_again(out: Path, verdict: Verdict, shown: list[tuple[str, Image.Image, list[Image.Image]]]) -> None:
    """Put another verdict into the card in `out`, which tells the recipe as before."""
    keep(out, verdict, shown)
    card = (out / "README.md").read_text(encoding="utf-8")
    before, rest = card.split("## Verdict\n", 1)
    _, recipe = rest.split("## Recipe\n", 1)
    files.write_bytes(out / "README.md", f"{before}{told(verdict)}## Recipe\n{recipe}".encode())


def recipes_of(card: Path) -> str:
    """What a card says of how its weights were made, without the picture of this run's losses."""
    told = card.read_text(encoding="utf-8").split("## Recipe\n", 1)[1].replace("## Before that\n", "")
    return "\n".join(line for line in told.splitlines() if not line.startswith("![")).strip()


def machine() -> str:
    """The machine in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} thread(s) of a CPU ({platform.machine()}), torch {torch.__version__}"


def log_of(path: Path) -> list[dict[str, float]]:
    """The rows of a log of one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def sheet(shown: list[tuple[str, Image.Image, list[Image.Image]]], scale: int = 2) -> Image.Image:
    """One row a caption: the true render, a gap, the drawn pictures, and the caption beneath; two rows side by side."""
    side, gap, columns = 64 * scale, 8, 2
    row_width = side * (1 + len(shown[0][2])) + gap * 3
    font = ImageFont.load_default(11)
    # An "n" is a little wider than the mean letter.
    told = ["\n".join(textwrap.wrap(caption, int(1.15 * row_width / font.getlength("n")))) for caption, _, _ in shown]
    text = 14 * max(lines.count("\n") + 1 for lines in told) + 8
    rows = -(-len(shown) // columns)
    picture = Image.new("RGB", (columns * row_width + gap, rows * (side + text) + gap), "white")
    pen = ImageDraw.Draw(picture)
    for place, ((_, render, drawn), lines) in enumerate(zip(shown, told, strict=True)):
        left, top = gap + (place % columns) * row_width, gap + (place // columns) * (side + text)
        for column, image in enumerate([render, *drawn]):
            x = left + column * side + (gap if column else 0)
            picture.paste(image.resize((side, side), Image.Resampling.LANCZOS), (x, top))
        pen.text((left, top + side + 3), lines, fill="#333", font=font)
    return picture


def draw_losses(logs: dict[str, list[dict[str, float]]], path: Path) -> None:
    """The running loss of every stage over its steps, as one picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(logs), 2.6), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs.items(), strict=True):
        axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], color="#2a6f97")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
