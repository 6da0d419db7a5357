"""The report of a studio as one HTML file with everything in it: tables with colour, small line plots, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import columns, files, measure, sheets, summary
from .history import spans
from .report import GENERIC
from .summary import Matrix

if TYPE_CHECKING:
    from .studio import Studio

FILE = "report.html"
LAYERS_SHOWN = 40
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 170, 44, 10, 12, 24
"""Of a plot, in its own units; it is shown about as large as they are pixels, also on a phone."""


@dataclass(frozen=True)
class HeatCell:
    """One number of a table with colour."""

    text: str
    strength: float = 0.0
    """How strong its colour is, from 0 to 1."""


@dataclass(frozen=True)
class Plot:
    """A line over the versions, in the units of its drawing."""

    title: str
    points: str
    """`x,y x,y ...` of the line."""
    dots: list[tuple[float, float, str]]
    """Each value's place, and what is said when it is pointed at."""
    low: str
    high: str
    zero: float | None
    """The height of the line of 0, where it is within the plot."""
    first: int
    last: int
    """The versions at its ends."""


def write(path: Path, studio: Studio, found: dict[str, Any]) -> None:
    """Write the page of a studio from its summary (`summary.summarize`) and its columns' pictures."""
    from importlib.metadata import version

    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    heads = summary.heads(studio)
    labels = [one["version"] for one in found["versions"]]
    drift = found["drift"]
    page = environment.get_template("report.html").render(
        **found,
        number=_number,
        percent=_percent,
        short=short,
        spans=spans,
        kept_cells=_heat(found["kept"], _number, lambda value: (1 - value) / 0.5),
        photo_cells=_heat(found["like_photos"], _number, _between(found["like_photos"])),
        loss_cells=_heat(summary.relative(found["loss"]), _percent, lambda value: value / 0.5),
        bleed_cells=_heat(found["bleed"] or [], _number, _between(found["bleed"] or [])),
        share_cells=_heat(found["capacity"]["overlap_share"], _percent, lambda value: value),
        cosine_cells=_heat(found["capacity"]["overlap_cosine"], _number, abs),
        drift_cells={
            prompt: _heat([values], _percent, lambda value: value / 0.5)[0] for prompt, values in drift.items()
        },
        plots=_plots(found, labels),
        strips=[
            [
                (label, _addressed(columns.picture(studio.folder, head, concept["name"])))
                for label, head in list(zip(labels, heads, strict=True))[first:]
            ]
            for first, concept in enumerate(found["concepts"])
        ],
        generic=[
            (label, picture)
            for label, head in zip(labels, heads, strict=True)
            if (picture := _addressed(columns.picture(studio.folder, head, GENERIC)))
        ],
        base_strip=_base_strip(studio, list(drift)),
        layers_shown=LAYERS_SHOWN,
        layers=sorted(found["capacity"]["layers"].items(), key=lambda layer: -layer[1]["sum_norm"])[:LAYERS_SHOWN],
        plot={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        program=version("stamina-diffusion"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, page.encode())


def _heat(
    matrix: Matrix, text: Callable[[float], str], strength: Callable[[float], float]
) -> list[list[HeatCell | None]]:
    """A matrix as cells; None where there is no number."""
    return [
        [
            None if value is None else HeatCell(text(value), round(min(max(strength(value), 0.0), 1.0), 3))
            for value in row
        ]
        for row in matrix
    ]


def _between(matrix: Matrix) -> Callable[[float], float]:
    """Strength by where a value lies between the least and the greatest of a matrix."""
    values = [value for row in matrix for value in row if value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return lambda value: (value - low) / (high - low) if high > low else 0.5


def _number(value: float | None) -> str:
    return "–" if value is None else _signed(f"{value:.2f}")


def _percent(value: float | None) -> str:
    return "–" if value is None else _signed(f"{100 * value:.{0 if abs(value) >= 0.0995 else 1}f}") + " %"


def _signed(text: str) -> str:
    """A number with a minus sign of its own width, and none before a zero."""
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def short(site: str) -> str:
    """A layer's name without the parts that all have.

    >>> short("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight")
    'down_blocks.1.0.0.attn2.to_k'
    """
    name = site.removeprefix("unet.").removesuffix(".weight")
    return name.replace("attentions.", "").replace("transformer_blocks.", "")


def _plots(found: dict[str, Any], labels: Sequence[int]) -> list[Plot]:
    figures, drift = found["figures"], list(found["drift"].values())
    by_version = range(len(found["versions"]))
    candidates = [
        ("how like its photos each concept was when just learned", figures["like_photos"]["learned_when_learned"]),
        ("denoising loss of each concept when just learned", figures["loss"]["learned_when_learned"]),
        (
            "kept score after each version, mean of all concepts",
            [_mean(row[: k + 1]) for k, row in enumerate(found["kept"])],
        ),
        (
            "drift of the base after each version, mean of the prompts",
            [_mean([row[k] for row in drift]) for k in by_version],
        ),
    ]
    return [plot for title, values in candidates if (plot := line_plot(title, values or [], labels))]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def line_plot(title: str, values: Sequence[float | None], labels: Sequence[int]) -> Plot | None:
    """A line over versions, evenly spaced, with their numbers; None with fewer than two values to show."""
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return None
    low, high = min(value for _, value in known), max(value for _, value in known)
    # A tenth of room above and below, and never a scale so fine that noise looks like a fall.
    room = max((high - low) * 0.1, (0.05 - (high - low)) / 2, 0.005)
    low, high = low - room, high + room
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(place: int) -> float:
        return round(LEFT + across * place / max(len(values) - 1, 1), 1)

    def y(value: float) -> float:
        return round(TOP + down * (high - value) / (high - low), 1)

    return Plot(
        title=title,
        points=" ".join(f"{x(place)},{y(value)}" for place, value in known),
        dots=[(x(place), y(value), f"version {labels[place]}: {value:.3f}") for place, value in known],
        low=f"{low:.2f}",
        high=f"{high:.2f}",
        zero=y(0.0) if low < 0 < high else None,
        first=labels[0],
        last=labels[-1],
    )


def _addressed(picture: bytes | None) -> str | None:
    return None if picture is None else sheets.address("jpeg", picture)


def _base_strip(studio: Studio, prompts: Sequence[str]) -> str | None:
    """What the base drew for the prompts, one above the other."""
    known = measure.base_pictures(studio)
    if not prompts or any(prompt not in known for prompt in prompts):
        return None
    return sheets.addressed(sheets.grid([known[prompt] for prompt in prompts], 1, gap=0), "jpeg", 88)
