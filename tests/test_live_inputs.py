"""Where live sound comes from. The microphones here are stand-ins: no test hears a real one."""

from __future__ import annotations

import os
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from whisper_npu.errors import AudioError
from whisper_npu.live import inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def never() -> bool:
    return False


def heard(sound: inputs.Sound) -> np.ndarray[Any, Any]:
    return np.concatenate([np.empty(0, np.float32), *sound.blocks])


def until_it_fails(microphone: str, message: str) -> int:
    """Samples that came before the error."""
    n = 0

    def listen() -> None:
        nonlocal n
        with inputs.microphone(microphone, never) as sound:
            for block in sound.blocks:
                n += len(block)

    with pytest.raises(AudioError, match=message):
        listen()
    return n


def through_a_pipe(*bursts: bytes, rate: int = 16000) -> np.ndarray[Any, Any]:
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb", buffering=0) as out:
            out.writelines(bursts)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as stream, inputs.raw(stream, rate, never) as sound:
        found = heard(sound)
    thread.join()
    return found


def test_samples_survive_any_bursts() -> None:
    samples = np.random.default_rng(0).integers(-32768, 32767, 20000).astype("<i2")
    data = samples.tobytes()
    found = through_a_pipe(data[:1], data[1:4], data[4:30001], data[30001:])
    np.testing.assert_array_equal(found, samples / np.float32(32768))


def test_half_a_sample_at_the_end_is_left_out() -> None:
    assert len(through_a_pipe(b"\0\0\0")) == 1


def test_other_rates_are_resampled() -> None:
    tone = np.sin(np.arange(48000) * 2 * np.pi * 440 / 48000)
    found = through_a_pipe((20000 * tone).astype("<i2").tobytes(), rate=48000)
    assert abs(len(found) - 16000) < 10
    assert np.abs(np.fft.rfft(found)).argmax() == pytest.approx(440, abs=1)


def test_a_recording_with_a_header_is_no_raw_sound() -> None:
    with pytest.raises(AudioError, match="transcribe - reads those"):
        through_a_pipe(b"RIFF\x24\0\0\0WAVEfmt ")


def test_a_terminal_and_nothing_give_no_sound() -> None:
    with pytest.raises(AudioError, match="no sound comes from there"), inputs.raw(None, 1, never):
        pass


def test_what_nobody_fetches_becomes_silence_of_that_length() -> None:
    arrivals = inputs.Arrivals("the microphone", 16000, None)
    for i in range(700):
        arrivals.offer(np.full(1600, i + 1, np.float32))
    for _ in range(300):
        arrivals._queue.get()
    arrivals.offer(np.ones(1600, np.float32))
    arrivals.end()
    found = np.concatenate(list(arrivals.blocks(never)))
    assert len(found) == (300 + 100 + 1) * 1600
    assert not found[300 * 1600 : 400 * 1600].any()


# stand-ins


class PortAudio:
    """What sounddevice does, without any sound device."""

    class PortAudioError(Exception):
        pass

    def __init__(self, feed: Callable[[Callable[..., None]], None], rates: set[int]) -> None:
        self._feed = feed
        self._rates = rates
        self.opened: dict[str, Any] = {}

    def query_devices(self, device: Any = None, kind: str | None = None) -> Any:
        there: list[dict[str, Any]] = [
            {"name": "speaker", "max_input_channels": 0, "default_samplerate": 48000.0},
            {"name": "headset", "max_input_channels": 1, "default_samplerate": 48000.0},
        ]
        if kind is None:
            return there
        if device not in (None, 1, "headset"):
            raise ValueError(f"No input device matching {device!r}")
        return there[1]

    def check_input_settings(self, *, samplerate: int, **_: Any) -> None:
        if samplerate not in self._rates:
            raise self.PortAudioError("Invalid sample rate")

    def InputStream(self, *, callback: Callable[..., None], **how: Any) -> Any:  # noqa: N802  theirs
        self.opened = how
        self._feed(callback)
        return memoryview(b"")  # anything with `with`


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PortAudio]:
    def install(feed: Callable[[Callable[..., None]], None], rates: set[int]) -> PortAudio:
        library = PortAudio(feed, rates)
        monkeypatch.setitem(sys.modules, "sounddevice", library)
        monkeypatch.setattr(inputs, "_GONE", 0.3)
        return library

    return install


def test_a_microphone_that_is_unplugged(portaudio: Callable[..., PortAudio]) -> None:
    def speak(callback: Callable[..., None]) -> None:
        for _ in range(5):
            callback(np.full((1600, 1), 0.5, np.float32), 1600, None, None)

    portaudio(speak, {16000})
    assert until_it_fails("headset", "is it unplugged") == 8000


def test_a_microphone_with_a_rate_of_its_own(portaudio: Callable[..., PortAudio]) -> None:
    library = portaudio(lambda _: None, {48000})
    with inputs.microphone("1", lambda: True) as sound:
        assert heard(sound).size == 0
    assert library.opened["samplerate"] == 48000
    assert library.opened["device"] == 1
    assert inputs.names() == ["1  headset"]


def test_no_such_microphone(portaudio: Callable[..., PortAudio]) -> None:
    portaudio(lambda _: None, {16000})
    with pytest.raises(AudioError, match="--list-inputs"), inputs.microphone("nobody", never):
        pass


@pytest.fixture
def without_portaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A path for programs, and no sounddevice."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def arecord(folder: Path, script: str) -> None:
    program = folder / "arecord"
    program.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_nothing_that_hears(without_portaudio: Path) -> None:
    with pytest.raises(AudioError, match="alsa-utils"), inputs.microphone(None, never):
        pass
    with pytest.raises(AudioError, match="alsa-utils"):
        inputs.names()


def test_arecord_hears(without_portaudio: Path) -> None:
    arecord(
        without_portaudio,
        "if '-L' in sys.argv: print('default\\n    the usual one\\nhw:1'); sys.exit()\n"
        "sys.stdout.buffer.write(bytes(6400)); sys.stdout.flush()\n"
        "sys.exit('arecord: pcm_read: read error: No such device')",
    )
    assert inputs.names() == ["default", "hw:1"]
    assert until_it_fails("hw:1", "No such device") == 3200


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert inputs.standard_input() is None
