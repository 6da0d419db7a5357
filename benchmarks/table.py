"""Write the README's table of figures from the committed results: python benchmarks/table.py"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
START, END = "<!-- figures: made by benchmarks/table.py -->", "<!-- end of figures -->"


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


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{table()}\n{END}{after}")
