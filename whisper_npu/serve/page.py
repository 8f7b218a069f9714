"""The page at /: a recording or a voice goes in, words appear, each format can be downloaded."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

from whisper_npu.languages import LANGUAGES
from whisper_npu.options import SubtitleOptions
from whisper_npu.pages import render
from whisper_npu.pages import transcript as transcript_page
from whisper_npu.records import event_record
from whisper_npu.serve.endpoints import UploadEndpoint, error_record
from whisper_npu.serve.service import language
from whisper_npu.serve.uploads import recording, text
from whisper_npu.transcript import Transcript
from whisper_npu.writers import FORMATS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

    from whisper_npu.events import Event
    from whisper_npu.serve.queue import Place
    from whisper_npu.serve.service import Service
    from whisper_npu.serve.uploads import BoundedRequest


def routes(service: Service) -> list[Route]:
    """The page, and what it asks for."""
    models = service.models
    page = render(
        "serve",
        title="Speech to text",
        models=models.names,
        multilingual=any(models.checkpoint(name).is_multilingual for name in models.names),
        languages=sorted((name.title(), code) for code, name in LANGUAGES.items()),
        formats=list(FORMATS),
    )

    async def show(_: Request) -> Response:
        return HTMLResponse(page, headers={"X-Frame-Options": "DENY"})

    async def answer(_: BoundedRequest, fields: FormData, place: Place) -> Response:
        model = models.named(text(fields, "model"))
        upload = recording(fields, "file")
        options = replace(
            service.defaults,
            task=text(fields, "task") or service.defaults.task,
            language=language(text(fields, "language"), service.defaults.language),
            align_words=True,
        )
        heard = service.transcribe(place, upload, model, options)
        first = await anext(heard)  # what fails at once, fails with a status
        lines = _lines(first, heard, upload.name)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    return [
        Route("/", show),
        Route("/transcribe", UploadEndpoint(service, "page", answer), methods=["POST"]),
    ]


async def _lines(
    first: Event | Transcript, heard: AsyncGenerator[Event | Transcript, None], title: str
) -> AsyncGenerator[str, None]:
    """An event a line, as `--json` of the command line has them; the last one brings the files."""
    async with aclosing(heard):
        try:
            yield _line(first, title)
            async for event in heard:
                yield _line(event, title)
        except Exception as error:  # noqa: BLE001  the status has been sent: the stream must tell
            yield json.dumps(error_record(error)) + "\n"


def _line(event: Event | Transcript, title: str) -> str:
    record: dict[str, Any]
    if isinstance(event, Transcript):
        record = {"event": "done", "files": files(event, title)}
    else:
        record = event_record(event)
    return json.dumps(record, allow_nan=False) + "\n"


def files(transcript: Transcript, title: str) -> dict[str, str]:
    """Format -> the content of its file."""
    found = {name: write(transcript, SubtitleOptions()) for name, write in FORMATS.items()}
    return found | {"html": transcript_page.page(transcript, title)}
