"""What a client sends -> a recording on disk and the fields beside it, within bounds.

An upload has no name on the disk, so that nothing of it is left when it is closed, or when the
server is killed. The client's name for it is only ever shown.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from starlette.datastructures import UploadFile
from starlette.requests import Request

from whisper_npu.audio import SAMPLE_RATE, open_audio
from whisper_npu.messages import printable
from whisper_npu.serve.refusals import TOO_LARGE, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from numpy.typing import NDArray
    from starlette.datastructures import FormData
    from starlette.types import Receive, Scope

    Float = NDArray[np.float32]

_SILENCE = 30.0  # seconds without a byte, after which a sender is given up
_SLOWEST = 20_000  # bytes/s on the average, after the first half minute
_TAIL = 8  # bytes in which a form ends
_CHUNK = 1 << 18  # bytes of raw samples taken at once


@dataclass(frozen=True)
class Upload:
    """A recording that a client has sent."""

    name: str  # for people: the client's own, printable
    file: BinaryIO
    is_raw: bool = False  # 16-bit mono samples at 16 kHz without a header

    def read(self, size: int = -1) -> bytes:
        """As `audio` takes what it cannot seek in."""
        return self.file.read(size)

    @contextmanager
    def blocks(self) -> Iterator[Iterator[Float]]:
        """Its samples: (S,) float32 each, mono at 16 kHz, in [-1, 1]. Raises AudioError."""
        self.file.seek(0)
        if self.is_raw:
            yield self._samples()
            return
        with open_audio(self) as opened:  # type: ignore[arg-type]  # it only reads
            yield opened.blocks

    def _samples(self) -> Iterator[Float]:
        while data := self.file.read(_CHUNK):
            whole = np.frombuffer(data, "<i2", len(data) // 2)
            yield whole.astype(np.float32) / np.float32(32768)


class BoundedRequest(Request):
    """A request whose body is neither too large nor too slow.

    Raises Refusal while the body is read.
    """

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int) -> None:
        super().__init__(scope, receive)
        self._max_bytes = max_bytes
        announced = self.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > max_bytes:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(
            TOO_LARGE, f"the upload is larger than {self._max_bytes / 1e6:.0f} MB", code="too_large"
        )

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces."""
        n_bytes, began, tail = 0, time.monotonic(), b""
        pieces = super().stream()
        while True:
            try:
                piece = await asyncio.wait_for(anext(pieces), _SILENCE)
            except StopAsyncIteration:
                break
            except asyncio.TimeoutError as error:
                raise Refusal(408, "the upload came to a halt") from error
            n_bytes += len(piece)
            if n_bytes > self._max_bytes:
                raise self._too_large()
            if n_bytes < _SLOWEST * (time.monotonic() - began - _SILENCE):
                raise Refusal(408, "the upload is too slow")
            tail = (tail + piece)[-_TAIL:]
            yield piece
        if tail and not tail.rstrip().endswith(b"--"):  # how a form ends; its parser does not mind
            raise Refusal(400, "the form is cut short")


@asynccontextmanager
async def form(request: BoundedRequest) -> AsyncIterator[FormData]:
    """The fields of a form, its files closed with the block. Raises Refusal."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise Refusal(415, f"send multipart/form-data, not {printable(kind) or 'an untyped body'}")
    async with request.form(max_files=1, max_fields=50) as fields:
        yield fields


def recording(fields: FormData, field: str, *, is_raw: bool = False) -> Upload:
    """The file in a form. Raises Refusal."""
    sent = fields.get(field)
    if not isinstance(sent, UploadFile):
        raise Refusal(400, f"the field {field!r} with the recording is missing", field=field)
    return Upload(printable(sent.filename or "the recording"), sent.file, is_raw)


def text(fields: FormData, field: str) -> str | None:
    """A field that is not empty."""
    value = fields.get(field)
    if isinstance(value, UploadFile):
        raise Refusal(400, f"the field {field!r} must be text, not a file", field=field)
    return value.strip() or None if value else None


def seconds(n_samples: int) -> float:
    """How long samples at 16 kHz last."""
    return n_samples / SAMPLE_RATE
