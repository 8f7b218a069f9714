"""Who is heard, and when: bounded, fair between clients, one thread for all models.

A recording is transcribed in steps of one window. After each step it goes to the back of the line,
so that a voice command waits for a window of a film, not for the film.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from whisper_npu.serve.refusals import BUSY, UNAVAILABLE, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

T = TypeVar("T")
P = ParamSpec("P")

_IN_WORK = 4  # recordings that take turns; the others wait, their uploads on disk


class Place:
    """A client's place in the queue, from the first byte of its request to the last answer."""

    def __init__(self, client: str, seconds: float) -> None:
        self.client = client
        self._end = time.monotonic() + seconds

    async def within(self, work: Awaitable[T]) -> T:
        """Wait for it, but not beyond the time that the request may take. Raises TimeoutError."""
        try:
            return await asyncio.wait_for(work, max(0.0, self._end - time.monotonic()))
        except asyncio.TimeoutError as error:  # another class in Python 3.10
            raise TimeoutError from error


class Queue:
    """The places, the turns, and the thread that runs all models.

    length   places; a client gets at most half of them
    timeout  seconds that a request may take
    """

    def __init__(self, length: int, timeout: float) -> None:
        self.is_stopping = False
        self.in_work = 0
        self._length, self._timeout = length, timeout
        self._held: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Lock] = {}
        self._stools = asyncio.Semaphore(_IN_WORK)
        self._thread = ThreadPoolExecutor(1, "models")

    @property
    def waiting(self) -> int:
        """Requests that have a place and no turn yet."""
        return self._held.total() - self.in_work

    @contextmanager
    def place(self, client: str) -> Iterator[Place]:
        """A place for as long as the block runs. Raises Refusal."""
        if self.is_stopping:
            raise Refusal(UNAVAILABLE, "the server is being stopped")
        share = max(1, self._length // 2)
        if self._held.total() >= self._length or self._held[client] >= share:
            raise Refusal(BUSY, "too many requests are waiting: try again later", code="queue_full")
        self._held[client] += 1
        try:
            yield Place(client, self._timeout)
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
                self._turns.pop(client, None)

    @asynccontextmanager
    async def turn(self, place: Place) -> AsyncIterator[None]:
        """Be one of those in work; a client is with one request at a time. Raises Refusal."""
        mine = self._turns.setdefault(place.client, asyncio.Lock())
        async with AsyncExitStack() as held:
            for lock in (mine, self._stools):
                await place.within(lock.acquire())
                held.callback(lock.release)
            if self.is_stopping:
                raise Refusal(UNAVAILABLE, "the server is being stopped")
            with self.at_work():
                yield

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count as one of those in work, without taking turns by recordings."""
        self.in_work += 1
        try:
            yield
        finally:
            self.in_work -= 1

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the thread of the models, when it is our turn."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def steps(self, place: Place, steps: Iterator[T]) -> AsyncGenerator[T, None]:
        """Take steps in the thread of the models, others' steps between them.

        Whoever stops listening stops the work after the step that is being taken.
        """
        end = object()
        try:
            while (step := await place.within(self.run(next, steps, end))) is not end:
                yield step  # type: ignore[misc]  # not the end, so a step
        finally:
            self.dismiss(steps)

    def dismiss(self, steps: Iterator[Any]) -> None:
        """Give up what is behind a step, after the one that may still be taken."""
        close = getattr(steps, "close", None)
        if close is not None:
            self._thread.submit(close)

    def close(self) -> None:
        """Wait for the step in work, and end the thread."""
        self._thread.shutdown(cancel_futures=True)
