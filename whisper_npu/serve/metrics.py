"""What happens, counted for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

    from whisper_npu.serve.models import Models
    from whisper_npu.serve.queue import Queue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one server."""

    def __init__(self, queue: Queue, models: Models) -> None:
        self.registry = own = CollectorRegistry()
        self._requests = Counter(
            "whisper_npu_requests",
            "Requests by protocol and outcome.",
            ("protocol", "outcome"),
            registry=own,
        )
        self._audio = Counter(
            "whisper_npu_audio_seconds", "Seconds of audio that were taken on.", registry=own
        )
        self._work = Counter(
            "whisper_npu_work_seconds", "Seconds that models worked.", registry=own
        )
        self._windows = Counter(
            "whisper_npu_windows", "Windows of 30 s that were transcribed.", registry=own
        )
        for name, text, count in (
            ("queue_waiting", "Requests that wait.", lambda: queue.waiting),
            ("queue_in_work", "Requests that take turns.", lambda: queue.in_work),
            ("models_loaded", "Models in memory.", lambda: len(models.loaded)),
        ):
            Gauge(f"whisper_npu_{name}", text, registry=own).set_function(count)

    def request(self, protocol: str, outcome: str) -> None:
        """A request has ended; outcome: a status of HTTP, or ok, error, left."""
        self._requests.labels(protocol, outcome).inc()

    def window(self, seconds: float) -> None:
        """A window took so long."""
        self._windows.inc()
        self._work.inc(seconds)

    def audio(self, seconds: float) -> None:
        """A recording of so many seconds is being transcribed."""
        self._audio.inc(seconds)

    def route(self) -> Route:
        """/metrics."""

        async def metrics(_: Request) -> Response:
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE)

        return Route("/metrics", metrics)
