"""`stamina bench`: every method in one harness. One file a benchmark; this one runs grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import console
from .faults import STOPPED

if TYPE_CHECKING:
    from ..benchmarks.grid import Benchmark, Cell

app = typer.Typer(
    help="Compare the methods on streams of tasks: resumable runs, tuning, and a page of results.",
    no_args_is_help=True,
    add_completion=False,
)

Out = Annotated[Path, typer.Option(help="Folder of results; the same command goes on with it.", show_default=False)]
Jobs = Annotated[int, typer.Option(min=1, help="Cells that run at once on this machine.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Run on a Ray cluster ('local' starts one here).", show_default=False
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of a cell; results depend on it in the last digits.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and write nothing.")]
Protocol = Annotated[str, typer.Option(help="How concepts are learned and judged: full, cpu, or a TOML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the protocol.", show_default=False),
]
Tuned = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings that 'stamina bench tune' chose.", show_default=False)
]


@app.command()
def customization(
    out: Out,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Rows of the table, by commas; or all, bounds, paper, ablations, siblings, ours.", show_default="all"
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            help="mixed, faces, landmarks, similar, tuning, or a manifest of your photos (.toml).", show_default="mixed"
        ),
    ] = None,
    concepts: Annotated[
        int | None, typer.Option(help="How many concepts are learned, 2 to 500.", show_default="50")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds by commas: of the order, of training and of drawing.", show_default="0,1,2"),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="In place of these four: several runs, of several lengths, in one pool (.toml).",
            show_default=False,
        ),
    ] = None,
    protocol: Protocol = "full",
    changes: Set = None,
    tuned: Tuned = None,
    jobs: Jobs = 1,
    ray: RayAddress = None,
    threads: Threads = 1,
    dry_run: DryRun = False,
) -> None:
    """Teach a model one concept after another by every method, and measure what it still knows at the end."""
    overrides = console.overrides(changes or [])
    numbers = None if seeds is None else tuple(whole_numbers(seeds))
    from ..benchmarks.customization import Customization
    from ..benchmarks.protocol import read_protocol
    from ..benchmarks.rows import read_tuned
    from ..benchmarks.runs import Asked, cells_of, read_runs
    from ..errors import SettingsError

    told = {
        "methods": None if methods is None else (methods,),
        "stream": stream,
        "concepts": concepts,
        "seeds": numbers,
    }
    told = {name: value for name, value in told.items() if value is not None}
    if runs and told:
        what, do = f"it says what --{next(iter(told))} does", f"Leave out --{next(iter(told))}, or --runs."
        raise SettingsError(what, where=runs, do=do)
    asked = read_runs(runs) if runs else [Asked(**told)]
    rows, cells = cells_of(asked, read_tuned(tuned))
    benchmark = Customization(read_protocol(protocol, overrides), tuple(rows), threads)
    run_grid(benchmark, cells, out, jobs=jobs, ray=ray, dry_run=dry_run)
    if not dry_run:
        console.say(f"{out}: see it with: stamina bench report {out}")


@app.command()
def tune(
    out: Out,
    benchmark: Annotated[
        Literal["customization", "classification"], typer.Option(help="Whose rows, and whose tuning stream.")
    ] = "customization",
    methods: Annotated[str, typer.Option(help="Rows of the table, by commas, or a group of them.")] = "paper",
    concepts: Annotated[int, typer.Option(help="How many concepts of the tuning stream.")] = 5,
    tasks: Annotated[int, typer.Option(min=2, help="Of classification: how many tasks its classes are in.")] = 10,
    trials: Annotated[int, typer.Option(min=1, help="How many settings are tried for each row, its own first.")] = 8,
    by: Annotated[
        Literal["loss", "pictures"],
        typer.Option(help="Of customization: by held-out loss or, slower, by how alike drawings are to photos."),
    ] = "loss",
    seed: Annotated[int, typer.Option(min=0, help="Of the order, of training and of the trials.")] = 0,
    protocol: Protocol = "full",
    preset: Annotated[str, typer.Option(help="Of classification: classify, coda, pilot, modern, or a TOML file.")] = (
        "classify"
    ),
    changes: Set = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the choice here; OUT/tuned.toml if not given.")
    ] = None,
    jobs: Jobs = 1,
    ray: RayAddress = None,
    threads: Threads = 1,
    dry_run: DryRun = False,
) -> None:
    """Choose each method's rates and strengths on the tuning stream, with as many trials for all."""
    overrides = console.overrides(changes or [])
    console.quiet()
    from ..benchmarks import making, tuning
    from ..benchmarks.protocol import read_protocol
    from ..errors import SettingsError

    draws = by == "pictures"
    if benchmark == "classification":
        if draws:
            do = "Leave --by out: what counts there is accuracy."
            raise SettingsError("classification draws no pictures", where="--by", do=do)
        length, score = tasks, tuning.accuracy
        kept = str((out / "streams").absolute())
        tried, whole = tuning.of_classes(methods, preset, overrides, trials, seed, tasks, threads, kept)
    else:
        length, score = concepts, tuning.alignment if draws else tuning.gain
        tried, whole = tuning.of_concepts(methods, read_protocol(protocol, overrides), trials, seed, threads, draws)
    cells = tuning.cells_of(tried, length, seed)
    run_grid(whole, cells, out, jobs=jobs, ray=ray, dry_run=dry_run)
    if dry_run:
        return
    found = tuning.scores(tried, out, length, seed, score)
    path = to or out / "tuned.toml"
    means = " ".join((score.__doc__ or "").split())
    for name, trial in tuning.write_chosen(path, tried, found, means, making.made()).items():
        said = ", ".join(f"{key} {value:g}" for key, value in trial.values) or "the preset's own settings"
        console.say(f"{name}: {said} ({found[trial.name]:.4f})")
    console.say(f"{path}: take it with: stamina bench {benchmark} --tuned {path}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of results.", show_default=False)],
    to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the report here; FOLDER/report if not given.", show_default=False),
    ] = None,
) -> None:
    """Write a page of what was found, with figures (PNG and SVG), tables (CSV and LaTeX) and results.json."""
    from ..benchmarks import report as reports

    written = reports.write(folder, to or folder / "report")
    console.say(f"{written.page}: {written.runs} runs, {len(written.figures) // 2} figures")


