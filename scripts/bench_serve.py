#!/usr/bin/env python3
"""The server under load, and beside faster-whisper behind the same client.

    scripts/bench_serve.py load MODEL RECORDING [--at-once 100] [--in-a-row 1000]
    scripts/bench_serve.py peers MODEL RECORDING... --peer PYTHON [--rounds 3]

`load` counts what becomes of many requests, and looks at the memory of the server. `peers` starts
both servers in turn and measures, through the package openai: from the start of the process to the
first words (cold), the seconds of audio a second with one client and with four, and the processor
time that a second of audio takes. MODEL is a CTranslate2 folder, which both read; PYTHON an
interpreter with faster-whisper. speaches, the server that is built on it, is not on PyPI: its place
is taken by `peer`, twenty lines around the library.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
READY = re.compile(r"http://127\.0\.0\.1:(\d+)")


def peer(model: str, threads: int) -> None:
    """faster-whisper as a server: POST /v1/audio/transcriptions, one request at a time."""
    import tempfile
    import threading
    from email.parser import BytesParser
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from faster_whisper import WhisperModel

    whisper = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)
    busy = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts: Any = BytesParser().parsebytes(head + body).get_payload()
            sound = next(part for part in parts if part.get_filename())
            with tempfile.NamedTemporaryFile() as file, busy:
                file.write(sound.get_payload(decode=True))
                file.flush()
                text = "".join(part.text for part in whisper.transcribe(file.name)[0])
            answer = json.dumps({"text": text.strip()}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()


@contextmanager
def started(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process that listens, and its port."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    with process:
        try:
            told = (READY.search(line) for line in process.stderr or ())
            yield process, next(int(found[1]) for found in told if found)
        finally:
            process.terminate()


def ours(model: str, *more: str) -> list[str]:
    command = [sys.executable, "-m", "whisper_npu", "serve", "-m", model, "--device", "cpu"]
    return [*command, "--port", "0", "--wyoming-port", "none", *more]


def client(port: int) -> Any:
    import openai

    address = f"http://127.0.0.1:{port}/v1"
    return openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=600)


def resident(process: subprocess.Popen[str]) -> float:
    """Megabytes of memory that a process has now."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1e3


def descriptors(process: subprocess.Popen[str]) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))  # noqa: PTH208  of another process


def worked(process: subprocess.Popen[str]) -> float:
    """Seconds of processor time that a process has used, its threads included."""
    fields = Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(model: str, recording: Path, at_once: int, in_a_row: int) -> None:
    """How many requests got which status, and the memory before, between and after."""
    import openai

    sound = recording.read_bytes()

    def ask(asking: Any) -> str:
        try:
            asking.audio.transcriptions.create(file=(recording.name, sound), model="whisper-1")
        except openai.APIStatusError as error:
            return str(error.status_code)
        return "200"

    quick = (
        "--threads",
        "1",
        "--sample-len",
        "8",
        "--temperature-increment-on-fallback",
        "none",
        "-l",
        "en",
    )
    with started(ours(model, *quick)) as (process, port), client(port) as asking:
        for _ in range(20):
            ask(asking)
        print(f"warm: {resident(process):.0f} MB, {descriptors(process)} descriptors", flush=True)
        with ThreadPoolExecutor(at_once) as threads:
            statuses = Counter(threads.map(ask, [asking] * at_once))
        print(f"{at_once} at once: {dict(statuses)}, {resident(process):.0f} MB", flush=True)
        statuses = Counter()
        for i in range(in_a_row):
            statuses[ask(asking)] += 1
            if i % max(1, in_a_row // 5) == 0:
                print(f"  after {i}: {resident(process):.1f} MB", flush=True)
        memory, files = resident(process), descriptors(process)
        print(f"{in_a_row} in a row: {dict(statuses)}, {memory:.1f} MB, {files} descriptors")


def peers(model: str, recordings: list[Path], python: str, rounds: int, threads: int) -> None:
    """A Markdown table: medians over rounds in which both take turns."""
    with_beams = ours(model, "--threads", str(threads))
    beside = [python, __file__, "peer", model, "--threads", str(threads)]
    found: dict[str, list[tuple[float, ...]]] = {}
    for _ in range(rounds):
        for name, command in (("whisper-npu", with_beams), ("faster-whisper", beside)):
            found.setdefault(name, []).append(_measured(command, recordings))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    print("| server | cold start to the first text | 1 client | 4 clients | processor time |")
    print("|---|---|---|---|---|")
    for name, rows in found.items():
        cold, one, four, work = (median(column) for column in zip(*rows, strict=True))
        speeds = f"{one:.1f} times real time | {four:.1f}"
        print(f"| {name} | {cold:.2f} s | {speeds} | {work:.3f} s for each of audio |")


def _measured(command: list[str], recordings: list[Path]) -> tuple[float, ...]:
    import soundfile

    length = sum(soundfile.info(path).duration for path in recordings)
    began = time.perf_counter()
    with started(command) as (process, port), client(port) as asking:

        def ask(path: Path) -> str:
            made = asking.audio.transcriptions.create(file=path, model="whisper-1", language="en")
            return str(made.text)

        ask(recordings[0])
        cold = time.perf_counter() - began
        speeds, before = [], worked(process)
        for n in (1, 4):
            began = time.perf_counter()
            with ThreadPoolExecutor(n) as clients:
                list(clients.map(ask, recordings))
            speeds.append(length / (time.perf_counter() - began))
        return cold, *speeds, (worked(process) - before) / (2 * length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["load", "peers", "peer"])
    parser.add_argument("model")
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--in-a-row", type=int, default=1000)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    if asked.what == "peer":
        peer(asked.model, asked.threads)
    elif asked.what == "load":
        load(asked.model, asked.recordings[0], asked.at_once, asked.in_a_row)
    else:
        peers(asked.model, asked.recordings, asked.peer, asked.rounds, asked.threads)


if __name__ == "__main__":
    main()
