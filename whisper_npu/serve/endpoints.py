"""What all endpoints of HTTP share: a place in the queue, bounds, errors, the token."""

from __future__ import annotations

import asyncio
import base64
import hmac
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, StreamingResponse

from whisper_npu.serve.refusals import AGAIN, BUSY, UNAVAILABLE, Refusal, as_refusal
from whisper_npu.serve.uploads import BoundedRequest, form

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from whisper_npu.serve.queue import Place
    from whisper_npu.serve.service import Service

    Answer = Callable[[BoundedRequest, FormData, Place], Coroutine[Any, Any, Response]]


class UploadEndpoint:
    """An endpoint that takes a recording; its place and its files last until it has answered."""

    def __init__(self, service: Service, protocol: str, answer: Answer) -> None:
        self._service = service
        self._protocol = protocol
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        outcome = "left"
        try:
            outcome = await self._respond(scope, receive, send)
        except ClientDisconnect:
            pass  # there is nobody to tell
        except Exception as error:
            outcome = str(_refusal(error).status)
            raise
        finally:
            self._service.metrics.request(self._protocol, outcome)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> str:
        request = BoundedRequest(scope, receive, self._service.options.max_upload)
        with self._service.queue.place(client(request, self._protocol)) as place:
            async with form(request) as fields:
                response = await unless_left(request, self._answer(request, fields, place))
                if isinstance(response, StreamingResponse):
                    async with aclosing(response.body_iterator):  # type: ignore[type-var]
                        await response(scope, receive, send)
                else:
                    await response(scope, receive, send)
        return str(response.status_code)


def client(request: Request, protocol: str) -> str:
    """Whom the queue is fair to: programs on one machine are told apart by what they speak."""
    host = request.client.host if request.client else ""
    return f"{host} {protocol}"


async def unless_left(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The result of the work, which is stopped when the client leaves. Raises ClientDisconnect."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await _cancelled(leaving)
        await _cancelled(working)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def error_response(_: Request | None, error: Exception) -> Response:
    """An error in the form that OpenAI's clients read."""
    refusal = _refusal(error)
    headers = {}
    if refusal.status in (BUSY, UNAVAILABLE):
        headers["Retry-After"] = str(AGAIN)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="whisper-npu", charset="UTF-8"'
    return JSONResponse(error_record(refusal), refusal.status, headers)


def error_record(error: Exception) -> dict[str, Any]:
    """An error as JSON."""
    refusal = _refusal(error)
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    if refusal.status == BUSY:
        kind = "rate_limit_error"
    record = {"message": str(refusal), "type": kind, "param": refusal.field, "code": refusal.code}
    return {"error": record}


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, error.detail)
    return as_refusal(error)


class Guard:
    """Lets in who knows the token, and no page of another site."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse, as ASGI has it."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # 403, as nothing was accepted
        else:
            await error_response(None, refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        if self._token and scope["path"] != "/health" and not self._knows_token(headers):
            return Refusal(
                401, "this server wants a token: send it as bearer token", code="invalid_api_key"
            )
        # a browser asks in the name of any page; its user is let in, the page of a stranger is not
        origin = headers.get("origin")
        reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if origin and not reads and urlsplit(origin).netloc != headers.get("host"):
            return Refusal(403, f"pages of {origin} may not use this server")
        return None

    def _knows_token(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        secret = given.strip().encode()
        if kind.lower() == "basic":
            try:
                secret = base64.b64decode(secret, validate=True).partition(b":")[2]
            except ValueError:
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(secret, self._token or b"")
