"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from whisper_npu.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def finishing(stop: Callable[[], None], say: Callable[[str], None], then: str) -> Iterator[None]:
    """Call `stop` on the first signal and raise Interrupted when the block has ended.

    then  what became of the work, or can be done: said at the end
    Nothing is half written at the second either: files appear under their names only when whole.
    """
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        with suppress(RuntimeError):  # the signal came in the middle of printing: no second entry
            say("finishing what is in work; again to end at once")
        stop()

    # a shell's background job ignores Ctrl-C: so do we then
    ours = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise Interrupted(f"interrupted; {then}", received[0])
