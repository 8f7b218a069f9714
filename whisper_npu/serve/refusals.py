"""What a client is told when it does not get what it asked for."""

from __future__ import annotations

import asyncio
import logging

from whisper_npu.errors import AudioError, DeviceError, ModelError, OptionError, OutputError

_log = logging.getLogger(__name__)

BUSY, UNAVAILABLE, TOO_LARGE = 429, 503, 413
AGAIN = 10  # seconds after which a client that was refused may try again


class Refusal(Exception):
    """A request that is not answered, as HTTP and its clients know it.

    status  of HTTP
    code    what a program may look for; None: the message is all
    field   of the request that is wrong
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field


def as_refusal(error: Exception) -> Refusal:
    """Any error as a client is told of it; what is our own fault stays in our log."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, (OptionError, AudioError)):
        return Refusal(400, str(error))
    if isinstance(error, (ModelError, DeviceError, OutputError)):
        return Refusal(UNAVAILABLE, str(error))
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):  # two classes in Python 3.10
        return Refusal(UNAVAILABLE, "this took longer than the server allows", code="timeout")
    if isinstance(error, OSError):
        return Refusal(UNAVAILABLE, f"the server cannot keep the upload: {error.strerror}")
    return Refusal(500, "internal error; the server's log has more")


def refused(error: Exception, protocol: str) -> Refusal:
    """The same where no web framework logs our own faults: in the log, by the protocol's name."""
    refusal = as_refusal(error)
    if refusal.status == 500:
        _log.error("%s", protocol, exc_info=error)
    return refusal
