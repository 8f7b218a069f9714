"""What clients do wrong, on purpose or not: a clear error, nothing kept, nobody disturbed."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving import BOUNDARY, Reply, ask, form, serving, upload

from whisper_npu.languages import LANGUAGES
from whisper_npu.options import TranscribeOptions
from whisper_npu.serve import uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from whisper_npu.serve.server import Server

SPEECH = (Path(__file__).parent.parent / "samples" / "sentence.flac").read_bytes()
FILE = {"file": ("a.flac", SPEECH)}
PATH = "/v1/audio/transcriptions"
# random weights never find an end
QUICK = TranscribeOptions(sample_len=4, temperature_increment_on_fallback=None, language="en")


@pytest.fixture(scope="module")
def small(random_model: Callable[[str], Path]) -> Path:
    return random_model("micro")


@pytest.fixture(scope="module")
def server(small: Path) -> Iterator[Server]:
    with serving(small, options=QUICK, max_upload=1_000_000) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_kept(server: Server) -> Iterator[None]:
    """After each test every place is free and no upload is on the disk."""
    before = deleted_files()
    yield
    until(lambda: server.service.queue.waiting == 0 and server.service.queue.in_work == 0)
    until(lambda: deleted_files() <= before)


def deleted_files() -> int:
    """Open files without a name, such as uploads."""
    found = 0
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208  numbers, not paths
        with suppress(OSError):  # closed meanwhile
            found += "(deleted)" in os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
    return found


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def held(server: Server) -> Iterator[threading.Event]:
    """The thread of the models is busy until the event."""
    gate = threading.Event()
    server.service.queue._thread.submit(gate.wait)
    try:
        yield gate
    finally:
        gate.set()


def later(work: Callable[[], Reply]) -> tuple[threading.Thread, list[Reply]]:
    found: list[Reply] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def works(server: Server) -> bool:
    return upload(server, PATH, FILE).status == 200


def post(
    server: Server, body: bytes, kind: str = f"multipart/form-data; boundary={BOUNDARY}"
) -> Reply:
    return ask(server, "POST", PATH, body, {"Content-Type": kind})


WHOLE = form(FILE, model="whisper-1")


@pytest.mark.parametrize(
    ("reply", "status", "told"),
    [
        (lambda s: post(s, b"x", "text/plain"), 415, "send multipart/form-data"),
        (lambda s: post(s, b"{}", "application/json"), 415, "send multipart/form-data"),
        (lambda s: post(s, WHOLE, "multipart/form-data"), 400, "boundary"),
        (lambda s: post(s, b"no parts at all"), 400, "nvalid multipart"),
        (lambda s: post(s, WHOLE[:300]), 400, "the form is cut short"),
        (lambda s: post(s, b""), 400, "'file' with the recording is missing"),
        (lambda s: upload(s, PATH, {}, file="text"), 400, "'file' with the recording is missing"),
        (lambda s: upload(s, PATH, {"model": ("a", b"b"), "file": ("c", b"d")}), 400, "Too many"),
        (lambda s: upload(s, PATH, {"file": ("a.wav", b"")}), 400, "a.wav: is empty"),
        (lambda s: upload(s, PATH, {"file": ("a.wav", b"\0" * 99)}), 400, "a.wav: is not a record"),
        (lambda s: upload(s, PATH, FILE, response_format="pdf"), 400, "'pdf' is not one of json"),
        (lambda s: upload(s, PATH, FILE, temperature="hot"), 400, "'hot' is not a number"),
        (lambda s: upload(s, PATH, FILE, temperature="nan"), 400, "nan is not a number"),
        (lambda s: upload(s, PATH, FILE, temperature="-1"), 400, "-1 is less than 0"),
        (lambda s: upload(s, PATH, FILE, stream="true", response_format="srt"), 400, "stream goes"),
        (lambda s: upload(s, PATH, FILE, timestamp_granularities__="day"), 400, "'day' is not one"),
        (lambda s: upload(s, PATH, FILE, model="../../etc"), 404, "no model '../../etc' here"),
        (lambda s: upload(s, "/asr?output=exe", {"audio_file": ("a", b"b")}), 400, "'exe' is not"),
        (lambda s: upload(s, "/asr?task=sing", {"audio_file": ("a", b"b")}), 400, "'sing' is not"),
        (lambda s: ask(s, "GET", PATH), 405, "Method Not Allowed"),
        (lambda s: ask(s, "GET", "/nothing"), 404, "Not Found"),
        (lambda s: ask(s, "GET", "/v1/models/../../x"), 404, "no"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    server: Server, reply: Callable[[Server], Reply], status: int, told: str
) -> None:
    found = reply(server)
    assert (found.status, found.headers["content-type"]) == (status, "application/json")
    error = found.json["error"]
    assert told.lower() in error["message"].lower()
    assert error.keys() == {"message", "type", "param", "code"}
    assert works(server)


@pytest.mark.parametrize("name", ["../../../tmp/x.wav", "<b>x</b>.wav", "\u202e.wav", "a" * 5000])
def test_a_hostile_name_is_only_shown(server: Server, name: str, tmp_path: Path) -> None:
    found = upload(server, PATH, {"file": (name, b"nothing")})
    assert found.status == 400
    assert found.headers["content-type"] == "application/json"
    assert not Path("/tmp/x.wav").exists()  # noqa: S108  where the name would lead


def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000000\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 1 MB" in answer


def test_an_upload_that_does_not_say_how_large_it_is_ends_at_the_bound(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()
        )
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        pieces = [head.encode(), *([bytes(100_000)] * 12)]
        for piece in pieces:
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert works(server)


@pytest.mark.parametrize("sent", [0, 10, 300, len(WHOLE) // 2])
def test_who_leaves_while_sending_frees_the_place(server: Server, sent: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head(len(WHOLE)) + WHOLE[:sent])
        until(lambda: server.service.queue.waiting == 1)
    until(lambda: server.service.queue.waiting == 0)
    assert works(server)


def head(length: int) -> bytes:
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    ).encode()


def test_a_sender_that_stops_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_SILENCE", 0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head(len(WHOLE)) + WHOLE[:1000])
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head(len(WHOLE)))
        answer = b""
        connection.settimeout(0.05)
        for i in range(200):  # a byte now and then
            connection.sendall(WHOLE[i : i + 1])
            try:
                answer = connection.recv(4096)
                break
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("stream", ["true", "false"])
def test_who_leaves_while_waiting_frees_the_place(server: Server, stream: str) -> None:
    body = form(FILE, stream=stream)
    with held(server):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(head(len(body)) + body)
            until(lambda: server.service.queue.in_work == 1)
        until(lambda: server.service.queue.in_work == 0)
    assert works(server)


def test_a_recording_that_is_too_long(small: Path) -> None:
    with serving(small, options=QUICK, max_audio=2) as short:
        found = upload(short, PATH, FILE)
        assert found.status == 413
        assert found.json["error"]["message"] == "the recording is longer than 2 s"
        assert upload(short, "/asr", {"audio_file": ("a", SPEECH)}).status == 413
        assert upload(short, "/detect-language", {"audio_file": ("a", SPEECH)}).status == 413


def test_too_many_and_too_late(small: Path) -> None:
    with serving(small, options=QUICK, queue=4, timeout=1) as busy:
        with held(busy):
            both = [later(lambda: upload(busy, PATH, FILE)) for _ in range(2)]
            until(lambda: busy.service.queue.waiting + busy.service.queue.in_work == 2)
            refused = upload(busy, PATH, FILE)
            assert refused.status == 429
            assert refused.headers["retry-after"] == "10"
            assert refused.json["error"]["code"] == "queue_full"
            for thread, _ in both:
                thread.join()
        assert [replies[0].status for _, replies in both] == [503, 503]
        assert works(busy)


def test_the_end_waits_for_what_is_in_work(small: Path) -> None:
    with serving(small, options=QUICK) as ending:
        with held(ending) as gate:
            working = later(lambda: upload(ending, PATH, FILE))
            until(lambda: ending.service.queue.in_work == 1)
            waiting = later(lambda: upload(ending, PATH, FILE))
            until(lambda: ending.service.queue.waiting == 1)
            ending.stop()
            gate.set()
        for thread, _ in (working, waiting):
            thread.join()
        assert [working[1][0].status, waiting[1][0].status] == [200, 503]


def test_only_who_knows_the_token_is_let_in(small: Path) -> None:
    with serving(small, options=QUICK, token="secret") as guarded:
        basic = base64.b64encode(b"anybody:secret").decode()
        given = ["Bearer secret", f"Basic {basic}", "Bearer wrong", "Basic !", "secret", ""]
        paths = ["/metrics", "/v1/models", "/status", "/nothing"]
        statuses = [
            ask(guarded, "GET", path, headers={"Authorization": one} if one else {}).status
            for path in paths[:1]
            for one in given
        ]
        assert statuses == [200, 200, 401, 401, 401, 401]
        for path in paths:
            refused = ask(guarded, "GET", path)
            assert refused.status == 401
            assert "Basic" in refused.headers["www-authenticate"]
            assert refused.json["error"]["code"] == "invalid_api_key"
        assert upload(guarded, PATH, FILE).status == 401
        assert ask(guarded, "GET", "/health").json["status"] == "ok"


def test_pages_of_other_sites_are_kept_out(server: Server) -> None:
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    strange = ask(server, "POST", PATH, WHOLE, {**kind, "Origin": "http://evil.example"})
    assert strange.status == 403
    own = {"Origin": f"http://127.0.0.1:{server.port}"}
    assert ask(server, "POST", PATH, WHOLE, kind | own).status == 200


def test_a_model_that_is_idle_is_unloaded_and_comes_back(small: Path) -> None:
    with serving(small, options=QUICK, idle=0.1) as idle:
        until(lambda: idle.service.models.loaded == [])
        assert works(idle)
        until(lambda: idle.service.models.loaded == [])


def test_several_models_by_name(small: Path, random_model: Callable[[str], Path]) -> None:
    with serving(small, random_model("micro.en"), options=QUICK) as both:
        assert both.service.models.loaded == ["micro"]
        assert upload(both, PATH, FILE, model="micro.en").status == 200
        assert both.service.models.loaded == ["micro", "micro.en"]
        assert ask(both, "GET", "/v1/models/micro.en").json["id"] == "micro.en"
        assert upload(both, "/v1/audio/translations", FILE, model="micro").status == 200


def test_the_language_is_detected(server: Server) -> None:
    found = upload(server, "/detect-language", {"audio_file": ("a.flac", SPEECH)}).json
    assert LANGUAGES[found["language_code"]] == found["detected_language"]
    assert 0 < found["confidence"] < 1


def test_metrics_count(server: Server) -> None:
    assert works(server)
    lines = ask(server, "GET", "/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    counted = 'whisper_npu_requests_total{outcome="200",protocol="openai"}'
    assert float(values[counted]) >= 1
    assert float(values["whisper_npu_audio_seconds_total"]) > 3
    assert values["whisper_npu_queue_in_work"] == "0.0"


# Wyoming


def speak(server: Server, sent: bytes) -> list[dict[str, Any]]:
    """Bytes, and the events that come back; the connection stays open while they are read."""
    with socket.create_connection(("127.0.0.1", server.wyoming_port or 0), timeout=20) as talk:
        talk.sendall(sent)
        file, found = talk.makefile("rb"), []
        while line := file.readline():
            event = json.loads(line)
            event["data"] = json.loads(file.read(event.get("data_length", 0)) or "{}")
            found.append(event)
        return found


def frame(kind: str, payload: bytes = b"", **data: Any) -> bytes:
    """With its data inline; the package wyoming sends them apart."""
    head = {"type": kind, "data": data, "payload_length": len(payload)}
    return json.dumps(head).encode() + b"\n" + payload


SOUND: dict[str, Any] = {"rate": 16000, "width": 2, "channels": 1}
CHUNK = frame("audio-chunk", bytes(3200), **SOUND)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no frame"),
        (b"[1, 2]\n", "no frame"),
        (b"x" * 200_000, "no frame"),
        (b'{"data": {}}\n', "no frame"),
        (b"[" * 60_000 + b"\n", "no frame"),
        (b'{"type": "a", "payload_length": 99999999999}\n', "at most"),
        (b'{"type": "a", "data_length": -1}\n', "at most"),
        (b'{"type": "a", "data_length": "9"}\n', "at most"),
        (b'{"type": "a", "data_length": 2}\n[]', "no frame"),
        (frame("audio-chunk", b"ab"), "needs rate, width, channels"),
        (frame("audio-chunk", b"ab", rate=16000, width=2, channels=0), "no such samples"),
        (frame("audio-chunk", b"ab", rate=0, width=2, channels=1), "no such samples"),
        (frame("audio-chunk", b"ab", rate=16000, width=7, channels=1), "no such samples"),
        (frame("audio-chunk", b"ab", rate="a", width=[], channels={}), "no such samples"),
        (CHUNK + frame("audio-chunk", b"ab", rate=8000, width=2, channels=1), "must not change"),
        (frame("transcribe", name="huge") + CHUNK + frame("audio-stop"), "no model 'huge'"),
        (frame("transcribe", language="xx") + CHUNK + frame("audio-stop"), "unknown language"),
        (frame("transcribe", language=7) + CHUNK + frame("audio-stop"), ""),
    ],
)
def test_a_wrong_frame_is_told_what_is_wrong(server: Server, sent: bytes, told: str) -> None:
    error = speak(server, sent)[-1]
    assert error["type"] == "error"
    assert told in error["data"]["text"]
    assert speak(server, CHUNK + frame("audio-stop"))[-1]["type"] == "transcript-stop"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b'{"type": "audio-',
        frame("describe"),
        frame("audio-start", **SOUND),
        CHUNK * 3,
        CHUNK[:-100],
        b'{"type": "a", "data_length": 100}\n{"a"',
    ],
)
def test_who_hangs_up_in_the_middle_disturbs_nobody(server: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.wyoming_port or 0), timeout=20) as talk:
        talk.sendall(sent)
    assert speak(server, CHUNK + frame("audio-stop"))[-1]["type"] == "transcript-stop"


def test_who_hangs_up_while_waiting_frees_the_place(server: Server) -> None:
    with held(server):
        with socket.create_connection(("127.0.0.1", server.wyoming_port or 0), timeout=20) as talk:
            talk.sendall(CHUNK + frame("audio-stop"))
            until(lambda: server.service.queue.in_work == 1)
        until(lambda: server.service.queue.in_work == 0)


def test_wyoming_answers_a_ping(server: Server) -> None:
    ping = frame("ping", text="x") + frame("audio-stop")
    assert [event["type"] for event in speak(server, ping)] == ["pong", "transcript"]


def test_the_end_waits_for_an_utterance(small: Path) -> None:
    found: list[list[dict[str, Any]]] = []
    with serving(small, options=QUICK) as ending, held(ending) as gate:
        sent = CHUNK + frame("audio-stop")
        speaker = threading.Thread(target=lambda: found.append(speak(ending, sent)))
        speaker.start()
        until(lambda: ending.service.queue.in_work == 1)
        with socket.create_connection(("127.0.0.1", ending.wyoming_port or 0)):  # says nothing
            ending.stop()
            gate.set()
            speaker.join()
    assert found[0][-1]["type"] == "transcript-stop"