@app.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="A manifest of concepts (.toml).", show_default=False)],
    protocol: Protocol = "full",
    changes: Set = None,
) -> None:
    """Look a manifest of your own photos over: folders, words, and photos enough for the protocol."""
    overrides = console.overrides(changes or [])
    from ..benchmarks.manifest import check_manifest, read_manifest
    from ..benchmarks.protocol import read_protocol

    settings = read_protocol(protocol, overrides)
    found = check_manifest(manifest, len(read_manifest(manifest).subjects), settings.views, settings.test_views)
    for subject in found.subjects:
        taught, tested = subject.divided(settings.views)
        tested = tested[: settings.test_views]
        console.say(f"{subject.word} {subject.class_word}: {len(taught)} to learn from, {len(tested)} to test on")
    console.say(f"{manifest}: {len(found.subjects)} concepts, good")


@app.command()
def select(
    recipe: Annotated[str, typer.Argument(help="celeba-hq, google-landmarks, customconcept101, dreambooth or cifc.")],
    root: Annotated[Path, typer.Argument(help="Where your copy of the data set is.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The manifest to write (.toml).", show_default=False)],
    concepts: Annotated[int, typer.Option(min=2, help="How many concepts.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice among all that have photos enough.")] = 0,
) -> None:
    """Make a manifest of a data set on your disk by its recipe; nothing is fetched."""
    from .. import files
    from ..benchmarks.recipes import RECIPES
    from ..benchmarks.recipes import select as selected
    from ..errors import SettingsError
    from ..toml_tables import unknown

    if recipe not in RECIPES:
        raise SettingsError(unknown(recipe, RECIPES, "there is no recipe", "Recipes:"))
    if out.exists() or out.suffix != ".toml":
        what = "is there already" if out.exists() else "does not end in .toml"
        raise SettingsError(what, where=out, do="Name a new file that ends in .toml.")
    text = selected(recipe, root, concepts, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(out, text.encode())
    console.say(f"{out}: look it over with: stamina bench check {out}")


def whole_numbers(text: str) -> list[int]:
    """`0,1,2` as numbers. Raises BadParameter for what is none, or twice the same."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list such as 0,1,2", param_hint="--seeds") from None
    if len(set(found)) != len(found) or min(found) < 0:
        raise typer.BadParameter(f"{text!r} has a seed twice, or a negative one", param_hint="--seeds")
    return found


def run_grid(
    benchmark: Benchmark, cells: Sequence[Cell], out: Path, *, jobs: int, ray: str | None, dry_run: bool
) -> None:
    """Run the cells that are not done, with the time left; or say which they are."""
    console.quiet()
    from ..benchmarks import fanning, grid, making

    grid.check(benchmark, cells, out)
    left = [cell for cell in cells if not grid.is_done(grid.place(out, cell))]
    if dry_run:
        for cell in left:
            done = len(grid.committed(grid.place(out, cell)))
            tasks = benchmark.tasks(cell)
            share = 1 - done / tasks
            going = f", {done} of {tasks} done" if done else ""
            console.say(f"would run {cell}{going}: about {console.clock(benchmark.seconds(cell) * share)}")
        total = sum(benchmark.seconds(cell) for cell in left) / (jobs if ray is None else 1)
        console.say(
            f"{len(left)} of {len(cells)} runs to do, about {console.clock(total)} with {jobs} at once; "
            "nothing was written"
        )
        return
    grid.prepare(benchmark, cells, out, making.made())
    # A cell's end counts as a task of its own: much is drawn then.
    total = sum(benchmark.tasks(cell) + 1 for cell in cells)
    try:
        with console.progress(f"{benchmark.name}: {len(cells)} runs", total) as advance:
            fanning.run(benchmark, cells, out, jobs=jobs, ray=ray, watch=lambda done: advance(done, f"{done}/{total}"))
    except KeyboardInterrupt:
        console.warn("stopped; every task that was done is kept, and the same command goes on")
        raise typer.Exit(STOPPED) from None
    for cell in cells:
        if why := grid.failure(grid.place(out, cell)):
            console.warn(f"failed: {cell}: {why}")
