"""Where live sound comes from: a microphone, raw samples on a pipe, a recording played in time.

sounddevice (PortAudio) hears microphones, or arecord where that is not installed.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from whisper_npu.audio import SAMPLE_RATE, open_audio, resample
from whisper_npu.errors import AudioError
from whisper_npu.messages import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

PIECE = 0.1  # seconds of sound that are fetched at once
_WAITING = 600  # pieces that wait at most: a minute
_GONE = 5.0  # seconds without a sample, after which a microphone is not there any more
_GLANCE = 0.2  # seconds between two looks at whether to stop


@dataclass(frozen=True)
class Sound:
    """blocks: (S,) float32 at 16 kHz, as they come; behind: seconds of sound that wait."""

    blocks: Iterator[Float]
    behind: Callable[[], float] = lambda: 0.0


class Arrivals:
    """Sound that one thread brings and another fetches. Gaps and bursts are as they come.

    rate     Hz of what is brought
    patience seconds without sound after which AudioError is raised, naming `name`; None: for ever
    """

    def __init__(self, name: str, rate: int, patience: float | None) -> None:
        self._name = name
        self._rate = rate
        self._patience = patience
        self._queue: queue.Queue[Float | AudioError | None] = queue.Queue(_WAITING)
        self.n_lost = 0  # samples that came while too many waited

    def put(self, samples: Float) -> None:
        """Bring sound, and wait while there is no room."""
        self._queue.put(samples)

    def offer(self, samples: Float) -> None:
        """Bring sound that cannot wait; where there is no room silence takes its place."""
        try:
            if self.n_lost:
                self._queue.put_nowait(np.zeros(self.n_lost, np.float32))
                self.n_lost = 0
            self._queue.put_nowait(samples)
        except queue.Full:
            self.n_lost += len(samples)

    def end(self, error: AudioError | None = None) -> None:
        """Nothing more comes."""
        self._queue.put(error)

    def behind(self) -> float:
        """Seconds of sound that wait, more or less."""
        return self._queue.qsize() * PIECE

    def blocks(self, is_stopped: Callable[[], bool]) -> Iterator[Float]:
        """What was brought, until the end or until stopped. Raises AudioError."""
        last = time.monotonic()
        while not is_stopped():
            try:
                found = self._queue.get(timeout=_GLANCE)
            except queue.Empty:
                if self._patience and time.monotonic() - last > self._patience:
                    raise AudioError(
                        f"{self._name} gives no sound any more: is it unplugged?"
                    ) from None
                continue
            last = time.monotonic()
            if isinstance(found, AudioError):
                raise found
            if found is None:
                return
            yield found

    def sound(self, is_stopped: Callable[[], bool]) -> Sound:
        """At 16 kHz."""
        return Sound(resample(self.blocks(is_stopped), self._rate), self.behind)


# raw samples


@contextmanager
def raw(stream: BinaryIO | None, rate: int, is_stopped: Callable[[], bool]) -> Iterator[Sound]:
    """Signed 16-bit samples of one channel, without a header, from a pipe or a file.

    Raises AudioError.
    """
    if stream is None or stream.isatty():
        raise AudioError(
            "standard input: no sound comes from there; for example: "
            "arecord -t raw -f S16_LE -r 16000 | whisper-npu listen -"
        )
    arrivals = Arrivals("standard input", rate, None)
    threading.Thread(target=_read, args=(stream.fileno(), rate, arrivals), daemon=True).start()
    yield arrivals.sound(is_stopped)


def _read(descriptor: int, rate: int, arrivals: Arrivals) -> None:
    rest, begun = b"", False
    size = 2 * round(rate * PIECE)
    try:
        while data := os.read(descriptor, size):
            rest += data
            if not begun and rest[:4] in (b"RIFF", b"RF64", b"fLaC", b"OggS"):
                message = "is a recording with a header; whisper-npu transcribe - reads those"
                arrivals.end(AudioError(f"standard input {message}"))
                return
            begun = True
            arrivals.put(_floats(rest))
            rest = rest[len(rest) // 2 * 2 :]
    except OSError as error:
        arrivals.end(AudioError(f"standard input cannot be read: {error.strerror}"))
        return
    arrivals.end()


def _floats(data: bytes) -> Float:
    """Whole samples of 16 bits, between -1 and 1."""
    return np.frombuffer(data, "<i2", len(data) // 2).astype(np.float32) / np.float32(32768)


# a recording


@contextmanager
def played(path: Path, speed: float, is_stopped: Callable[[], bool]) -> Iterator[Sound]:
    """A recording, as if it were spoken now, or `speed` times as fast. Raises AudioError."""
    with open_audio(path) as audio:
        began, position = time.monotonic(), 0.0

        def waiting() -> float:  # faster than life there is no hurry
            return (time.monotonic() - began) * speed - position if speed <= 1 else 0.0

        def blocks() -> Iterator[Float]:
            nonlocal position
            for piece in _pieces(audio.blocks):
                position += len(piece) / SAMPLE_RATE
                while (ahead := began + position / speed - time.monotonic()) > 0:
                    if is_stopped():
                        return
                    time.sleep(min(ahead, _GLANCE))
                if is_stopped():
                    return
                yield piece

        yield Sound(blocks(), waiting)


def _pieces(blocks: Iterable[Float]) -> Iterator[Float]:
    for block in blocks:
        for i in range(0, len(block), round(PIECE * SAMPLE_RATE)):
            yield block[i : i + round(PIECE * SAMPLE_RATE)]


# microphones


@contextmanager
def microphone(name: str | None, is_stopped: Callable[[], bool]) -> Iterator[Sound]:
    """The microphone with this name, or the usual one. Raises AudioError."""
    library = _portaudio()
    hear = _hear_arecord if library is None else _hear_portaudio
    with hear(library, name) as arrivals:
        yield arrivals.sound(is_stopped)


def names() -> list[str]:
    """What can be listened to, a line each. Raises AudioError where nothing can listen."""
    library = _portaudio()
    if library is not None:
        return [
            f"{i}  {device['name']}"
            for i, device in enumerate(library.query_devices())
            if device["max_input_channels"] > 0
        ]
    done = subprocess.run([_arecord(), "-L"], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if line and not line[0].isspace()]


def _portaudio() -> Any:
    """The library, or None where it is not installed."""
    try:
        import sounddevice
    except (ImportError, OSError):  # OSError: the package is there, and PortAudio is not
        return None
    return sounddevice


def _arecord() -> str:
    program = shutil.which("arecord")
    if program is None:
        raise AudioError(
            "nothing here can hear a microphone: pip install 'whisper-npu[listen]' and "
            "sudo apt install libportaudio2, or sudo apt install alsa-utils"
        )
    return program


@contextmanager
def _hear_portaudio(library: Any, name: str | None) -> Iterator[Arrivals]:
    chosen = int(name) if name is not None and name.isdigit() else name
    shown = "the microphone" if name is None else f"the microphone {printable(name)}"
    try:
        device = library.query_devices(chosen, "input")
        rate = SAMPLE_RATE
        try:
            library.check_input_settings(device=chosen, channels=1, samplerate=rate)
        except library.PortAudioError:
            rate = round(device["default_samplerate"])
        arrivals = Arrivals(shown, rate, _GONE)

        def bring(samples: Float, _frames: int, _time: object, _status: object) -> None:
            arrivals.offer(samples[:, 0].copy())

        stream = library.InputStream(
            device=chosen, channels=1, samplerate=rate, dtype="float32",
            blocksize=round(rate * PIECE), callback=bring,
        )  # fmt: skip
        with stream:
            yield arrivals
    except (library.PortAudioError, ValueError) as error:
        raise AudioError(
            f"{shown} cannot be heard ({error}); --list-inputs shows what there is"
        ) from error


@contextmanager
def _hear_arecord(_: object, name: str | None) -> Iterator[Arrivals]:
    command = [_arecord(), "-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(SAMPLE_RATE)]
    command += ["-D", name] if name is not None else []
    shown = "the microphone" if name is None else f"the microphone {printable(name)}"
    arrivals = Arrivals(shown, SAMPLE_RATE, _GONE)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:

        def bring() -> None:
            size = 2 * round(SAMPLE_RATE * PIECE)
            stream = cast("BinaryIO", process.stdout)
            while data := stream.read(size):
                arrivals.offer(_floats(data))
            talk = cast("BinaryIO", process.stderr).read().decode("utf-8", "replace")
            reason = talk.strip().splitlines()[-1:] or ["arecord has ended"]
            arrivals.end(
                AudioError(
                    f"{shown} cannot be heard ({reason[0]}); --list-inputs shows what there is"
                )
            )

        thread = threading.Thread(target=bring, daemon=True)
        thread.start()
        try:
            yield arrivals
        finally:
            process.kill()


def standard_input() -> BinaryIO | None:
    """Where raw samples come from."""
    return None if sys.stdin is None else sys.stdin.buffer
