"""An audio or video file -> mono float32 samples at 16 kHz, block by block.

libsndfile reads what it can (wav of every kind, flac, ogg, opus, mp3, aiff, au, caf, rf64, ...)
and soxr resamples it; the rest (m4a, mp4, webm, ...) goes through an `ffmpeg` binary, or PyAV
where there is none. A file is never held whole. A damaged one gives what can be read and a
warning; one that gives nothing is an AudioError.
"""

from __future__ import annotations

import errno
import os
import re
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import soundfile

from whisper_npu.errors import AudioError, OutputError
from whisper_npu.messages import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    import av.container
    from numpy.typing import NDArray

    Float = NDArray[np.float32]
    Source = str | os.PathLike[str] | BinaryIO
    Warn = Callable[[str], None]
    Blocks = Generator[Float, None, None]
    Decoder = Callable[[BinaryIO, Warn], tuple[int, Blocks]]  # -> Hz, blocks (S, channels)

SAMPLE_RATE = 16000  # Hz, what Whisper hears

_FRAMES = 4096  # read at once: what is lost around a damaged spot
_BAD_READS = 64  # in a row, after which the rest of a damaged file is given up
_RATES = range(1000, 1_000_001)  # Hz; anything else is a damaged header
_PATIENCE = 60.0  # seconds without a sample from ffmpeg
_LOUD = 4.0  # times full scale: louder than any lossy decoder overshoots

# libsndfile's log, where the data chunk promises more bytes than the file has
_SHORTER = r"(?:data|SSND|Data Size|[Rr]iff size|riff)\s*: (\d+) \(should be (\d+)\)"
_SHORTER_RF64 = r"frame count \d+ does not match value from 'ds64' chunk of (\d+)"


class _UndecodableError(Exception):
    """This decoder gets nothing out of the file; the next may."""


class _SenselessError(Exception):
    """What the file says of itself cannot be, and would keep a decoder busy for ever."""


@dataclass(frozen=True)
class Audio:
    """An opened recording."""

    name: str  # for people: printable whatever bytes the file name holds
    blocks: Iterator[Float]  # (S,) float32 each, S varies; once
    warnings: list[str]  # what is wrong with the recording; complete after the last block


@contextmanager
def open_audio(source: Source) -> Iterator[Audio]:
    """Open a recording: a path, "-" for standard input, or a binary file object.

    blocks  (S,) each  float32  mono at 16 kHz, in [-1, 1]

    Channels are averaged. Samples that are not numbers count as silence, those beyond full scale
    are clipped. A recording of no samples has no blocks and a warning.
    Raises OutputError where a pipe finds no room on the disk; AudioError, here or from the blocks,
    naming the recording and what to do.
    """
    name = name_of(source)
    warnings: list[str] = []
    with _open(source, name) as file, closing(_decode(file, name, warnings.append)) as blocks:
        first = next(blocks, None)  # a recording that cannot be read fails here
        yield Audio(name, blocks if first is None else chain([first], blocks), warnings)


def name_of(source: Source) -> str:
    """A recording as messages name it."""
    if not isinstance(source, (str, os.PathLike)):
        return str(getattr(source, "name", "audio"))
    if os.fspath(source) == "-":
        return "standard input"
    return printable(os.fspath(source))


def _open(source: Source, name: str) -> BinaryIO:
    """Open a source as a seekable file; what comes through a pipe is spooled to disk."""
    try:
        if not isinstance(source, (str, os.PathLike)):
            return _spooled(source)
        file = _standard_input() if os.fspath(source) == "-" else open(source, "rb")  # noqa: SIM115, PTH123  closed by the caller; a path may be "-"
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            with file:
                return _spooled(file)
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise AudioError(f"{name}: is a folder, not a recording") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise OutputError(
                f"no room in {tempfile.gettempdir()} for what comes through a pipe: make room "
                "there, or set TMPDIR to a folder on a larger disk"
            ) from error
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{name}: cannot be opened: {reason}") from error
    if not stat.S_ISREG(mode):
        file.close()
        raise AudioError(f"{name}: is neither a file nor a pipe")
    return file


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer


def _path(file: BinaryIO) -> str:
    """An opened file as decoders can open it: without its name, which may hold any bytes, a
    protocol, or an extension that they would believe.
    """
    return f"/dev/fd/{file.fileno()}"


def _spooled(stream: BinaryIO) -> BinaryIO:
    with ExitStack() as undo:
        file = cast("BinaryIO", undo.enter_context(tempfile.TemporaryFile()))
        shutil.copyfileobj(stream, file)
        file.seek(0)
        undo.pop_all()  # closed by the caller
    return file


