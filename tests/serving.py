"""A server in a thread of the test, on ports that are free, and what clients send to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from whisper_npu.options import DeviceOptions, TranscribeOptions
from whisper_npu.options.serving import ServeOptions
from whisper_npu.serve.server import Server

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

T = TypeVar("T")

BOUNDARY = "a-boundary"


@contextmanager
def serving(
    *models: Path, options: TranscribeOptions | None = None, **more: Any
) -> Iterator[Server]:
    """A server that is ready, and ends in an orderly way."""
    serve = ServeOptions(port=0, wyoming_port=0, **more)
    told = threading.Event()
    names = [str(path) for path in models]
    defaults = options or TranscribeOptions(beam_size=5)
    server = Server(names, DeviceOptions("cpu"), defaults, serve, say=lambda _: told.set())
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(server.serve())
        except BaseException as error:  # noqa: BLE001  the test is told
            failed.append(error)
            told.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert told.wait(60), "the server does not begin"
        if failed:
            raise failed[0]
        yield server
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive(), "the server does not end"


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, in a loop of its own: that of the browser may be running here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(
    server: Server,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        found = connection.getresponse()
        names = {name.lower(): value for name, value in found.getheaders()}
        return Reply(found.status, names, found.read().decode())
    finally:
        connection.close()


def upload(server: Server, path: str, files: dict[str, tuple[str, bytes]], **fields: str) -> Reply:
    """A form as requests and curl send it."""
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return ask(server, "POST", path, form(files, **fields), kind)


def form(files: dict[str, tuple[str, bytes]], **fields: str) -> bytes:
    """The body of a form; `__` in a field's name stands for []."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name.replace("__", "[]")}"'
        f"\r\n\r\n{value}\r\n".encode()
        for name, value in fields.items()
    ]
    for name, (filename, content) in files.items():
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="'
        parts.append(f'{head}{filename}"\r\n\r\n'.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
