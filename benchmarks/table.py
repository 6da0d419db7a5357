"""Write the tables of README and docs from the committed results: python benchmarks/table.py

A table is written between its two markers, where a page has them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).parents[1]
METHODS = (
    ("a_mmd", "A_mmd ×10³ ↓", 0, 1, min),
    ("f_mmd", "F_mmd ×10³ ↓", 0, 1, min),
    ("image_alignment", "I ↑", 3, 1, max),
    ("retrieval", "R@1 % ↑", 0, 100, max),
    ("learned_first10", "learned, first % ↑", 1, 100, max),
    ("learned_last10", "learned, last % ↑", 1, 100, max),
    ("forgetting", "forgotten ↓", 2, 100, min),
    ("trained_percent", "trained %", 2, 1, None),
)
"""Of the customization benchmark: field, title, digits, factor, which is best."""
BOUNDS = ("joint training", "one lora each", "frozen base")


def result(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / name / "results.json").read_text())


def table() -> str:
    verdict = json.loads((ROOT / "src/stamina_diffusion/embedded/weights/verdict.json").read_text())
    commands, growth, crash, identity = map(result, ("commands", "growth", "crash", "identity"))
    mean = identity["mean"]
    rows = [
        ("attributes of 200 unseen captions found in drawn pictures", f"{verdict['generated']:.0%}", "the card"),
        ("the same in true renders of those captions", f"{verdict['true_renders']:.0%}", "the card"),
        (f"a concept learned alone, found among {identity['gallery']}", f"{mean['learned']:.0%}", "identity"),
        ("the same drawn from its full caption", f"{mean['caption']:.0%}", "identity"),
        ("the same in true renders of other views", f"{mean['true_renders']:.0%}", "identity"),
        ("`stamina learn`, six photos, imports included", f"{commands['learn_seconds']} s", "commands"),
        ("`stamina draw -n 4`, imports included", f"{commands['draw_seconds']} s", "commands"),
        ("`stamina demo`", f"{commands['demo_seconds']} s", "commands"),
        ("largest difference to plain diffusers", f"{commands['largest_difference_of_255']} of 255", "commands"),
        (f"step time at concept {growth['concepts']} over concept 1", f"{growth['step_ratio']:.2f}", "growth"),
        (f"drawing time with {growth['concepts']} concepts over the base's", f"{growth['draw_ratio']:.2f}", "growth"),
        (f"concepts lost in {crash['kills']} kills at random moments", str(crash["lost"]), "crash"),
        ("runs that then ended in other bytes", str(crash["ended_in_other_bytes"]), "crash"),
    ]
    lines = ["| embedded base, " + str(commands["machine"]) + " | | from |", "|---|---|---|"]
    lines += [f"| {what} | {value} | {source} |" for what, value, source in rows]
    return "\n".join(lines)


def customization(length: int, of: str = "customization", only: tuple[str, ...] = (), most: bool = False) -> str:
    """The rows of the benchmark at one length on the seeds that all methods have; then, or alone, those with more."""
    found = [row for row in result(of) if row["concepts"] == length and (not only or row["variant"] in only)]
    seeds: dict[str, set[int]] = {}
    for row in found:
        seeds.setdefault(row["variant"], set()).add(row["seed"])
    shared = set.intersection(*(some for name, some in seeds.items() if name not in BOUNDS))
    parts = [_methods([row for row in found if row["seed"] in shared], shared)]
    more = [name for name, some in seeds.items() if some > shared]
    if any(name not in BOUNDS for name in more):
        common = set.intersection(*(seeds[name] for name in more))
        parts.append(_methods([row for row in found if row["variant"] in more and row["seed"] in common], common))
    if most:
        parts = parts[-1:]
    machines = " and on ".join(sorted({row["machine"] for row in found}))
    made = f"Each row's command is in `benchmarks/{of}/results.json`; made on {machines}"
    return "\n\n".join([*parts, f"{made}, {max(row['date'] for row in found)}."])


def _methods(found: list[dict], seeds: set[int]) -> str:
    """One table: mean and deviation over seeds, the best of the methods in bold."""
    rows: dict[str, list[dict]] = {}
    for row in found:
        rows.setdefault(row["variant"], []).append(row)
    means = {name: {field: _mean(some, field) for field, *_ in METHODS} for name, some in rows.items()}
    best = {}
    for field, *_, choose in METHODS:
        able = {name: one[field] for name, one in means.items() if one[field] is not None and name not in BOUNDS}
        if choose and len(able) > 1:
            best[field] = choose(able, key=able.__getitem__)
    told = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
    which = f"{found[0]['concepts']} concepts, stream {found[0]['stream']}, {told}"
    lines = [f"| {which} | " + " | ".join(title for _, title, *_ in METHODS) + " |"]
    lines += ["|---|" + "---|" * len(METHODS)]
    for name, some in rows.items():
        cells = []
        for field, _, digits, factor, _ in METHODS:
            varies = len(some) > 1 and field != "trained_percent" and means[name][field] is not None
            spread = stdev(row[field] for row in some) if varies else None
            cells.append(_cell(means[name][field], spread, digits, factor, best.get(field) == name))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(rows: list[dict], field: str) -> float | None:
    values = [row[field] for row in rows]
    return None if any(value is None for value in values) else mean(values)


def _cell(value: float | None, spread: float | None, digits: int, factor: float, bold: bool) -> str:
    """`**714** ± 12`: a mean, bold where it is the best, and the deviation over seeds where there are several."""
    if value is None:
        return "–"
    text = f"{value * factor:.{digits}f}"
    text = text.lstrip("-") if not float(text) else text.replace("-", "−")
    text = f"**{text}**" if bold else text
    return text if spread is None else f"{text} ± {spread * factor:.{digits}f}"


def classification(
    of: str = "classification", made: str = "the commands in `benchmarks/classification/`", merged: bool = True
) -> str:
    """Accuracy over all classes at the end and its deviation over seeds, by adapter, head and number of tasks.

    Without `merged` only of rows whose changes are folded whole.
    """
    found = [row for row in result(of) if merged or row["merge"] == "sum"]
    heads = list(dict.fromkeys(row["head"] for row in found))
    counts = sorted({row["tasks"] for row in found})
    rows: dict[str, list[dict]] = {}
    for row in found:
        rows.setdefault(row["adapter"] + ("" if row["merge"] == "sum" else f", {row['merge']}"), []).append(row)
    columns = [(count, head) for count in counts for head in heads]
    lines = [f"| A_N, % (seeds) | {' | '.join(f'{count} tasks: {head}' for count, head in columns)} |"]
    lines += ["|---|" + "---|" * len(columns)]
    for name, some in rows.items():
        cells = [_spread([one["a_macro"] for one in some if (one["tasks"], one["head"]) == key]) for key in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    first = found[0]
    return "\n".join([*lines, "", f"Made by {made}, on {first['machine']}, {first['date']}."])


def _spread(values: list[float]) -> str:
    """`51.2 ± 0.7 (3)`: mean, deviation and number of seeds."""
    if not values:
        return "–"
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread} ({len(values)})"


def longer() -> str:
    """The same of three times the steps; then STAMINA's lead over C-LoRA, and what their tasks changed."""
    return "\n".join([classification(LONGER, "`benchmarks/classification/longer.sh`"), "", _leads(), "", _changes()])


