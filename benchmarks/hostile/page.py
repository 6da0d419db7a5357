"""The web page as a way in: a real server in a process of its own, spoken to over HTTP as a browser speaks to it.

What a browser would check before it sends is not checked here: a hostile visitor does not use one.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import forks
from . import guard
from .cases import Place

PATIENCE = 120.0
"""Seconds that an answer may take."""
START = 300.0
"""Seconds until the page is served: Gradio must be imported."""


FILE = {"_type": "gradio.FileData"}


class Refused(Exception):
    """The server says no before it asks the page's own functions: too large, no such file, no such choice."""


class Page:
    """A served studio and a visitor of it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.log = place.root.parent / "page.log"
        self._told = self.log.stat().st_size if self.log.exists() else 0
        read, write = os.pipe()
        self._seen, self._half = read, b""
        self._child = forks.Child(lambda: _serve(place, self.log, write))
        os.close(write)
        self.pid = self._child.pid
        self.host = ""
        self._functions: dict[str, int] = {}
        deadline = time.monotonic() + START
        while not self.host:
            if self._child.done() or time.monotonic() > deadline:
                raise SystemExit(f"the page is not served: {self.log.read_text(errors='replace')[-2000:]}")
            for line in self.seen(0.2):
                if found := re.search(r"http://\S+", line):
                    self.host = urlsplit(found[0]).netloc
        config = json.loads(self.fetch("GET", "/config")[1])
        for one in config["dependencies"]:
            self._functions.setdefault(one["api_name"], one["id"])

    # -- what is seen of the server --------------------------------------------------------------------------------

    def seen(self, wait: float = 0.0) -> list[str]:
        """What the guard has seen since it was asked last, and what the server said at its start."""
        while select.select([self._seen], [], [], wait)[0]:
            some = os.read(self._seen, 1 << 16)
            if not some:
                break
            self._half += some
            wait = 0.0
        *lines, self._half = self._half.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def complaints(self) -> str:
        """What the server wrote to its terminal since it was asked last."""
        with open(self.log, "rb") as file:
            file.seek(self._told)
            data = file.read()
        self._told += len(data)
        return data.decode("utf-8", "replace")

    def lives(self) -> bool:
        return not self._child.done()

    def cpu(self) -> float:
        """Seconds that the server has computed."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mebibytes(self) -> float:
        """The most memory that the server has held."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0

    def watch(self) -> None:
        """From now on whatever the server does that it should not is told by `seen`."""
        self.seen()
        os.kill(self.pid, signal.SIGUSR1)
        time.sleep(1.0)

    def close(self) -> None:
        if self.lives():
            self._child.kill()
        self._child.wait()
        os.close(self._seen)

    # -- what a visitor does ---------------------------------------------------------------------------------------

    def fetch(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request: its status and its whole answer."""
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            try:
                return answer.status, answer.read()
            except http.client.IncompleteRead as error:  # the server has hung up
                return answer.status, error.partial
        finally:
            connection.close()

    def post(self, path: str, value: Any) -> Any:
        """JSON for JSON. Raises Refused."""
        data = json.dumps(value).encode()
        status, body = self.fetch("POST", f"/gradio_api{path}", data, {"content-type": "application/json"})
        if status != 200:
            raise Refused(f"{status} {body.decode('utf-8', 'replace')[:300]}")
        return json.loads(body)

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """Upload a file under a name: what the page's functions are then given. Raises Refused."""
        border = secrets.token_hex(16)
        # As browsers write it: what would end the line or the quotes is escaped, anything else is sent as it is.
        quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode("utf-8", "surrogatepass")
        head = b'Content-Disposition: form-data; name="files"; filename="' + quoted + b'"'
        kind = b"Content-Type: application/octet-stream"
        body = b"\r\n".join([b"--" + border.encode(), head, kind, b"", data, b"--" + border.encode() + b"--", b""])
        kinds = {"content-type": f"multipart/form-data; boundary={border}"}
        status, answer = self.fetch("POST", "/gradio_api/upload", body, kinds)
        if status != 200:
            raise Refused(f"{status} {answer.decode('utf-8', 'replace')[:300]}")
        return {
            "path": json.loads(answer)[0],
            "orig_name": name,
            "size": len(data),
            "meta": FILE,
        }

    def ask(self, function: str, data: list[Any], session: str, event: Any = None) -> list[Any]:
        """Call one of the page's functions through its queue, as a press of a button does. Raises Refused."""
        wanted = {"data": data, "fn_index": self._functions[function], "session_hash": session, "event_data": event}
        event_id = self.post("/queue/join", wanted)["event_id"]
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE)
        try:
            connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
            for line in connection.getresponse():
                if not line.startswith(b"data:"):
                    continue
                told = json.loads(line[5:])
                if told.get("msg") == "process_completed" and told.get("event_id") == event_id:
                    if not told.get("success"):
                        raise Refused(f"the page shows an error: {told.get('output')}"[:500])
                    return told["output"]["data"]
                if told.get("msg") in ("unexpected_error", "close_stream"):
                    raise Refused(f"the stream ends: {told}"[:500])
        finally:
            connection.close()
        raise Refused("the stream ends without an answer")

    def at_once(self, function: str, data: list[Any], session: str) -> list[Any]:
        """Call a function that does not wait in the queue, as the page's timer does. Raises Refused."""
        wanted = {"data": data, "fn_index": self._functions[function], "session_hash": session}
        return self.post("/run/predict", wanted)["data"]

    def stop_lesson(self) -> str:
        """Stop what is being taught; what the page says when it has stopped."""
        self.ask("halt", [], secrets.token_hex(8))
        return self.lesson_over()

    def lesson_over(self) -> str:
        """Wait until nothing is being taught; what the page says then."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            said = str(self.at_once("beat", [None, None, "", 0.0], secrets.token_hex(8))[0])
            if re.search(r"Stopped\.|is learned: version \d+\.</b>|was not learned|is learned</code> and safe", said):
                return said
            time.sleep(0.1)
        raise TimeoutError("the lesson does not end")


def _serve(place: Place, log: Path, told: int) -> None:
    """The server's whole life, watched from the moment at which it is open."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    tempfile.tempdir = str(place.root / "tmp")
    os.chdir(place.out)
    from stamina_diffusion.ui import lessons, serving

    def tell(line: str) -> None:
        # Its own lesson is the one process that the page may start.
        if not (line.startswith("subprocess.Popen") and repr(lessons.COMMAND) in line):
            os.write(told, line.encode("utf-8", "backslashreplace").replace(b"\n", b" ") + b"\n")

    # Only once it has done everything once: its libraries make folders for themselves when they are imported.
    signal.signal(signal.SIGUSR1, lambda *_: guard.watch(place.root, tell))
    serving.serve(place.studio, say=tell)


@contextmanager
def opened(place: Place) -> Iterator[Page]:
    page = Page(place)
    try:
        yield page
    finally:
        page.close()
