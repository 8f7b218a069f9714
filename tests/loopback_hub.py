"""A Hugging Face hub on the loopback, which can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = "somebody/whisper-small-thing"
COMMIT = "c0ffee" + "0" * 34


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def model_files(weights: bytes = b"weights " * 40_000) -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "whisper"}',
        "tokenizer.json": b'{"model": {}}',
        "model.safetensors": weights,
        "pytorch_model.bin": b"a pickle that nobody must load",
        "README.md": b"read me",
    }


@dataclass
class Hub:
    """What it offers, and its faults: path -> what each successive request suffers."""

    files: dict[str, bytes] = field(default_factory=model_files)
    commit: str = COMMIT
    faults: dict[str, list[str]] = field(default_factory=dict)
    answer: bytes | None = None  # about the model, in place of the truth
    extra_entries: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # name -> a lie
    etags: dict[str, str] = field(default_factory=dict)  # name -> a lie told only with the file
    sizes: dict[str, int] = field(default_factory=dict)  # likewise
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # (path, range)
    stalled: threading.Event = field(default_factory=threading.Event)

    def digest(self, name: str) -> str:
        """Of a file, as the hub tells it: sha256 of large files, git's sha1 of small ones."""
        content = self.files[name]
        is_large = name.endswith((".safetensors", ".bin"))
        true = hashlib.sha256(content).hexdigest() if is_large else git_sha1(content)
        return self.digests.get(name, true)

    def describe(self) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for name, content in self.files.items():
            digest = self.digest(name)
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": digest}
            if len(digest) == 64:
                entry["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 130}
            siblings.append(entry)
        return {
            "id": REPO,
            "sha": self.commit,
            "tags": ["license:mit"],
            "siblings": siblings + self.extra_entries,
        }


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        """What a file is, without its content; faults strike the content."""
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        if name not in self.hub.files:
            return self._answer(404, b"")
        content = self.hub.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(self.hub.sizes.get(name) or len(content)))
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.send_header("ETag", f'"{self.hub.etags.get(name) or self.hub.digest(name)}"')
        return self.end_headers()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.hub.requests.append((path, self.headers.get("Range")))
        faults = self.hub.faults.get(path.rsplit("/", 1)[-1] if "/resolve/" in path else "api", [])
        fault = faults.pop(0) if faults else ""
        if fault.isdigit():
            self._answer(int(fault), b'{"error": "no"}')
        elif "/api/models/" in path:
            body = b"<html>" if fault == "garbage" else json.dumps(self.hub.describe()).encode()
            self._answer(200, self.hub.answer or body)
        elif path.rsplit("/", 1)[-1] in self.hub.files:
            self._send_file(path.rsplit("/", 1)[-1], fault)
        else:
            self._answer(404, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, name: str, fault: str) -> None:
        body = self.hub.files[name]
        start = 0
        if (asked := self.headers.get("Range")) and fault != "no ranges":
            start = int(asked.removeprefix("bytes=").split("-")[0])
        whole = len(body)
        body = body[start:]
        if fault == "garble":
            body = body[: len(body) // 2] + b"\xff" + body[len(body) // 2 + 1 :]
        if fault == "flood":
            body += b"x" * (4 << 20)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        announced = len(body) // 2 if fault == "truncate" else len(body)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        try:
            if fault in ("drop", "stall"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if fault == "stall":
                    self.hub.stalled.wait(20)
                self.close_connection = True
            else:
                self.wfile.write(body[:announced])
        except OSError:
            self.close_connection = True  # the client has hung up


def serve(hub: Hub) -> Iterator[str]:
    """Yield the address while the hub answers."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    hub.stalled.set()
    server.shutdown()
    server.server_close()
    thread.join()
