"""The table of methods × measures as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from .comparison import Column, Entry, Group


def as_csv(group: Group) -> str:
    """Mean, interval and deviation of each measure in columns of their own; nothing rounded away."""
    parts = ("", "_low", "_high", "_sd")
    keys = (column.key + part for column in group.measures for part in parts)
    lines: list[list[object]] = [[*group.rows[0].labels, "seeds", *keys]]
    for row in group.rows:
        cells: list[object] = [*row.labels.values(), len(row.seeds)]
        for column in group.measures:
            entry = row.entries[column.key]
            cells += ["" if value is None else f"{value:.6g}" for value in entry or (None,) * 4]
        lines.append(cells)
    return csv_text(lines)


def csv_text(lines: Iterable[Sequence[object]]) -> str:
    """Lines of cells as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def as_latex(group: Group) -> str:
    """A booktabs table, the best of each column in bold, intervals small below."""
    shown = group.columns()
    best = group.best()
    lines = [
        f"% {len(group.rows)} rows on stream {group.stream}, {group.length} {group.counted}; "
        "needs \\usepackage{booktabs}",
        "\\begin{tabular}{l" + "r" * len(shown) + "}",
        "\\toprule",
        " & ".join(["method", *(_escaped(column.title) + _arrow(column) for column in shown)]) + " \\\\",
        "\\midrule",
    ]
    for place, row in enumerate(group.rows):
        if place and group.rows[place - 1].is_bound and not row.is_bound:
            lines.append("\\midrule")
        cells = [_cell(row.entries[column.key], column, best.get(column.key) == row.name) for column in shown]
        lines.append(" & ".join([_escaped(row.name), *cells]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _cell(entry: Entry | None, column: Column, bold: bool) -> str:
    if entry is None:
        return "--"
    mean = number(entry.mean, column).replace("−", "$-$")
    text = f"\\textbf{{{mean}}}" if bold else mean
    if entry.low is None or entry.high is None:
        return text
    interval = f"[{number(entry.low, column)}, {number(entry.high, column)}]".replace("−", "$-$")
    return f"{text} {{\\scriptsize {interval}}}"


def number(value: float, column: Column) -> str:
    """A value as its column shows it."""
    text = f"{value * column.scale:.{column.digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def _escaped(text: str) -> str:
    for plain, tex in (("_", "\\_"), ("%", "\\%"), ("×10³", "$\\times10^3$"), ("²", "$^2$")):
        text = text.replace(plain, tex)
    return text


def _arrow(column: Column) -> str:
    return {"low": " $\\downarrow$", "high": " $\\uparrow$", None: ""}[column.better]
