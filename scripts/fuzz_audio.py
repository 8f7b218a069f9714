#!/usr/bin/env python3
"""Reads very many broken recordings in child processes with limits; says what became of them.

    scripts/fuzz_audio.py 50000 [--ffmpeg] [--seed N]

A child may use 2 GiB of address space, 20 s of its processor and 200 s for one recording. Whatever
is not samples or an AudioError is printed with the number that reproduces it.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from broken_recordings import FORMATS, KINDS, VALUES, Edit, broken, recording  # noqa: E402

from whisper_npu.audio import open_audio  # noqa: E402
from whisper_npu.errors import AudioError  # noqa: E402

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LIMIT = 2 << 30  # bytes
SECONDS = 20  # of the processor, for one recording; ten times that by the clock


def made(number: int) -> tuple[str, bytes]:
    """The format and the bytes of one broken recording."""
    source = random.Random(number)
    name = source.choice(list(FORMATS))
    edits = [
        Edit(
            source.choice(KINDS),
            source.random(),
            source.choice([source.choice(VALUES), source.randrange(2**32)]),
        )
        for _ in range(source.randint(1, 6))
    ]
    return name, broken(recording(name), edits)


def outcome(data: bytes) -> str:
    """What became of it, in a word."""
    n_samples = 0
    try:
        with open_audio(io.BytesIO(data)) as audio:
            for block in audio.blocks:
                if not np.isfinite(block).all() or np.abs(block).max(initial=0) > 1:
                    return "BAD SAMPLES"
                n_samples += len(block)
            if not n_samples:
                return "no samples"
            return "read with a warning" if audio.warnings else "read"
    except AudioError:
        return "refused"


def child(first: int, last: int, answers: Connection) -> None:
    """Read recordings first..last-1 and answer for each."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders talk
    for number in range(first, last):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the child
        signal.alarm(10 * SECONDS)
        name, data = made(number)
        try:
            answers.send((number, name, outcome(data)))
        except Exception as error:  # noqa: BLE001  that is what we are looking for
            answers.send((number, name, f"UNEXPECTED {type(error).__name__}: {error}"))
    answers.send((last, "", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=0, help="number of the first recording")
    parser.add_argument("--ffmpeg", action="store_true", help="also where libsndfile gives up")
    options = parser.parse_args()
    if not options.ffmpeg:
        os.environ["PATH"] = ""
        sys.modules["av"] = None  # type: ignore[assignment]  # an import of it fails
    begin, peak = time.monotonic(), 0
    counts: Counter[str] = Counter()
    number, last = options.seed, options.seed + options.n
    while number < last:
        receive, send = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=child, args=(number, last, send))
        process.start()
        send.close()
        try:
            while True:
                number, name, said = receive.recv()
                if not name:
                    peak = max(peak, said)
                    break
                counts[said.partition(":")[0]] += 1
                if said[:3].isupper():
                    print(f"{number} ({name}): {said}", flush=True)
                number += 1
        except EOFError:  # the child died over this one
            process.join()
            counts["ended the process"] += 1
            print(f"{number} ({made(number)[0]}): ENDED with code {process.exitcode}", flush=True)
            number += 1
        process.join()
    print(f"{options.n} recordings in {time.monotonic() - begin:.0f} s, peak {peak / 1024:.0f} MiB")
    for said, count in counts.most_common():
        print(f"{count:8} {said}")


if __name__ == "__main__":
    main()