def _decode(file: BinaryIO, name: str, warn: Warn) -> Blocks:
    """Take the first decoder that gets samples out of a file."""
    if os.fstat(file.fileno()).st_size == 0:
        raise AudioError(f"{name}: is empty (0 bytes)")
    others: Decoder = _ffmpeg if shutil.which("ffmpeg") else _pyav
    reasons: list[str] = []
    for decoder in (_libsndfile, others, _libsndfile_unsure):
        try:
            rate, blocks = decoder(file, warn)
            first = next(blocks, None)
        except _SenselessError as error:
            raise AudioError(f"{name}: {error}") from error
        except _UndecodableError as error:
            reasons.append(str(error))
            continue
        if first is not None:
            with closing(blocks):
                yield from resample(_mono(chain([first], blocks), warn), rate)
            return
    if len(reasons) == 3:
        raise AudioError(f"{name}: {reasons[1]}")
    warn("holds no samples")


def _mono(blocks: Iterable[Float], warn: Warn) -> Iterator[Float]:
    """Average the channels of finite samples within full scale: (S, channels) -> (S,)."""
    damaged, peak = 0, 0.0
    for block in blocks:
        finite = np.isfinite(block)
        if not finite.all():
            damaged += int(block.size - np.count_nonzero(finite))
            block[~finite] = 0
        peak = max(peak, float(np.abs(block).max(initial=0)))
        yield block.clip(-1, 1).mean(axis=1, dtype=np.float32)
    if damaged:
        warn(f"{damaged} samples are not numbers (NaN or infinite): taken as silence")
    if peak > _LOUD:
        warn(f"samples reach {peak:.3g} times full scale: clipped")


