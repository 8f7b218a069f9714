"""Words while they are spoken, over WebSocket: the protocol of WhisperLive.

The client says what it wants as JSON, then sends float32 samples at 16 kHz and END_OF_AUDIO. It is
told the latest segments whenever they change; only the last of them is not completed.
Source: the client of collabora/WhisperLive.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from whisper_npu.audio import SAMPLE_RATE
from whisper_npu.events import Language
from whisper_npu.live.events import Final, SegmentDone, Tentative
from whisper_npu.options.live import StreamOptions
from whisper_npu.serve.page import files
from whisper_npu.serve.refusals import BUSY, TOO_LARGE, Refusal, refused
from whisper_npu.serve.service import language
from whisper_npu.serve.uploads import seconds
from whisper_npu.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray
    from starlette.websockets import WebSocket

    from whisper_npu.live.events import LiveEvent
    from whisper_npu.serve.service import Service
    from whisper_npu.transcript import Segment, Word

    Float = NDArray[np.float32]
    Speech = tuple[Float, float]  # samples, and the seconds that wait behind them
    Listening = Generator[list[LiveEvent], Speech | None, None]


END = b"END_OF_AUDIO"
SHOWN = 10  # completed segments that are told again with each change, as WhisperLive does
_PIECE = SAMPLE_RATE // 2  # samples heard in one turn
_WAITING = 30 * SAMPLE_RATE  # samples that may wait; then the client has to
_SILENCE = 60.0  # seconds without a message, after which a client is given up


def route(service: Service) -> WebSocketRoute:
    """The WebSocket at /."""

    async def live(socket: WebSocket) -> None:
        host = socket.client.host if socket.client else ""
        outcome, uid = "left", None
        await socket.accept()
        try:
            with service.queue.place(f"{host} live"), service.queue.at_work():
                asked = await _asked(socket)
                uid = asked.get("uid")
                await Conversation(service, socket, asked).run()
            outcome = "ok"
        except WebSocketDisconnect:
            pass
        except Exception as error:  # noqa: BLE001  the client is told; a fault of ours is logged
            refusal = refused(error, "live")
            outcome = str(refusal.status)
            with suppress(RuntimeError, WebSocketDisconnect):  # it has left meanwhile
                await socket.send_json({"uid": uid, "status": "ERROR", "message": str(refusal)})
                await socket.close(1013 if refusal.status == BUSY else 1008)
        finally:
            service.metrics.request("live", outcome)

    return WebSocketRoute("/", live)


async def _asked(socket: WebSocket) -> dict[str, Any]:
    """The first message. Raises Refusal."""
    message = await asyncio.wait_for(socket.receive(), _SILENCE)
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
    try:
        asked = json.loads(message.get("text") or "")
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the first message must be JSON") from error
    if not isinstance(asked, dict):
        raise Refusal(400, "the first message must be a JSON object")
    return asked


@dataclass
class SpokenSoFar:
    """All that a stream has told, as clients see it."""

    segments: list[Segment] = field(default_factory=list)
    final: list[Word] = field(default_factory=list)  # of no segment yet
    tentative: Sequence[Word] = ()
    language: tuple[str, float | None] = ("en", None)

    def add(self, event: LiveEvent) -> None:
        """Take in what is new."""
        if isinstance(event, Final):
            self.final += event.words
        elif isinstance(event, Tentative):
            self.tentative = event.words
        elif isinstance(event, SegmentDone):
            self.segments.append(event.segment)
            self.final = []
        else:
            self.language = (event.code, event.probability)

    def records(self) -> list[dict[str, Any]]:
        """The latest segments, and at last what is not completed."""
        found = [
            _record(one.start, one.end, one.text, completed=True) for one in self.segments[-SHOWN:]
        ]
        words = [*self.final, *self.tentative]
        text = "".join(word.text for word in words)
        if text.strip():
            found.append(_record(words[0].start, words[-1].end, text, completed=False))
        return found

    def transcript(self, duration: float) -> Transcript:
        """All of it as one result."""
        text = "".join(segment.text for segment in self.segments)
        return Transcript(text, tuple(self.segments), *self.language, duration)


def _record(start: float, end: float, text: str, *, completed: bool) -> dict[str, Any]:
    times = {"start": f"{start:.3f}", "end": f"{end:.3f}"}
    return {**times, "text": text.strip(), "completed": completed}


class Conversation:
    """One client that speaks. Raises Refusal, OptionError for what it asks."""

    def __init__(self, service: Service, socket: WebSocket, asked: dict[str, Any]) -> None:
        self._service, self._socket = service, socket
        self._uid = asked.get("uid")
        self._wants_files = asked.get("files") is True
        names, wanted = service.models.names, asked.get("model")
        self._model = str(wanted) if wanted in names else names[0]  # clients have a default: small
        self._options = StreamOptions(
            task=str(asked.get("task") or "transcribe"),
            language=language(_text(asked, "language"), service.defaults.language),
            initial_prompt=_text(asked, "initial_prompt"),
        )
        self._heard = SpokenSoFar()
        self._waiting: list[Float] = []
        self._news = asyncio.Condition()
        self._has_ended = False
        self._n_samples = 0

    async def run(self) -> None:
        """Listen until the client has said all."""
        queue = self._service.queue
        listening = self._listening()
        reading: asyncio.Task[None] | None = None
        try:
            await queue.run(next, listening)  # loads the model
            await self._tell(message="SERVER_READY", backend="faster_whisper")
            reading = asyncio.create_task(self._read())
            await self._listen(listening, reading)
        finally:
            if reading:
                reading.cancel()
            queue.dismiss(listening)
        if self._wants_files:
            transcript = self._heard.transcript(seconds(self._n_samples))
            await self._tell(files=files(transcript, "Speech"))
        await self._socket.close()

    def _listening(self) -> Listening:
        """The stream, in the thread of the models: sound in, events out; None ends it."""
        with self._service.models.using(self._model) as model:
            stream = model.stream(self._options)
            events: list[LiveEvent] = []
            while said := (yield events):
                samples, behind = said
                events = stream.feed(samples, behind=behind)
            yield stream.finish()

    async def _listen(self, listening: Listening, reading: asyncio.Task[None]) -> None:
        while True:
            async with self._news:
                while not self._has_ended:
                    if reading.done():
                        reading.result()  # raises why
                    if self._waiting:
                        break
                    await self._news.wait()
                sound = np.concatenate([*self._waiting, np.empty(0, np.float32)])
                piece, rest = sound[:_PIECE], sound[_PIECE:]
                self._waiting = [rest] if len(rest) else []
                said = (piece, seconds(len(rest))) if len(piece) else None
                self._news.notify_all()
            await self._tell_news(await self._service.queue.run(listening.send, said))
            if said is None:
                return

    async def _tell_news(self, events: list[LiveEvent]) -> None:
        for event in events:
            self._heard.add(event)
            if isinstance(event, Language):
                await self._tell(language=event.code, language_prob=event.probability)
        if events and (records := self._heard.records()):
            await self._tell(segments=records)

    async def _read(self) -> None:
        """Take in sound, no faster than it can be kept. Raises WebSocketDisconnect, Refusal."""
        try:
            while True:
                message = await asyncio.wait_for(self._socket.receive(), _SILENCE)
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect
                data = message.get("bytes") or (message.get("text") or "").encode()
                async with self._news:
                    if data == END:
                        self._has_ended = True
                        return
                    self._waiting.append(self._samples(data))
                    self._news.notify_all()
                    while sum(map(len, self._waiting)) > _WAITING:
                        await self._news.wait()
        finally:
            async with self._news:
                self._news.notify_all()

    def _samples(self, data: bytes) -> Float:
        if len(data) % 4:
            raise Refusal(400, "samples are float32: a message must have a multiple of 4 bytes")
        samples = np.frombuffer(data, "<f4").astype(np.float32)
        self._n_samples += len(samples)
        if seconds(self._n_samples) > self._service.options.max_audio:
            longest = self._service.options.max_audio
            raise Refusal(TOO_LARGE, f"the stream is longer than {longest:g} s")
        return samples

    async def _tell(self, **record: Any) -> None:
        try:
            await self._socket.send_json({"uid": self._uid, **record})
        except RuntimeError as error:  # starlette's word for a client that has left
            raise WebSocketDisconnect from error


def _text(asked: dict[str, Any], name: str) -> str | None:
    value = asked.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal(400, f"{name} must be text")
    return value or None
