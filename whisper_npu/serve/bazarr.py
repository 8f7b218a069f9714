"""The interface of whisper-asr-webservice and subgen, which Bazarr asks for subtitles."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from whisper_npu.languages import LANGUAGES
from whisper_npu.options import SubtitleOptions
from whisper_npu.serve.endpoints import UploadEndpoint
from whisper_npu.serve.refusals import Refusal
from whisper_npu.serve.service import language
from whisper_npu.serve.uploads import recording
from whisper_npu.transcript import Transcript
from whisper_npu.writers import FORMATS

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

    from whisper_npu.options import TranscribeOptions
    from whisper_npu.serve.queue import Place
    from whisper_npu.serve.service import Service
    from whisper_npu.serve.uploads import BoundedRequest

_OUTPUTS = ("txt", "vtt", "srt", "tsv", "json")


def routes(service: Service) -> list[Route]:
    """What Bazarr looks for at the root."""

    async def asr(request: BoundedRequest, fields: FormData, place: Place) -> Response:
        output = request.query_params.get("output") or "txt"
        if output not in _OUTPUTS:
            raise Refusal(400, f"output: {output!r} is not one of {', '.join(_OUTPUTS)}")
        upload = recording(fields, "audio_file", is_raw=not _is_on(request, "encode", default=True))
        options = _options(service, request)
        model = service.models.named(None)
        async with aclosing(service.transcribe(place, upload, model, options)) as heard:
            found = [event async for event in heard if isinstance(event, Transcript)]
        kind = "application/json" if output == "json" else "text/plain"
        return PlainTextResponse(FORMATS[output](found[0], SubtitleOptions()), media_type=kind)

    async def detect(request: BoundedRequest, fields: FormData, place: Place) -> Response:
        upload = recording(fields, "audio_file", is_raw=not _is_on(request, "encode", default=True))
        code, sure = await service.language(place, upload, service.models.named(None))
        return JSONResponse(
            {"detected_language": LANGUAGES[code], "language_code": code, "confidence": sure}
        )

    async def status(_: Request) -> Response:
        return JSONResponse({"version": f"whisper-npu {version('whisper-npu')}"})

    return [
        Route("/asr", UploadEndpoint(service, "bazarr", asr), methods=["POST"]),
        Route("/detect-language", UploadEndpoint(service, "bazarr", detect), methods=["POST"]),
        Route("/status", status),
    ]


def _is_on(request: Request, name: str, *, default: bool = False) -> bool:
    value = request.query_params.get(name, "").strip().lower()
    return value in ("true", "1", "yes", "on") if value else default


def _options(service: Service, request: Request) -> TranscribeOptions:
    """The server's options with what the address says. Raises OptionError."""
    asked, defaults = request.query_params, service.defaults
    return replace(
        defaults,
        task=asked.get("task") or defaults.task,
        language=language(asked.get("language"), defaults.language),
        initial_prompt=asked.get("initial_prompt") or defaults.initial_prompt,
        word_timestamps=_is_on(request, "word_timestamps", default=defaults.word_timestamps),
        vad=_is_on(request, "vad_filter", default=defaults.vad),
    )
