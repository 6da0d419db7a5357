"""`stamina ui`: the studio in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console
from .learning import Folder


def ui(
    folder: Folder,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The port; a free one from 7860 if not given.", show_default=False),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address; another than this machine's own needs a password.")
    ] = "127.0.0.1",
    share: Annotated[
        bool, typer.Option("--share", help="Make a link that works from anywhere, through gradio's servers.")
    ] = False,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="STAMINA_PASSWORD", show_envvar=True, help="Let in whoever knows it, only.", show_default=False
        ),
    ] = None,
) -> None:
    """Open the studio in the browser: teach, draw, look back, undo and export. Needs the extra 'ui'."""
    from ..ui.serving import serve

    serve(folder, port=port, host=host, share=share, password=password or None, say=console.say)
