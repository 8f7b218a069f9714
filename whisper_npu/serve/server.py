"""The process: sockets, signals, the first loading of the model, the end."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn

from whisper_npu.batch.interrupts import finishing
from whisper_npu.errors import Interrupted, OptionError, WhisperNpuError
from whisper_npu.serve.discovery import announced
from whisper_npu.serve.metrics import Metrics
from whisper_npu.serve.models import Models
from whisper_npu.serve.queue import Queue
from whisper_npu.serve.service import Service
from whisper_npu.serve.web import application
from whisper_npu.serve.wyoming import Connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from whisper_npu.options import DeviceOptions, TranscribeOptions
    from whisper_npu.options.serving import ServeOptions

_LOOK = 5.0  # seconds between two looks for idle models
_CONNECTIONS = 500  # HTTP connections; the next one gets 503


class _Uvicorn(uvicorn.Server):
    """Its signals are ours: the first asks for an orderly end, the second ends at once."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """A server that listens from the moment it is made; its models may still be loading.

    names  of models, the default first; none: this machine's default
    say    hears what is downloaded, and where we listen
    Raises OptionError (a port in use), ModelError.
    """

    def __init__(  # noqa: PLR0913  what it serves, and how
        self,
        names: Sequence[str],
        device: DeviceOptions,
        defaults: TranscribeOptions,
        options: ServeOptions,
        *,
        offline: bool = False,
        say: Callable[[str], None],
    ) -> None:
        self._say = say
        self._http = _listen("port", options.host, options.port)
        self._wyoming: socket.socket | None = None
        if options.wyoming_port is not None:
            host = options.wyoming_host or ("127.0.0.1" if options.token else options.host)
            self._wyoming = _listen("wyoming_port", host, options.wyoming_port)
        try:
            models = Models(names, device, offline=offline, say=say)
        except WhisperNpuError:
            self._close()
            raise
        queue = Queue(options.queue, options.timeout)
        self.service = Service(models, queue, defaults, options, Metrics(queue, models))
        config = uvicorn.Config(
            application(self.service),
            access_log=False,
            lifespan="off",
            limit_concurrency=_CONNECTIONS,
            log_config=None,
            log_level="warning",
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=1 << 20,
        )
        self._uvicorn = _Uvicorn(config)

    def _close(self) -> None:
        for listening in (self._http, self._wyoming):
            if listening:
                listening.close()

    @property
    def port(self) -> int:
        """The port of HTTP."""
        return int(self._http.getsockname()[1])

    @property
    def wyoming_port(self) -> int | None:
        """The port of Wyoming, if it is spoken."""
        return int(self._wyoming.getsockname()[1]) if self._wyoming else None

    def run(self) -> None:
        """Serve until a signal comes or `stop` is called, then finish what is in work.

        Raises ModelError, DeviceError when the default model cannot be loaded.
        """
        try:
            with finishing(self.stop, self._say, "the server has ended"):
                asyncio.run(self.serve())
        except Interrupted:
            pass  # how a server ends

    def stop(self) -> None:
        """Take nothing on any more, and end when what is in work is done; from any thread."""
        self.service.queue.is_stopping = True
        self._uvicorn.should_exit = True

    async def serve(self) -> None:
        """All of it, within an event loop. Raises as `run`."""
        web = asyncio.create_task(self._uvicorn.serve(sockets=[self._http]))
        connections = Connections(self.service)
        idle = asyncio.create_task(self._unload_idle())
        try:
            async with self._speaking_wyoming(connections):
                queue, models = self.service.queue, self.service.models
                self._tell(await queue.run(models.load, models.names[0]))
                await web
        finally:
            self.stop()
            await web
            await connections.close()
            idle.cancel()
            self.service.queue.close()
            self.service.models.close()
            self._close()

    @asynccontextmanager
    async def _speaking_wyoming(self, connections: Connections) -> AsyncIterator[None]:
        """Accept Home Assistants while the block runs."""
        if self._wyoming is None:
            yield
            return
        server = await asyncio.start_server(connections.accept, sock=self._wyoming, limit=1 << 16)
        async with announced(*self._wyoming.getsockname()[:2]):
            try:
                yield
            finally:
                server.close()

    def _tell(self, device: str) -> None:
        host = self.service.options.host
        host = f"[{host}]" if ":" in host else host
        places = [f"http://{host}:{self.port}"]
        if self._wyoming:
            places.append(f"tcp://{self._wyoming.getsockname()[0]}:{self.wyoming_port} (Wyoming)")
        models = ", ".join(self.service.models.names)
        self._say(f"{models} on {device}: listening on {' and '.join(places)}")

    async def _unload_idle(self) -> None:
        seconds = self.service.options.idle
        while seconds is not None:
            await asyncio.sleep(min(_LOOK, max(0.1, seconds / 2)))
            await self.service.queue.run(self.service.models.unload_idle, seconds)


def _listen(option: str, host: str, port: int) -> socket.socket:
    """A listening socket. Raises OptionError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"host, {option}: cannot listen on {host}:{port}: {reason}"
        raise OptionError(message, "host", option) from error
