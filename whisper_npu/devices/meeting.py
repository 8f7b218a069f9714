"""Where the sessions of several threads meet, so that their steps are one step of the engine.

A step reads all weights of the decoder, whether for one row or for forty, and whoever decodes at
the same time shares that. Each thread decodes a window of its own, and waits for the others only
here. What a session hears does not depend on who else has come.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Float = NDArray[np.float32]
    Wanted = tuple[Any, NDArray[np.int64], bool]  # session, tokens (B, T), every position

_PATIENCE = 0.05  # seconds: whoever comes later takes the next step


@dataclass(eq=False)
class _Place:
    """A step that a thread waits for."""

    wanted: Wanted
    thread: int = field(default_factory=threading.get_ident)
    logits: Float | None = None
    error: Exception | None = None

    @property
    def is_taken(self) -> bool:
        return self.logits is not None or self.error is not None


class Meeting:
    """The next step of every thread that decodes.

    step  one step of several sessions; when it raises, none of them has changed
    """

    def __init__(self, step: Callable[[Sequence[Wanted]], Sequence[Float]]) -> None:
        self._step = step
        self._door = threading.Condition()
        self._expected: set[int] = set()  # threads that decode
        self._waiting: list[_Place] = []
        self._is_stepping = False

    def join(self) -> None:
        """This thread begins to decode: the others wait for it."""
        with self._door:
            self._expected.add(threading.get_ident())

    def leave(self) -> None:
        """This thread does something else now."""
        with self._door:
            self._expected.discard(threading.get_ident())
            self._door.notify_all()

    def step(self, wanted: Wanted) -> Float:
        """Take a step together with everybody. Raises what this step would raise alone."""
        place = _Place(wanted)
        if together := self._gather(place):
            try:
                self._take(together)
            finally:
                self._release(together)
        if place.error is not None:
            raise place.error
        assert place.logits is not None  # noqa: S101  taken by us or for us
        return place.logits

    def _gather(self, place: _Place) -> list[_Place]:
        """All who are here, for the last one to come; nobody, once another thread has taken us."""
        with self._door:
            self._expected.add(place.thread)
            self._waiting.append(place)
            try:
                while self._must_wait(place):
                    if not self._door.wait(_PATIENCE) and not self._is_stepping:
                        break
                if place.is_taken:
                    return []
                together, self._waiting = self._waiting, []
            finally:  # an interrupted thread leaves no place behind
                if place in self._waiting:
                    self._waiting.remove(place)
            self._expected = {each.thread for each in together}
            self._is_stepping = True
            return together

    def _must_wait(self, place: _Place) -> bool:
        is_complete = len(self._waiting) >= len(self._expected)
        return not place.is_taken and (self._is_stepping or not is_complete)

    def _take(self, together: list[_Place]) -> None:
        try:
            logits = self._step([place.wanted for place in together])
        except Exception as error:  # noqa: BLE001  raised again in the thread that it belongs to
            if len(together) == 1:
                together[0].error = error
                return
            for place in together:
                self._take([place])
            return
        for place, own in zip(together, logits, strict=True):
            place.logits = own

    def _release(self, together: list[_Place]) -> None:
        with self._door:
            for place in together:
                if not place.is_taken:
                    place.error = RuntimeError("the thread that took the step was interrupted")
            self._is_stepping = False
            self._door.notify_all()
