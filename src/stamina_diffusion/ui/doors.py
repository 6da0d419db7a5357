"""Who may reach the page: this machine alone, unless the person names an address or a share link and a password."""

from __future__ import annotations

import hmac
import importlib.util
import ipaddress
from collections.abc import Callable

from ..errors import StaminaError

LEAST_PASSWORD = 8
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")

# Everything that the page shows comes from this server: the browser is told to refuse the rest. Gradio's own
# scripts are inline and compile templates, which is what the two 'unsafe' words allow.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}


class DoorError(StaminaError):
    """The page would be open to others without a password, or cannot be served at all."""


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("::1"), is_local("0.0.0.0"), is_local("192.168.1.5")
    (True, True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check(host: str, share: bool, password: str | None) -> None:
    """Raise DoorError for a page that others could open without a password, and for a password that is too short."""
    if password is not None and len(password) < LEAST_PASSWORD:
        raise DoorError(
            f"the password has {len(password)} characters", do=f"Take {LEAST_PASSWORD} or more; a sentence is good."
        )
    if password is None and share:
        raise DoorError(
            "--share lets anyone with the link use this studio", do="Give a password too: --password WORDS."
        )
    if password is None and not is_local(host):
        raise DoorError(
            f"--host {host} lets other machines use this studio",
            do="Give a password too (--password WORDS), or leave --host out: the page is then for this machine only.",
        )


def check_gradio() -> None:
    """Raise DoorError where the optional extra is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise DoorError(
            "the web studio needs gradio, which is not installed", do='Install it: pip install "stamina-diffusion[ui]"'
        )


def shut_outwards() -> None:
    """Let Gradio fetch nothing: it would download what a visitor names by its address, and ask a name server first."""
    import safehttpx

    async def refuse(hostname: str) -> str:
        raise ValueError(f"{hostname}: this studio fetches nothing from elsewhere")

    safehttpx.async_validate_url = refuse


def keeper(password: str) -> Callable[[str, str], bool]:
    """What decides whether a name and a password may come in: any name, the one password."""

    def may_enter(_: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), password.encode())

    return may_enter


class Guard:
    """Puts the headers on every answer, and refuses requests that call this machine by a name that is not its own.

    Without the second a page elsewhere, whose name its owner lets point to 127.0.0.1, could use the studio.
    """

    def __init__(self, app, names: tuple[str, ...] | None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self.names is not None and _without_port(given) not in self.names:
            await send({"type": "http.response.start", "status": 421, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"This studio is not served under that name."})
            return

        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                added = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _without_port(host: str) -> str:
    """
    >>> _without_port("localhost:7860"), _without_port("[::1]:7860"), _without_port("127.0.0.1")
    ('localhost', '[::1]', '127.0.0.1')
    """
    name, _, port = host.rpartition(":")
    return name.lower() if name and port.isdigit() and (":" not in name or name.endswith("]")) else host.lower()
