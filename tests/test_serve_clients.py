"""The server, asked by clients that we did not write: each gets the text of the command line."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
import soundfile
from serving import ask, finished, serving, upload
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wyoming.event import Event

    from whisper_npu.serve.server import Server

ROOT = Path(__file__).parent.parent
SPEECH = ROOT / "samples" / "two_sentences.flac"
PIECE = 1024  # samples in a chunk, as Home Assistant sends them


@pytest.fixture(scope="module")
def server(tiny_en: Path) -> Iterator[Server]:
    with serving(tiny_en) as running:
        yield running


@pytest.fixture(scope="module")
def written(tiny_en: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Format -> what the command line writes."""
    folder = tmp_path_factory.mktemp("written")
    command = ["-m", "whisper_npu", "transcribe", SPEECH, "-m", tiny_en, "--device", "cpu"]
    command += ["-o", folder, "-f", "all"]
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT, capture_output=True)
    return {path.suffix[1:]: path.read_text("utf-8") for path in folder.glob("two_sentences.*")}


@pytest.fixture(scope="module")
def spoken(written: dict[str, str]) -> str:
    return " ".join(written["txt"].split())


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0
    ) as made:
        yield made


def test_openai_text(client: openai.OpenAI, spoken: str) -> None:
    found = client.audio.transcriptions.create(file=SPEECH, model="whisper-1")
    assert found.text == spoken
    assert found.to_dict()["usage"] == {"type": "duration", "seconds": 11}
    plain = client.audio.transcriptions.create(
        file=SPEECH, model="whisper-1", response_format="text"
    )
    assert plain == f"{spoken}\n"


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_openai_subtitles(client: openai.OpenAI, written: dict[str, str], form: str) -> None:
    found = client.audio.transcriptions.create(
        file=SPEECH,
        model="whisper-1",
        response_format=form,  # type: ignore[call-overload]  # one of two
    )
    assert found == written[form]


