"""Where the time of a run goes: seconds by stage, measured where the work is done.

A stage inside another is taken off the outer one, so that the sum is the time that passed.
Nobody records by default, and then a stage costs next to nothing. Work of other threads is not
seen: the thread that waits for it counts the wait.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Item = TypeVar("Item")

STAGES = ("audio", "features", "encoder", "K/V", "decoder", "word times", "other")


class Stages:
    """Seconds by stage; complete when the recording has ended."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._current = "other"
        self._since = time.perf_counter()

    @property
    def total(self) -> float:
        """All that passed, in seconds."""
        return sum(self.seconds.values())

    def enter(self, name: str) -> str:
        """From now on time belongs to `name`; returns what it belonged to."""
        now, before = time.perf_counter(), self._current
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._current, self._since = name, now
        return before


_recording: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def recording() -> Iterator[Stages]:
    """Record the stages that the block goes through."""
    stages = Stages()
    token = _recording.set(stages)
    try:
        yield stages
    finally:
        stages.enter("other")
        _recording.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """The block is this stage's time, except for the stages within it."""
    stages = _recording.get()
    if stages is None:
        yield
        return
    before = stages.enter(name)
    try:
        yield
    finally:
        stages.enter(before)


def staged(name: str, items: Iterable[Item]) -> Iterator[Item]:
    """The items; making each is this stage's time, using it is not."""
    iterator = iter(items)
    while True:
        with stage(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
