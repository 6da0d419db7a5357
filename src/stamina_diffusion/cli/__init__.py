"""The command line: one file a verb group. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import typer

from . import (
    bench_classes,
    benching,
    drawing,
    exporting,
    history,
    learning,
    looking,
    making,
    reporting,
    streaming,
    trust,
)
from . import ui as web
from .faults import Verbs

app = typer.Typer(
    cls=Verbs,
    name="stamina",
    help="Teach a text-to-image model one concept after another, and forget nothing.",
    epilog="Begin with: stamina demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"stamina-diffusion {version('stamina-diffusion')}")
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command()(making.demo)
app.command()(learning.init)
app.command()(learning.learn)
app.command()(drawing.draw)
app.command()(looking.log)
app.command()(reporting.report)
app.command()(history.rollback)
app.command()(history.forget)
app.command()(history.rename)
app.command()(history.branch)
app.command()(trust.verify)
app.command()(trust.pack)
app.command()(trust.unpack)
app.command()(trust.diff)
app.command()(exporting.export)
app.command()(looking.doctor)
app.command()(web.ui)
app.command()(streaming.config)
app.command()(making.world)
app.command()(making.pretrain)
benching.app.command()(bench_classes.classification)
app.add_typer(benching.app, name="bench")


def main() -> None:
    """Run the command line; the exit code is 2 for whatever a person can mend."""
    app(prog_name="stamina")
