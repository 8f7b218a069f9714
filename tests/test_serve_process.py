"""whisper-npu serve as a process: how it begins, is killed, begins again and ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import BOUNDARY, form

from whisper_npu import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from command_line import CommandLine

ROOT = Path(__file__).parent.parent
SPEECH = (ROOT / "samples" / "sentence.flac").read_bytes()


@contextmanager
def process(model: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that is ready, and its port."""
    command = [sys.executable, "-m", "whisper_npu", "serve", "-m", str(model), "--device", "cpu"]
    command += ["--port", str(port), "--wyoming-port", "none", "--sample-len", "4", "-l", "en"]
    command += ["--temperature-increment-on-fallback", "none", "--beam-size", "1"]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with running:
        assert running.stderr
        try:
            line = next(line for line in running.stderr if "listening on" in line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            assert found
            yield running, int(found[1])
        finally:
            running.kill()


def text(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        body = form({"file": ("a.flac", SPEECH)})
        connection.request("POST", "/v1/audio/transcriptions", body, kind)
        return str(json.loads(connection.getresponse().read())["text"])
    finally:
        connection.close()


def test_clients_go_on_after_kill_9(random_model: Callable[[str], Path]) -> None:
    model = random_model("micro")
    with process(model, 0) as (running, port):
        before = text(port)
        with socket.create_connection(("127.0.0.1", port)) as connection:  # in the middle of one
            connection.sendall(b"POST /asr HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx")
            running.send_signal(signal.SIGKILL)
            running.wait()
    with process(model, port) as (running, again):
        assert again == port
        assert text(port) == before
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0


def test_a_port_in_use_is_said_before_any_model_is_opened(command_line: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command_line("serve", "-m", "/nowhere", "--port", port)
    assert done.code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.err


def test_a_model_that_is_not_there(command_line: CommandLine) -> None:
    done = command_line("serve", "-m", "/nowhere", "--port", 0, "--wyoming-port", "none")
    assert (done.code, done.out) == (5, "")
    assert "there is no model folder /nowhere" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "99999"], "99999 is more than 65535"),
        (["--wyoming-port", "x"], "'x' is neither a port nor none"),
        (["--token", " "], "--token must not be empty"),
        (["--token", "ü"], "only ASCII"),
        (["--host", "no-such.invalid"], "--host, --port: cannot listen on no-such.invalid:8000"),
        (["--max-upload", "lots"], "'lots' is not a size"),
    ],
)
def test_a_wrong_option_is_named(
    command_line: CommandLine, arguments: list[str], told: str
) -> None:
    done = command_line("serve", *arguments)
    assert (done.code, done.out) == (2, "")
    assert told in " ".join(done.err.split())


def test_without_the_extra_it_says_what_to_install(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda _: None)
    done = command_line("serve")
    assert done.code == 2
    assert "pip install 'whisper-npu[serve]'" in done.err