LONGER = "classification/longer"


def _counts() -> list[int]:
    """How many tasks there were, the fewest first."""
    return sorted({row["tasks"] for row in result(LONGER)})


def _csv(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / LONGER / "tables" / name).open() as file:
        return list(csv.DictReader(file))


def _leads() -> str:
    """Of each number of tasks and head the mean difference, the interval over seeds, and that over classes."""
    lines = [
        "| STAMINA over C-LoRA, points of A_N | mean | 95 %, over seeds | 95 %, over classes |",
        "|---|---|---|---|",
    ]
    for count in _counts():
        for one in _csv(f"atlas-{count}-differences.csv"):
            if one["over"] == "c-lora":
                cells = [_points(one["mean"]), _interval(one, "seeds"), _interval(one, "classes")]
                lines.append(f"| {count} tasks, {one['head']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(one: dict[str, str], kind: str) -> str:
    low, high = one[f"low_{kind}"], one[f"high_{kind}"]
    return f"{_points(low)} … {_points(high)}" if low else "–"


def _points(share: str) -> str:
    return f"{100 * float(share):+.1f}".replace("-", "−")


def _changes() -> str:
    """Of each row that changes weights: its first, second and last task's change, mean over seeds."""
    lines = ["| task's change, mean over seeds | task | entries moved, % | size, % of the weights | overlap |"]
    lines += ["|---|---|---|---|---|"]
    for count in _counts():
        for one in _csv(f"atlas-{count}-changes.csv"):
            if int(one["task"]) in (1, 2, count):
                overlap = f"{float(one['overlap']):.2f}" if one["overlap"] else "–"
                moved, size = (f"{100 * float(one[key]):.1f}" for key in ("density", "norm"))
                lines.append(f"| {one['adapter']}, {count} tasks | {one['task']} | {moved} | {size} | {overlap} |")
    return "\n".join(lines)


ARMS = ("STAMINA, full mask", "STAMINA, gates", "LoRA")
SMALL = "16x16 latents"
"""In the model of the rows of a whole step whose resolution nobody trains at."""


def speed() -> str:
    """Ratios to peers, ours over the peer's: a line for each measure, model and peer, the methods side by side."""
    found = result("speed")
    lines = ["| measure | model | peer | " + " | ".join(ARMS) + " |", "|---|---|---|" + "---|" * len(ARMS)]
    compared: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in found:
        measure, _, arm = row["measure"].partition(": ")
        if arm in ARMS and SMALL not in row["model"]:
            key = (measure, _model(row), row["peer_name"].partition(" on the same")[0])
            compared.setdefault(key, {})[arm] = row["ratio"]
    for key, ratios in sorted(compared.items(), reverse=True):
        cells = [f"{ratios[arm]:.2f}" if arm in ratios else "–" for arm in ARMS]
        lines.append(f"| {' | '.join(key)} | {' | '.join(cells)} |")
    lines += ["", "| what else | model | beside | ratio |", "|---|---|---|---|"]
    for row in found:
        if row["measure"].partition(": ")[2] not in (*ARMS, "full mask by plain autograd"):
            ratio = row["note"] if row["ratio"] is None else f"{row['ratio']:.3g}"
            lines.append(f"| {row['measure']} | {_model(row)} | {row['peer_name']} | {ratio} |")
    first = found[0]
    return "\n".join(
        [*lines, "", f"Made by `python benchmarks/speed/speed.py` on {first['machine']}, {first['date']}."]
    )


def _model(row: dict) -> str:
    """What every row has is left out."""
    model = row["model"].replace(
        "Stable Diffusion 1.5's architecture, random weights", "Stable Diffusion 1.5, all of it"
    )
    return (
        re.sub(r", (rank 16|fp32|float32|\d steps an arm)", "", model)
        .replace(" 1 prompt(s)", " 1 prompt")
        .replace("prompt(s)", "prompts")
    )


def presets() -> str:
    """What a step of learning with each preset takes."""
    found = result("presets")
    lines = ["| preset | named for, GiB | a step takes, GiB | of it weights, GiB |", "|---|---|---|---|"]
    for row in found["rows"]:
        taken = f"{row['estimated_gib']:.1f} | {row['weights_gib']:.1f}"
        lines.append(f"| `{row['preset']}` | {row['named_for_gib']} | {taken} |")
    return "\n".join([*lines, "", f"Made by `{found['command']}`, {found['date']}."])


BEFORE = (
    "c-lora, fast word",
    "stamina, fast word",
    "guard over lora, energy 0.999, fast word",
    "guard over lora, price 100",
)
"""What was run in three orders on the base before today's."""

TABLES: dict[str, Callable[[], str]] = {
    "figures": table,
    "customization-50": partial(customization, 50),
    "customization-50-orders": partial(customization, 50, most=True),
    "customization-20": partial(customization, 20),
    "customization-tuning": partial(customization, 8, "customization/by_pictures"),
    "customization-tuning-20": partial(customization, 20, "customization/by_pictures/twenty"),
    "customization-before": partial(customization, 50, "customization/before", BEFORE),
    "classification": classification,
    "classification-sums": partial(classification, merged=False),
    "classification-50": partial(classification, "classification/fifty"),
    "longer": longer,
    "speed": speed,
    "presets": presets,
}
"""By the word in their markers."""


PAGES = (ROOT / "README.md", *(ROOT / "docs" / name for name in ("customization.md", "classification.md", "speed.md")))


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text()
        for name, made in TABLES.items():
            start, end = f"<!-- {name}: made by benchmarks/table.py -->", f"<!-- end of {name} -->"
            if start in text:
                before, _, rest = text.partition(start)
                text = f"{before}{start}\n{made()}\n{end}{rest.partition(end)[2]}"
        page.write_text(text)
