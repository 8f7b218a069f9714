"""OpenAI's interface: transcriptions, translations, models."""

from __future__ import annotations

import json
import math
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from whisper_npu.errors import OptionError
from whisper_npu.languages import LANGUAGES
from whisper_npu.options import SubtitleOptions
from whisper_npu.options.option import number
from whisper_npu.records import segment_record
from whisper_npu.serve.endpoints import UploadEndpoint, error_record
from whisper_npu.serve.refusals import Refusal
from whisper_npu.serve.service import language
from whisper_npu.serve.uploads import recording, text
from whisper_npu.transcript import Segment, Transcript
from whisper_npu.writers import srt, vtt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

    from whisper_npu.events import Event
    from whisper_npu.options import TranscribeOptions
    from whisper_npu.serve.queue import Place
    from whisper_npu.serve.service import Service
    from whisper_npu.serve.uploads import BoundedRequest

    Heard = AsyncGenerator[Event | Transcript, None]

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("word", "segment")
_YES = ("true", "1", "yes", "on")


def routes(service: Service) -> list[Route]:
    """What stands below /v1."""
    started = int(time.time())

    async def models(_: Request) -> Response:
        found = [_model_record(name, started) for name in service.models.names]
        return JSONResponse({"object": "list", "data": found})

    async def model(request: Request) -> Response:
        name = service.models.named(request.path_params["name"])
        return JSONResponse(_model_record(name, started))

    def endpoint(task: str) -> UploadEndpoint:
        async def answer(_: BoundedRequest, fields: FormData, place: Place) -> Response:
            return await _transcribed(service, fields, place, task)

        return UploadEndpoint(service, "openai", answer)

    return [
        Route("/v1/audio/transcriptions", endpoint("transcribe"), methods=["POST"]),
        Route("/v1/audio/translations", endpoint("translate"), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
    ]


def _model_record(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "whisper-npu"}


@dataclass(frozen=True)
class _Asked:
    """What a form asks for besides the text."""

    form: str
    words: bool
    segments: bool
    stream: bool


def _asked(fields: FormData) -> _Asked:
    name = text(fields, "response_format") or "json"
    if name not in FORMATS:
        message = f"response_format: {name!r} is not one of {', '.join(FORMATS)}"
        raise Refusal(400, message, field="response_format")
    times = [str(value) for value in fields.getlist("timestamp_granularities[]")]
    times += [str(value) for value in fields.getlist("timestamp_granularities")]
    for one in times:
        if one not in GRANULARITIES:
            message = f"timestamp_granularities: {one!r} is not one of {', '.join(GRANULARITIES)}"
            raise Refusal(400, message, field="timestamp_granularities[]")
    stream = (text(fields, "stream") or "").lower() in _YES
    if stream and name not in ("json", "text"):
        raise Refusal(400, "stream goes with the formats json and text", field="stream")
    return _Asked(name, "word" in times, not times or "segment" in times, stream)


def _options(service: Service, fields: FormData, task: str, asked: _Asked) -> TranscribeOptions:
    """The server's options with what the form says. Raises OptionError, Refusal."""
    options = replace(service.defaults, task=task)
    if asked.words:
        options = replace(options, word_timestamps=True)
    options = replace(options, language=language(text(fields, "language"), options.language))
    if prompt := text(fields, "prompt"):
        options = replace(options, initial_prompt=prompt)
    if typed := text(fields, "temperature"):
        try:
            warmth = number(typed)
        except ValueError as error:
            raise OptionError(f"temperature: {error}", "temperature") from error
        if warmth:  # at 0 the model may rise by itself where it fails, as OpenAI has it
            options = replace(options, temperature=(warmth,))
    return options


async def _transcribed(service: Service, fields: FormData, place: Place, task: str) -> Response:
    asked = _asked(fields)
    model = service.models.named(text(fields, "model"))
    upload = recording(fields, "file")
    options = _options(service, fields, task, asked)
    heard = service.transcribe(place, upload, model, options)
    if asked.stream:
        first = await anext(heard)  # what fails at once, fails with a status
        return StreamingResponse(_streamed(first, heard), media_type="text/event-stream")
    async with aclosing(heard):
        async for event in heard:
            if isinstance(event, Transcript):
                return _written(event, asked, task)
    raise AssertionError  # the transcript comes last


def _written(transcript: Transcript, asked: _Asked, task: str) -> Response:
    spoken = transcript.text.strip()
    if asked.form == "text":
        return PlainTextResponse(f"{spoken}\n")
    if asked.form in ("srt", "vtt"):
        # the words were for times; a subtitle is a segment
        plain = SubtitleOptions()
        write = srt if asked.form == "srt" else vtt
        return PlainTextResponse(write(transcript, plain))
    if asked.form == "verbose_json":
        return JSONResponse(_verbose(transcript, asked, task))
    return JSONResponse({"text": spoken, "usage": _usage(transcript)})


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def _verbose(transcript: Transcript, asked: _Asked, task: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "task": task,
        "language": LANGUAGES.get(transcript.language, transcript.language),
        "duration": transcript.duration,
        "text": transcript.text.strip(),
    }
    if asked.segments:
        segments = [segment_record(segment) for segment in transcript.segments]
        record["segments"] = [
            {key: value for key, value in segment.items() if key != "words"} for segment in segments
        ]
    if asked.words:
        record["words"] = [
            {"word": word.text.strip(), "start": word.start, "end": word.end}
            for segment in transcript.segments
            for word in segment.words or ()
        ]
    return record | {"usage": _usage(transcript)}


async def _streamed(first: Event | Transcript, heard: Heard) -> AsyncGenerator[str, None]:
    """Server-sent events: the text of each segment, and at last all of it."""
    begun = False
    async with aclosing(heard):
        try:
            event: Event | Transcript = first
            while True:
                if isinstance(event, Segment) and event.text:
                    delta = event.text if begun else event.text.lstrip()
                    begun = begun or bool(delta)
                    yield _sent({"type": "transcript.text.delta", "delta": delta})
                if isinstance(event, Transcript):
                    usage = _usage(event)
                    done = {"type": "transcript.text.done", "text": event.text.strip()}
                    yield _sent(done | {"usage": usage})
                    return
                event = await anext(heard)
        except Exception as error:  # noqa: BLE001  the status has been sent: the stream must tell
            yield _sent(error_record(error))


def _sent(record: dict[str, Any]) -> str:
    return f"data: {json.dumps(record, allow_nan=False)}\n\n"