def test_openai_words_and_segments(client: openai.OpenAI, spoken: str) -> None:
    found = client.audio.transcriptions.create(
        file=SPEECH,
        model="whisper-1",
        language="en",
        prompt="Good",
        temperature=0,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert found.language == "english"
    assert found.duration == pytest.approx(10.88, abs=0.01)
    assert found.segments
    assert found.words
    assert " ".join(word.word for word in found.words) == " ".join(found.text.split())
    assert found.segments[-1].avg_logprob < 0
    assert {"id", "seek", "tokens", "no_speech_prob"} <= found.segments[0].to_dict().keys()
    ends = [word.end for word in found.words]
    assert ends == sorted(ends)


def test_openai_words_alone(client: openai.OpenAI) -> None:
    found = client.audio.transcriptions.create(
        file=SPEECH,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word"],
    )
    assert found.words
    assert found.segments is None


def test_openai_stream(client: openai.OpenAI, spoken: str) -> None:
    events = list(client.audio.transcriptions.create(file=SPEECH, model="whisper-1", stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == spoken
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == spoken


def test_openai_models(client: openai.OpenAI, server: Server) -> None:
    names = [model.id for model in client.models.list()]
    assert names == server.service.models.names
    assert client.models.retrieve(names[0]).object == "model"


def test_openai_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'large'"):
        client.audio.transcriptions.create(file=SPEECH, model="large")
    with pytest.raises(openai.BadRequestError, match="not a recording"):
        client.audio.transcriptions.create(file=("a.wav", b"RIFFnothing"), model="whisper-1")
    with pytest.raises(openai.BadRequestError, match="unknown language 'xx'"):
        client.audio.transcriptions.create(file=SPEECH, model="whisper-1", language="xx")


def test_translations_need_a_model_that_can(server: Server) -> None:
    files = {"file": ("speech.flac", SPEECH.read_bytes())}
    found = upload(server, "/v1/audio/translations", files, model="whisper-1")
    assert found.status == 400
    assert "knows only English and cannot translate" in found.json["error"]["message"]


def hear(server: Server, chunks: list[AudioChunk], language: str | None = "en") -> list[Event]:
    """An utterance as Home Assistant sends it, and all that comes back."""

    async def speak() -> list[Event]:
        assert server.wyoming_port
        found = []
        async with AsyncTcpClient("127.0.0.1", server.wyoming_port) as connection:
            await connection.write_event(Transcribe(language=language).event())
            if chunks:
                first = chunks[0]
                start = AudioStart(first.rate, first.width, first.channels)
                await connection.write_event(start.event())
            for chunk in chunks:
                await connection.write_event(chunk.event())
            await connection.write_event(AudioStop().event())
            while event := await connection.read_event():
                found.append(event)
        return found

    return finished(speak())


def chunks(repeat: int = 1, channels: int = 1) -> list[AudioChunk]:
    """The recording in pieces; each sample some times, in so many channels."""
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    told = samples.repeat(repeat * channels).reshape(-1, channels)
    return [
        AudioChunk(rate * repeat, 2, channels, told[i : i + PIECE].tobytes())
        for i in range(0, len(told), PIECE)
    ]


def test_wyoming_tells_what_it_can(server: Server) -> None:
    async def describe() -> Info:
        assert server.wyoming_port
        async with AsyncTcpClient("127.0.0.1", server.wyoming_port) as connection:
            await connection.write_event(Describe().event())
            event = await connection.read_event()
            assert event
            return Info.from_event(event)

    [program] = finished(describe()).asr
    assert program.supports_transcript_streaming
    assert [model.name for model in program.models] == server.service.models.names
    assert program.models[0].languages == ["en"]


def test_wyoming_hears(server: Server, spoken: str) -> None:
    events = hear(server, chunks())
    assert events[0].type == "transcript-start"
    assert [event.type for event in events[-2:]] == ["transcript", "transcript-stop"]
    assert events[-2].data == {"text": spoken, "language": "en"}
    pieces = [event.data["text"] for event in events if event.type == "transcript-chunk"]
    assert len(pieces) > 1
    assert "".join(pieces).strip() == spoken


def test_wyoming_takes_other_rates_and_channels(server: Server, spoken: str) -> None:
    events = hear(server, chunks(repeat=3, channels=2), "en-US")
    text = next(event.data["text"] for event in events if event.type == "transcript")
    assert "umbrella" in text
    assert "umbrella" in spoken


def test_wyoming_hears_nothing(server: Server) -> None:
    assert [event.data for event in hear(server, [])] == [{"text": ""}]


def raw() -> bytes:
    """What Bazarr makes with ffmpeg: samples without a header."""
    samples, _ = soundfile.read(SPEECH, dtype="int16")
    return bytes(samples.tobytes())


def test_bazarr_gets_subtitles(server: Server, written: dict[str, str]) -> None:
    path = "/asr?task=transcribe&language=en&output=srt&encode=false&video_file=film.mkv"
    found = upload(server, path, {"audio_file": ("audio_file", raw())})
    assert (found.status, found.text) == (200, written["srt"])
    assert found.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("form", ["txt", "vtt", "tsv", "json"])
def test_asr_formats(server: Server, written: dict[str, str], form: str) -> None:
    files = {"audio_file": ("speech.flac", SPEECH.read_bytes())}
    found = upload(server, f"/asr?output={form}", files)
    assert (found.status, found.text) == (200, written[form])


def test_bazarr_asks_for_the_language(server: Server) -> None:
    found = upload(server, "/detect-language?encode=false", {"audio_file": ("audio_file", raw())})
    assert found.json == {"detected_language": "english", "language_code": "en", "confidence": 1.0}
    assert ask(server, "GET", "/status").json["version"].startswith("whisper-npu")


def test_curl_in_openais_words(server: Server, spoken: str) -> None:
    buffer = io.BytesIO()
    samples, rate = soundfile.read(SPEECH)
    soundfile.write(buffer, samples, rate, format="WAV")
    address = f"http://127.0.0.1:{server.port}/v1/audio/transcriptions"
    command = ["curl", "-s", "-F", "file=@-;filename=a.wav", "-F", "response_format=text", address]
    done = subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=True)
    assert done.stdout.decode().strip() == spoken
