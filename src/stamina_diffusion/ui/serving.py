"""Serve the page until it is stopped, and leave nothing of it behind."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from ..cli import console
from . import doors, history
from .doors import DoorError

FIRST_PORT = 7860


def serve(
    folder: Path,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    share: bool = False,
    password: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a studio's page and block until Ctrl-C or SIGTERM.

    Raises DoorError before anything is served to others without a password, StudioError and LedgerError for a folder
    that is no studio.
    """
    doors.check(host, share, password)
    doors.check_gradio()
    history.read(folder)  # a folder that is no studio is told before Gradio is imported, which takes a while
    with tempfile.TemporaryDirectory(prefix="stamina-ui-") as private:  # readable by this user only
        # Before gradio is imported: it reads them once. The first keeps it from calling home.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = private
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        console.quiet()
        from .desk import Desk

        desk = Desk.open(folder, Path(private))
        try:
            _serve(desk, port, host, share, password, say)
        finally:
            desk.lessons.close()
            desk.model.close()


def _serve(desk, port: int | None, host: str, share: bool, password: str | None, say: Callable[[str], None]) -> None:
    from starlette.middleware import Middleware

    from . import page, uploads

    doors.shut_outwards()
    names = doors.LOCAL_NAMES if doors.is_local(host) and not share else None
    blocks = page.build(desk)
    desk.model.warm()
    try:
        _, url, link = blocks.launch(
            server_name=host,
            server_port=port,
            share=share,
            auth=doors.keeper(password) if password else None,
            auth_message="The password stands where stamina ui was started; any name will do." if password else None,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            inbrowser=False,
            footer_links=[],
            max_file_size=uploads.BYTE_LIMIT,
            enable_monitoring=False,
            run_history=False,
            ssr_mode=False,
            app_kwargs={
                "middleware": [Middleware(doors.Guard, names=names)],
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
            **page.looks(),
        )
    except OSError as error:
        taken = f"port {port} is taken" if port else "no port is free"
        raise DoorError(f"{taken} on {host}", do="Give another one with --port.") from error
    try:
        say(f"The studio is open at {url}")
        if link:
            say(f"and, with the password, for anyone at {link}")
        say("Stop it with Ctrl-C.")
        _until_stopped()
    finally:
        blocks.close(verbose=False)


def _until_stopped() -> None:
    stopped = threading.Event()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda *_: stopped.set())
    try:
        while not stopped.wait(0.5):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
