"""The Wyoming protocol of Home Assistant: an utterance comes in over TCP, its text goes back.

The messages are those of the package wyoming. Frames are read here, because that package trusts
what a frame says of its own length. Source: README.md of OHF-Voice/wyoming.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import wave
from contextlib import aclosing, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from wyoming.asr import (
    Transcribe,
    Transcript,
    TranscriptChunk,
    TranscriptStart,
    TranscriptStop,
)
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from whisper_npu import transcript
from whisper_npu.languages import LANGUAGES
from whisper_npu.serve.refusals import BUSY, Refusal, refused
from whisper_npu.serve.service import language
from whisper_npu.serve.uploads import Upload

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from wyoming.event import Eventable

    from whisper_npu.options import TranscribeOptions
    from whisper_npu.serve.queue import Place
    from whisper_npu.serve.service import Service


_LINE = 1 << 16  # bytes; most of a frame's first line, and of its data
_PAYLOAD = 1 << 20  # bytes
_SILENCE = 60.0  # seconds without a frame, after which a client is given up
_CONNECTIONS = 100
_IN_MEMORY = 1 << 20  # bytes of an utterance; a longer one goes to the disk


async def read_event(reader: StreamReader) -> Event | None:
    """The next frame; None at the end. Raises Refusal for what is no frame, or half of one."""
    try:
        line = await reader.readline()
        if not line:
            return None
        head = json.loads(line)
        apart = json.loads(await _part(reader, head.get("data_length"), _LINE) or "{}")
        data = {**(head.get("data") or {}), **apart}
        payload = await _part(reader, head.get("payload_length"), _PAYLOAD)
        return Event(str(head["type"]), data, payload or None)
    except asyncio.IncompleteReadError as error:
        raise Refusal(400, "the connection ended in the middle of a frame") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refusal(400, "this is no frame of Wyoming") from error


async def _part(reader: StreamReader, length: Any, most: int) -> bytes:
    if not length:
        return b""
    if not isinstance(length, int) or not 0 <= length <= most:
        raise Refusal(400, f"a frame of Wyoming has at most {most} bytes in a part, not {length}")
    return await reader.readexactly(length)


class Utterance:
    """The sound between audio-start and audio-stop, as a recording."""

    def __init__(self, most_seconds: float) -> None:
        self._file = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115
        self._wave: wave.Wave_write | None = None
        self._most_seconds = most_seconds
        self._n_bytes = 0

    def add(self, chunk: AudioChunk) -> None:
        """Take samples of any rate, width and number of channels. Raises Refusal."""
        form = (chunk.channels, chunk.width, chunk.rate)
        try:
            if self._wave is None:
                self._wave = wave.open(self._file, "wb")  # noqa: SIM115  both are closed below
                self._wave.setparams((*form, 0, "NONE", ""))
            if self._wave.getparams()[:3] != form:
                raise Refusal(400, "the form of the samples must not change within an utterance")
            self._wave.writeframesraw(chunk.audio)
        except (wave.Error, TypeError, ValueError) as error:
            raise Refusal(400, f"no such samples: {error}") from error
        self._n_bytes += len(chunk.audio)
        if self._n_bytes / (chunk.channels * chunk.width * chunk.rate) > self._most_seconds:
            raise Refusal(413, f"the utterance is longer than {self._most_seconds:g} s")

    def recording(self) -> Upload | None:
        """All that came; None for nothing."""
        if self._wave is None or not self._n_bytes:
            return None
        self._wave.close()  # writes how long it is; the file stays open
        return Upload("the utterance", self._file)

    def close(self) -> None:
        """Forget it."""
        if self._wave is not None:
            with suppress(wave.Error):  # of a form that cannot be
                self._wave.close()
        self._file.close()


class Connections:
    """The clients on the Wyoming port."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._speaking: set[asyncio.Task[None]] = set()
        self._working: set[asyncio.Task[None]] = set()

    async def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one client until it leaves, or has its answer."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._speaking.add(task)
        task.add_done_callback(self._speaking.discard)
        await asyncio.wait({task})

    async def close(self) -> None:
        """Let those finish who wait for a text; the others are cut off."""
        for task in self._speaking - self._working:
            task.cancel()
        if self._speaking:
            await asyncio.wait(self._speaking)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        outcome = "left"
        try:
            self._require_room()
            outcome = await self._converse(reader, writer)
        except ConnectionError:
            pass
        except Exception as error:  # noqa: BLE001  the client is told; a fault of ours is logged
            refusal = refused(error, "Wyoming")
            outcome = str(refusal.status)
            with suppress(ConnectionError):
                await _send(writer, Error(str(refusal), refusal.code))
        finally:
            if outcome:
                self._service.metrics.request("wyoming", outcome)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    def _require_room(self) -> None:
        if len(self._speaking) > _CONNECTIONS:
            raise Refusal(BUSY, "too many connections")

    async def _converse(self, reader: StreamReader, writer: StreamWriter) -> str:
        """One utterance; what became of it, "" when there was none."""
        asked = Transcribe()
        utterance: Utterance | None = None
        host = (writer.get_extra_info("peername") or [""])[0]
        try:
            while event := await asyncio.wait_for(read_event(reader), _SILENCE):
                if Describe.is_type(event.type):
                    await _send(writer, _info(self._service))
                elif Ping.is_type(event.type):
                    await _send(writer, Pong(text=event.data.get("text")))
                elif Transcribe.is_type(event.type):
                    asked = Transcribe.from_event(event)
                elif AudioStart.is_type(event.type):
                    if utterance:
                        utterance.close()
                    utterance = Utterance(self._service.options.max_audio)
                elif AudioChunk.is_type(event.type):
                    utterance = utterance or Utterance(self._service.options.max_audio)
                    utterance.add(_chunk(event))
                elif AudioStop.is_type(event.type):
                    sound = utterance.recording() if utterance else None
                    with self._service.queue.place(f"{host} wyoming") as place:
                        await self._answer(reader, writer, place, asked, sound)
                    return "ok"
        finally:
            if utterance:
                utterance.close()
        return "left" if utterance else ""

    async def _answer(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        place: Place,
        asked: Transcribe,
        sound: Upload | None,
    ) -> None:
        """Send the text as it is found; stop when the client leaves. Raises ConnectionError."""
        if sound is None:
            await _send(writer, Transcript(text=""))
            return
        working = asyncio.ensure_future(self._transcribe(writer, place, asked, sound))
        leaving = asyncio.ensure_future(_until_end(reader))
        mine = cast("asyncio.Task[None]", asyncio.current_task())
        self._working.add(mine)
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ConnectionResetError
            working.result()
        finally:
            self._working.discard(mine)
            for task in (working, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _transcribe(
        self, writer: StreamWriter, place: Place, asked: Transcribe, sound: Upload
    ) -> None:
        model = self._service.models.named(asked.name)
        options = _options(self._service.defaults, asked)
        await _send(writer, TranscriptStart())
        async with aclosing(self._service.transcribe(place, sound, model, options)) as heard:
            async for event in heard:
                if isinstance(event, transcript.Segment) and event.text.strip():
                    await _send(writer, TranscriptChunk(event.text))
                if isinstance(event, transcript.Transcript):
                    await _send(writer, Transcript(event.text.strip(), language=event.language))
                    await _send(writer, TranscriptStop())


async def _until_end(reader: StreamReader) -> None:
    with suppress(ConnectionError):
        while await reader.read(_LINE):
            pass


async def _send(writer: StreamWriter, message: Eventable) -> None:
    await async_write_event(message.event(), writer)


def _chunk(event: Event) -> AudioChunk:
    try:
        return AudioChunk.from_event(event)
    except (KeyError, TypeError, AssertionError) as error:
        raise Refusal(400, "an audio-chunk needs rate, width, channels and samples") from error


def _options(defaults: TranscribeOptions, asked: Transcribe) -> TranscribeOptions:
    options = replace(defaults, language=language(asked.language, defaults.language))
    expected = [*(asked.transcript_names or ()), *(asked.transcript_terms or ())]
    if expected:
        options = replace(options, hotwords=", ".join(map(str, expected)))
    return options


def _info(service: Service) -> Info:
    """What Home Assistant learns of us."""
    ours = Attribution("whisper-npu", "")
    openai = Attribution("OpenAI", "https://github.com/openai/whisper")
    number = version("whisper-npu")
    models = [
        AsrModel(
            name=name,
            attribution=openai,
            installed=True,
            description=name,
            version=None,
            languages=list(LANGUAGES)
            if service.models.checkpoint(name).is_multilingual
            else ["en"],
        )
        for name in service.models.names
    ]
    program = AsrProgram(
        name="whisper-npu",
        attribution=ours,
        installed=True,
        description="Whisper on Rockchip NPUs and on any CPU",
        version=number,
        models=models,
        supports_transcript_streaming=True,
    )
    return Info(asr=[program])
