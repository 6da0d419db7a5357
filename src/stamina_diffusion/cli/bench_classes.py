"""`stamina bench classification`: every adapter, merge and head on streams of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from . import console
from .benching import DryRun, Jobs, Out, RayAddress, Threads, Tuned, run_grid, whole_numbers


def classification(
    out: Out,
    stream: Annotated[
        str, typer.Option(help="atlas, tuning, digits, imagenet-r, cifar-100, domainnet or cub-200.")
    ] = "atlas",
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks its classes are shared out to.")] = 20,
    methods: Annotated[
        str, typer.Option(help="Rows of the table, by commas; or all, bounds, paper, rivals, grid.")
    ] = "paper",
    preset: Annotated[
        str, typer.Option(help="classify (minutes a run on a CPU), coda, pilot, modern, or a TOML file.")
    ] = "classify",
    seeds: Annotated[str, typer.Option(help="Seeds by commas: of the order of classes and of training.")] = "0,1,2",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change the protocol (epochs, base, source; the atlas's classes, train, test, negative) or the plan.",
            show_default=False,
        ),
    ] = None,
    tuned: Tuned = None,
    jobs: Jobs = 1,
    ray: RayAddress = None,
    threads: Threads = 1,
    dry_run: DryRun = False,
) -> None:
    """Teach a classifier one task of classes after another by every method; keep no picture of a past task.

    Each run is judged by three heads: the one that was trained, the same aligned with what is known of each class, and
    the nearest class mean.
    """
    overrides = console.overrides(changes or [])
    numbers = whole_numbers(seeds)
    console.quiet()
    from ..benchmarks import class_results
    from ..benchmarks.class_rows import chosen, read_tuned
    from ..benchmarks.classification import classification as of_preset
    from ..benchmarks.grid import Cell

    rows = chosen(methods, read_tuned(tuned))
    benchmark = of_preset(preset, stream, rows, overrides, threads, str((out / "streams").absolute()))
    # Seeds outside, so that a grid that is stopped half-way has whole tables of its first seeds.
    cells = [Cell(row.name, stream, tasks, seed) for seed in numbers for row in rows]
    run_grid(benchmark, cells, out, jobs=jobs, ray=ray, dry_run=dry_run)
    if not dry_run:
        _tell(class_results.means(class_results.write(out)))
        console.say(f"{out / 'results.json'}; see it with: stamina bench report {out}")


def _tell(means: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title="mean over seeds, in %: all seen classes compete, and no task is told", title_justify="left")
    for name in ("stream", "tasks", "adapter", "merge", "head", "seeds"):
        table.add_column(name)
    for name in ("A macro", "A micro", "A inc.", "F coda", "F Chaudhry", "BWT"):
        table.add_column(name, justify="right")
    keys = ("a_macro", "a_micro", "average_incremental", "f_coda", "f_chaudhry", "bwt")
    for row in means:
        shown = [str(row[key]) for key in ("stream", "tasks", "adapter", "merge", "head", "seeds")]
        table.add_row(*shown, *(_percent(row[key], row[f"{key}_spread"]) for key in keys))
    console.show(table)


def _percent(value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "")
