"""The first signal asks, the second ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from whisper_npu.batch.interrupts import finishing
from whisper_npu.errors import Interrupted

WORK = """
import os, time
from whisper_npu.batch.interrupts import finishing
with finishing(lambda: os.write(1, b"stopping\\n"), lambda text: None, 'kept'):
    os.write(1, b"working\\n")  # a signal may come before a print is over
    time.sleep(60)  # a window that takes its time
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks(number: signal.Signals, code: int) -> None:
    stopped = []
    before = signal.getsignal(number)

    def work() -> None:
        with finishing(lambda: stopped.append(1), lambda _: None, "kept"):
            os.kill(os.getpid(), number)
            assert stopped == [1]

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.exit_code == code
    assert "interrupted; kept" in str(caught.value)
    assert signal.getsignal(number) is before


def test_a_signal_in_the_middle_of_printing_still_asks() -> None:
    stopped = []

    def say(_: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    def work() -> None:
        with finishing(lambda: stopped.append(1), say, "kept"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        work()
    assert stopped == [1]


def test_the_second_ends_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as talk:
        assert talk.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        assert talk.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_background_job_goes_on_ignoring() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with finishing(lambda: pytest.fail("not asked"), lambda _: None, "kept"):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
