"""All of HTTP and WebSocket as one application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

from whisper_npu.errors import WhisperNpuError
from whisper_npu.serve import bazarr, live, openai, page
from whisper_npu.serve.endpoints import Guard, error_response
from whisper_npu.serve.refusals import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from whisper_npu.serve.service import Service


def application(service: Service) -> ASGIApp:
    """Everything that is answered on the port."""
    app = Starlette(
        routes=[
            _health(service),
            service.metrics.route(),
            *openai.routes(service),
            *bazarr.routes(service),
            *page.routes(service),
            live.route(service),
        ],
        exception_handlers=dict.fromkeys(
            (Refusal, WhisperNpuError, HTTPException, OSError, Exception), error_response
        ),
    )
    return Guard(app, service.options.token)


def _health(service: Service) -> Route:
    async def health(_: Request) -> Response:
        stopping = service.queue.is_stopping
        told = {
            "status": "stopping" if stopping else "ok",
            "models": service.models.names,
            "loaded": service.models.loaded,
            "waiting": service.queue.waiting,
            "in_work": service.queue.in_work,
        }
        return JSONResponse(told, 503 if stopping else 200)

    return Route("/health", health)
