"""A JupyterLab server, and what its page does with it: sessions by REST, cells by a websocket."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

import httpx
import websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stranger import Stranger

_SECONDS_TO_START: Final = 60
_SECONDS_A_CELL: Final = 300


@dataclass(frozen=True, slots=True)
class Ran:
    """What a cell put out.

    Parameters
    ----------
    bundles
        Displayed data, by MIME type.
    printed
        Text by stream, ``stdout`` or ``stderr``.
    error
        Name and text of the exception; empty if there was none.
    values
        What the expressions gave that were asked for.
    """

    bundles: list[dict[str, Any]] = field(default_factory=list)
    printed: dict[str, str] = field(default_factory=dict)
    error: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """A running JupyterLab.

    Parameters
    ----------
    url
        Where it listens, with a slash at the end.
    token
        What it wants to be told by those who ask.
    """

    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """Headers that let us in."""
        return {"Authorization": f"token {self.token}"}

    def ask(self, method: str, what: str, **content: Any) -> Any:
        """Ask the server, and return its answer."""
        answer = httpx.request(
            method, f"{self.url}api/{what}", headers=self.headers, json=content or None, timeout=60
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    @contextmanager
    def session(self, path: str, kernel: str) -> Iterator[Session]:
        """Open a notebook with a kernel, as JupyterLab does; shut the kernel down in the end."""
        opened = self.ask(
            "POST", "sessions", path=path, name=path, type="notebook", kernel={"name": kernel}
        )
        name = uuid.uuid4().hex
        channels = f"api/kernels/{opened['kernel']['id']}/channels?session_id={name}"
        socket = websocket.create_connection(
            self.url.replace("http", "ws", 1) + channels,
            header=self.headers,
            timeout=_SECONDS_A_CELL,
        )
        try:
            yield Session(socket, name)
        finally:
            socket.close()
            self.ask("DELETE", f"sessions/{opened['id']}")


@dataclass(frozen=True, slots=True)
class Session:
    """The connection to a kernel; `name` tells our messages from those of others."""

    socket: websocket.WebSocket
    name: str

    def run(self, code: str, expressions: dict[str, str] | None = None) -> Ran:
        """Run a cell, and wait until the kernel is idle again."""
        asked = uuid.uuid4().hex
        self.socket.send(json.dumps(self.request(asked, code, expressions or {})))
        ran, missing = Ran(), {"reply", "idle"}
        while missing:
            said = json.loads(self.socket.recv())
            if said["parent_header"].get("msg_id") == asked:
                missing.discard(take(ran, said["msg_type"], said["content"]))
        return ran

    def request(self, asked: str, code: str, expressions: dict[str, str]) -> dict[str, Any]:
        """Return the message that asks a kernel to run code."""
        header = {
            "msg_id": asked,
            "msg_type": "execute_request",
            "session": self.name,
            "username": "",
            "date": datetime.now(timezone.utc).isoformat(),
            "version": "5.3",
        }
        content = {
            "code": code,
            "silent": False,
            "store_history": not expressions,
            "user_expressions": expressions,
            "allow_stdin": False,
            "stop_on_error": True,
        }
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        return {**message, "channel": "shell", "buffers": []}


def take(ran: Ran, kind: str, content: dict[str, Any]) -> str:
    """Take a message of the kernel; return ``reply`` or ``idle`` if it was one of these."""
    if kind in {"display_data", "execute_result"}:
        ran.bundles.append(content["data"])
    elif kind == "stream":
        ran.printed[content["name"]] = ran.printed.get(content["name"], "") + content["text"]
    elif kind == "error":
        ran.error.extend([content["ename"], content["evalue"]])
    elif kind == "execute_reply":
        ran.values.update(content.get("user_expressions", {}))
        return "reply"
    elif kind == "status" and content["execution_state"] == "idle":
        return "idle"
    return ""


@contextmanager
def serving(stranger: Stranger) -> Iterator[Server]:
    """Start ``jupyter lab`` as the stranger, in the folder of the clone."""
    token = secrets.token_hex()
    process = stranger.start(
        *("jupyter", "lab", "--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={stranger.clone}"),
    )
    try:
        yield Server(address(stranger, process.pid), token)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)


def address(stranger: Stranger, pid: int) -> str:
    """Wait until a server has written down where it listens, and answers there."""
    information = stranger.home / f".local/share/jupyter/runtime/jpserver-{pid}.json"
    ends = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < ends:
        if information.exists() and (text := information.read_text(encoding="utf-8")):
            return str(json.loads(text)["url"])
        time.sleep(0.1)
    raise TimeoutError(f"JupyterLab did not start within {_SECONDS_TO_START} s")