def resample(blocks: Iterable[Float], rate: int) -> Iterator[Float]:
    """Mono samples of any rate at 16 kHz, block by block."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block).clip(-1, 1)  # it overshoots
    yield stream.resample_chunk(np.empty(0, np.float32), last=True).clip(-1, 1)


# libsndfile


def _libsndfile(file: BinaryIO, warn: Warn) -> tuple[int, Blocks]:
    sound = _sound(file)
    announced = _announced_frames(sound, file)
    if not announced:  # libsndfile guesses, and drops what lies beyond its guess
        sound.close()
        raise _UndecodableError("does not say how long it is")
    return sound.samplerate, _sound_blocks(sound, file, announced, warn)


def _libsndfile_unsure(file: BinaryIO, warn: Warn) -> tuple[int, Blocks]:
    sound = _sound(file)
    if sound.frames:
        warn("does not say how long it is, and its end may be missing: ffmpeg would read all of it")
    return sound.samplerate, _sound_blocks(sound, file, 0, warn)


def _sound(file: BinaryIO) -> soundfile.SoundFile:
    try:
        sound = soundfile.SoundFile(_path(file))
    except soundfile.SoundFileError as error:
        raise _UndecodableError(str(error)) from error
    if sound.samplerate not in _RATES:
        sound.close()
        raise _SenselessError(f"is damaged: it claims a sample rate of {sound.samplerate} Hz")
    # else every read seeks to where it is, and an mp3 decoder stumbles over that
    sound.seekable = lambda: False
    return sound


def _sound_blocks(
    sound: soundfile.SoundFile, file: BinaryIO, announced: float, warn: Warn
) -> Blocks:
    """Read on behind damaged spots, which become silence, so that later speech keeps its time."""
    rate, channels = sound.samplerate, sound.channels
    frames = max(1, _FRAMES // channels)
    position = gap = lost = 0
    with ExitStack() as opened:
        opened.callback(sound.close)
        while gap < _BAD_READS * frames:
            try:
                if gap:  # a decoder that failed once goes on failing: take a new one
                    sound = opened.enter_context(_sound(file))
                    sound.seek(position + gap)
                block = sound.read(frames, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, _UndecodableError) as error:
                if position == 0:
                    raise _UndecodableError(str(error)) from error
                gap += frames
                continue
            if not len(block):
                break
            if gap:
                yield np.zeros((gap, channels), np.float32)
            yield block
            position += gap + len(block)
            lost, gap = lost + gap, 0
    if lost:
        warn(f"damaged: {lost / rate:.1f} s could not be decoded, taken as silence")
    if rate / 10 < announced - position < 2**62:  # a streamed flac announces 2**63 - 1
        warn(f"cut short: {position / rate:.1f} s of {announced / rate:.1f} s could be read")


def _announced_frames(sound: soundfile.SoundFile, file: BinaryIO) -> float:
    """How long the header says the recording is; 0 where it does not say."""
    if sound.format == "MP3":
        head = os.pread(file.fileno(), 1 << 16, 0)
        return sound.frames if b"Xing" in head or b"Info" in head else 0  # else a guess
    if sizes := re.search(_SHORTER, sound.extra_info):
        announced, there = int(sizes[1]), int(sizes[2])
        if there < announced < 2**32 - 1:  # all ones: a streamed wav
            return sound.frames * announced / max(1, there)
    if frames := re.search(_SHORTER_RF64, sound.extra_info):
        return max(sound.frames, int(frames[1]))
    return sound.frames


# ffmpeg, and PyAV where there is no ffmpeg; from a file, neither follows a playlist to the network


def _ffmpeg(file: BinaryIO, warn: Warn) -> tuple[int, Blocks]:
    return SAMPLE_RATE, _ffmpeg_blocks(file, warn)


def _ffmpeg_blocks(file: BinaryIO, warn: Warn) -> Blocks:
    path = _path(file)
    command = ["ffmpeg", "-nostdin", "-v", "error"]
    command += ["-i", path, "-map", "0:a:0", "-ac", "1"]
    command += ["-ar", str(SAMPLE_RATE), "-f", "s16le", "-"]
    rest, empty, end = b"", True, ""
    with tempfile.TemporaryFile() as talk:
        process = subprocess.Popen(
            command, bufsize=0, stdout=subprocess.PIPE, stderr=talk, pass_fds=(file.fileno(),)
        )
        with process, closing(cast("BinaryIO", process.stdout)) as stream:
            try:
                while data := _read(stream):
                    rest += data
                    yield _from_int16(np.frombuffer(rest, "<i2", len(rest) // 2))
                    rest, empty = rest[len(rest) // 2 * 2 :], False
                if code := process.wait():
                    end = f"it ended with code {code}"
            except TimeoutError:
                end = f"it came to a halt for {_PATIENCE:.0f} s"
            finally:
                process.kill()  # nothing is left to kill after `wait`
        talk.seek(0)
        complaints = talk.read(1 << 16).decode("utf-8", "replace").replace(f"{path}: ", "")
    _judge("ffmpeg", f"{end}\n{complaints.strip()}".split("\n"), warn, empty=empty)


def _read(stream: BinaryIO) -> bytes:
    """Whatever comes next out of a pipe. Raises TimeoutError."""
    poll = select.poll()  # `select` itself knows no descriptor beyond 1023
    poll.register(stream)
    if not poll.poll(1000 * _PATIENCE):
        raise TimeoutError
    return stream.read(2 * _FRAMES)


def _from_int16(samples: NDArray[np.generic]) -> Float:
    """Not floats: those FFmpeg mixes down to mono louder than full scale."""
    return samples.astype(np.float32).reshape(-1, 1) / np.float32(32768)


def _judge(decoder: str, complaints: list[str], warn: Warn, *, empty: bool) -> None:
    """A decoder that complained and gave nothing failed; one that gave something warns."""
    complaints = [line for line in complaints if line]
    if not complaints:
        return
    if not empty:
        warn(f"damaged: {decoder} says {complaints[-1]!r}")
    elif any("matches no streams" in line for line in complaints):
        raise _UndecodableError("holds no audio stream")
    else:
        raise _UndecodableError(f"is not a recording that can be read ({complaints[-1]})")


def _pyav(file: BinaryIO, warn: Warn) -> tuple[int, Blocks]:
    try:
        import av
    except ImportError as error:
        raise _UndecodableError(
            "is in no format that libsndfile reads; for m4a, mp4, webm and others install ffmpeg "
            "(`sudo apt install ffmpeg`) or PyAV (`pip install 'whisper-npu[av]'`)"
        ) from error
    path = _path(file)
    try:
        container = av.open(path)
    except av.FFmpegError as error:
        raise _UndecodableError(
            f"is not a recording that can be read ({error.strerror})"
        ) from error
    return SAMPLE_RATE, _pyav_blocks(container, warn)


def _pyav_blocks(container: av.container.InputContainer, warn: Warn) -> Blocks:
    import av

    complaints: list[str] = []
    empty = True
    with container:
        if not container.streams.audio:
            raise _UndecodableError("holds no audio stream")
        rate = container.streams.audio[0].rate
        if rate not in _RATES:
            raise _SenselessError(f"is damaged: it claims a sample rate of {rate} Hz")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        for packet in container.demux(container.streams.audio[0]):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                complaints.append(str(error.strerror))
                continue
            for frame in frames:
                for piece in resampler.resample(frame):
                    empty = False
                    yield _from_int16(piece.to_ndarray())
        for piece in resampler.resample(None):
            yield _from_int16(piece.to_ndarray())
    _judge("PyAV", complaints, warn, empty=empty)
