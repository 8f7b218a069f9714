#!/usr/bin/env python3
"""What the loop around the forward passes costs in time and memory on a long recording.

    scripts/bench_loop.py MODEL --hours 2 --tokens 60

The recording is noise with pauses, made as it is read. Random weights never end a window by
themselves: `--tokens` does.
"""

from __future__ import annotations

import argparse
import time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import whisper_npu
from whisper_npu.events import WindowDone
from whisper_npu.listening import hear
from whisper_npu.options import TranscribeOptions
from whisper_npu.transcribe import Transcription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RATE = 16000


def noise(seconds: int) -> Iterator[np.ndarray]:
    """Samples of that length, a minute a block."""
    rng = np.random.default_rng(0)
    for start in range(0, seconds, 60):
        block = rng.standard_normal(RATE * min(60, seconds - start), np.float32)
        block *= np.sin(np.arange(len(block)) / RATE) > 0
        yield block * np.float32(0.1)


def resident() -> float:
    """MiB of memory that this process has to itself: mapped files do not count."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(row for row in status.splitlines() if row.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


class Clock:
    """Adds up the time that some methods of one object take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    def times(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin
                self.calls += 1

        return timed


def main() -> None:
    """Transcribe, and print what is not a forward pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--tokens", type=int, default=60, help="per window")
    parser.add_argument("--beam-size", type=int)
    options = parser.parse_args()
    chosen = TranscribeOptions(
        temperature=(0.0,),
        temperature_increment_on_fallback=None,
        sample_len=options.tokens,
        beam_size=options.beam_size,
        no_speech_threshold=None,
        condition_on_previous_text=False,
    )
    forward = Clock()
    with whisper_npu.load_model(options.model, device="cpu") as model:
        features = hear(noise(round(3600 * options.hours)), model.checkpoint.dims.n_mels, chosen)
        device: Any = model.device
        open_session = device.session

        def session(*args: Any, **kwargs: Any) -> Any:
            opened = open_session(*args, **kwargs)
            for name in ("step", "reorder", "close"):
                setattr(opened, name, forward.times(getattr(opened, name)))
            return opened

        device.encode = forward.times(device.encode)
        device.session = forward.times(session)
        begin, next_report = time.perf_counter(), 0.0
        for event in Transcription(model, features, chosen):
            if isinstance(event, WindowDone) and event.seconds >= next_report:
                print(f"{event.seconds / 60:4.0f} min: {resident():.0f} MiB", flush=True)
                next_report = event.seconds + 600
        total = time.perf_counter() - begin
    print(
        f"{total:.1f} s, of it {forward.seconds:.1f} s in {forward.calls} forward calls: "
        f"the loop adds {100 * (total / forward.seconds - 1):.1f} %"
    )


if __name__ == "__main__":
    main()
