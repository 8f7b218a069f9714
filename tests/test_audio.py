"""Reading recordings, sound and broken."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from whisper_npu.audio import SAMPLE_RATE, open_audio
from whisper_npu.errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float32]

PUBLIC = Path(__file__).parents[2] / "shared/data/public_samples"
MANIFEST = PUBLIC / "manifest.jsonl"

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg binary")


def _voice(seconds: float = 2.0, rate: int = SAMPLE_RATE) -> Float:
    """A 200 Hz tone that swells and fades."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * 200 * time) * np.sin(np.pi * time / seconds)).astype("f4")


def _read(source: Any) -> tuple[Float, list[str]]:
    with open_audio(source) as recording:
        return np.concatenate([np.empty(0, "f4"), *recording.blocks]), recording.warnings


def _file(path: Path, samples: Float, rate: int = SAMPLE_RATE, **kind: str) -> Path:
    soundfile.write(path, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **kind})
    return path


def _recordings() -> list[Any]:
    if not MANIFEST.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"no {MANIFEST}"))]
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    return [pytest.param(entry, id=entry["file"]) for entry in map(json.loads, lines)]


@pytest.mark.parametrize("entry", _recordings())
def test_public_recordings(entry: dict[str, Any]) -> None:
    """Each is read for as long as its manifest says, or refused where that is expected."""
    path = PUBLIC / entry["file"]
    if entry["expect"] == "error":
        with pytest.raises(AudioError, match=entry["file"]):
            _read(path)
        return
    samples, warnings = _read(path)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    sound = entry["expect"] in ("ok", "degraded", "empty", "empty or short")
    assert sound == (not warnings)
    if entry["expect"] != "ok (partial)":  # a truncated mp3 still announces its full length
        lossy = 0.11 if entry["codec"] in ("mp3", "aac") else 0.01
        assert len(samples) / SAMPLE_RATE == pytest.approx(entry.get("seconds", 0), abs=lossy)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 192000])
def test_rates_and_sample_types(tmp_path: Path, rate: int, subtype: str) -> None:
    path = _file(tmp_path / "a.wav", _voice(rate=rate), rate=rate, subtype=subtype)
    samples, warnings = _read(path)
    assert not warnings
    assert len(samples) == 2 * SAMPLE_RATE
    np.testing.assert_allclose(samples, _voice(), atol=0.02)


@pytest.mark.parametrize(
    "kind",
    [
        {"format": "RF64"},
        {"format": "W64"},
        {"format": "AIFF"},
        {"format": "AU"},
        {"format": "CAF"},
        {"format": "FLAC"},
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "OGG", "subtype": "OPUS"},
        {"format": "MP3", "subtype": "MPEG_LAYER_III"},
        {"format": "WAV", "subtype": "IMA_ADPCM"},
        {"format": "WAV", "subtype": "ULAW"},
    ],
    ids=lambda kind: "-".join(kind.values()),
)
def test_containers(tmp_path: Path, kind: dict[str, str]) -> None:
    samples, warnings = _read(_file(tmp_path / "named.wrongly", _voice(), SAMPLE_RATE, **kind))
    assert not warnings
    assert len(samples) == pytest.approx(2 * SAMPLE_RATE, abs=600)  # whole ADPCM blocks
    np.testing.assert_allclose(samples[: 2 * SAMPLE_RATE], _voice(), atol=0.05)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = _voice(), np.full(2 * SAMPLE_RATE, 0.25, "f4")
    samples, _ = _read(_file(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)


def test_blocks_are_short(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.wav", np.stack([_voice(20)] * 8, axis=1))
    with open_audio(path) as recording:
        assert max(len(block) for block in recording.blocks) <= 4096


# What is no recording at all


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        _read(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="is a folder"):
        _read(tmp_path)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"empty\.wav: is empty"):
        _read(tmp_path / "empty.wav")
    with pytest.raises(AudioError, match="cannot be opened"):
        _read("a\0b.wav")
    with pytest.raises(AudioError, match="neither a file nor a pipe"):
        _read("/dev/null")
    with pytest.raises(AudioError, match="cannot be opened"):
        _read(tmp_path / "empty.wav" / "below.wav")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(AudioError, match="cannot be opened: Permission denied"):
        _read(tmp_path / "a.wav")


_NO_RECORDINGS = {
    "text.mp3": b"This is a shopping list.\n" * 40,
    "random.wav": np.random.RandomState(1).bytes(20_000),
    "header.wav": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0",
    "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "playlist.m3u8": b"#EXTM3U\n#EXTINF:10,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("fallback", ["ffmpeg", "av", "nothing"])
@pytest.mark.parametrize("name", _NO_RECORDINGS)
def test_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fallback: str
) -> None:
    _only(monkeypatch, fallback)
    path = tmp_path / name
    path.write_bytes(_NO_RECORDINGS[name])
    with pytest.raises(AudioError, match=rf"{name}: ") as failure:
        _read(path)
    assert "\n" not in str(failure.value)
    assert "/dev/fd" not in str(failure.value)


def _only(monkeypatch: pytest.MonkeyPatch, fallback: str) -> None:
    """Leave one way to read what libsndfile cannot."""
    if fallback == "ffmpeg":
        if shutil.which("ffmpeg") is None:
            pytest.skip("no ffmpeg binary")
        return
    monkeypatch.setenv("PATH", "")
    if fallback == "av":
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(sys.modules, "av", None)


# What libsndfile cannot read


def _convert(source: Path, target: Path, *options: str) -> Path:
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(source), *options, str(target)]
    subprocess.run(command, check=True)
    return target


@needs_ffmpeg
@pytest.mark.parametrize("fallback", ["ffmpeg", "av"])
@pytest.mark.parametrize("extension", ["m4a", "webm", "mka"])
def test_other_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str, fallback: str
) -> None:
    stereo = _file(tmp_path / "a.wav", np.stack([_voice(rate=48000)] * 2, axis=1), rate=48000)
    path = _convert(stereo, tmp_path / f"a.{extension}")
    _only(monkeypatch, fallback)
    samples, warnings = _read(path)
    assert not warnings
    assert len(samples) == pytest.approx(2 * SAMPLE_RATE, abs=1600)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


@needs_ffmpeg
@pytest.mark.parametrize("fallback", ["ffmpeg", "av"])
def test_a_film_without_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: str
) -> None:
    film = tmp_path / "silent.mp4"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=0.2:s=32x32", str(film)]
    subprocess.run(command, check=True)
    _only(monkeypatch, fallback)
    with pytest.raises(AudioError, match=r"silent\.mp4: holds no audio stream"):
        _read(film)


@needs_ffmpeg
def test_both_fixes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _convert(_file(tmp_path / "a.wav", _voice()), tmp_path / "a.m4a")
    _only(monkeypatch, "nothing")
    with pytest.raises(AudioError, match=r"apt install ffmpeg.*pip install 'whisper-npu\[av\]'"):
        _read(path)


@needs_ffmpeg
@pytest.mark.parametrize("fallback", ["ffmpeg", "av"])
def test_a_damaged_film_gives_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: str
) -> None:
    path = _convert(_file(tmp_path / "a.wav", _voice(20)), tmp_path / "a.webm")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 500] = np.random.RandomState(0).bytes(500)
    path.write_bytes(data[: len(data) * 3 // 4])
    _only(monkeypatch, fallback)
    samples, warnings = _read(path)
    assert 8 * SAMPLE_RATE < len(samples) < 18 * SAMPLE_RATE
    assert len(warnings) == (fallback == "ffmpeg")  # PyAV does not mind


def _fake_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> Path:
    """A program of that name, and something for it to read."""
    (folder / "ffmpeg").write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    (folder / "a.m4a").write_bytes(bytes(100))
    return folder / "a.m4a"


def test_ffmpeg_complains_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["head -c 32001 /dev/zero", "exec 1>&-", "sleep 0.3", "echo broken >&2"]
    samples, warnings = _read(_fake_ffmpeg(tmp_path, monkeypatch, *lines))
    assert len(samples) == 16000
    assert warnings == ["damaged: ffmpeg says 'broken'"]


def test_ffmpeg_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _fake_ffmpeg(tmp_path, monkeypatch, "head -c 32000 /dev/zero", "kill -SEGV $$")
    samples, warnings = _read(path)
    assert len(samples) == 16000
    assert warnings == ["damaged: ffmpeg says 'it ended with code -11'"]


def test_ffmpeg_comes_to_a_halt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_npu.audio._PATIENCE", 0.5)
    path = _fake_ffmpeg(tmp_path, monkeypatch, "head -c 32000 /dev/zero", "exec sleep 100")
    samples, warnings = _read(path)
    assert len(samples) == 16000
    assert warnings == ["damaged: ffmpeg says 'it came to a halt for 0 s'"]
    path = _fake_ffmpeg(tmp_path, monkeypatch, "exec sleep 100")
    with pytest.raises(AudioError, match="it came to a halt"):
        _read(path)


@needs_ffmpeg
@pytest.mark.parametrize("fallback", ["ffmpeg", "av"])
def test_a_playlist_does_not_reach_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: str
) -> None:
    path = tmp_path / "a.m3u8"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path.write_text(
            "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n" + address + "\n#EXT-X-ENDLIST\n"
        )
        _only(monkeypatch, fallback)
        with pytest.raises(AudioError):
            _read(path)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@needs_ffmpeg
def test_ffmpeg_ends_with_the_reader(tmp_path: Path) -> None:
    path = _convert(_file(tmp_path / "a.wav", _voice(60)), tmp_path / "a.mka", "-c:a", "copy")
    with open_audio(path) as recording:
        next(recording.blocks)
    assert recording.warnings == []  # and no child is left: ResourceWarning is an error here


# Damage


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "MS_ADPCM"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
    ],
)
def test_truncated(tmp_path: Path, kind: str, subtype: str) -> None:
    path = _file(tmp_path / "a", _voice(), format=kind, subtype=subtype)
    os.truncate(path, path.stat().st_size // 2)
    samples, warnings = _read(path)
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=1000)
    assert [warning[:9] for warning in warnings] == ["cut short"]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0])
def test_streamed_wav(tmp_path: Path, size: int) -> None:
    """What a recorder that writes to a pipe leaves behind: no sizes in the header."""
    path = _file(tmp_path / "a.wav", _voice())
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    path.write_bytes(data)
    samples, warnings = _read(path)
    assert len(samples) == 2 * SAMPLE_RATE
    assert not warnings


@needs_ffmpeg
def test_streamed_flac(tmp_path: Path) -> None:
    source = _file(tmp_path / "a.wav", _voice())
    command = ["ffmpeg", "-v", "error", "-i", str(source), "-f", "flac", "-"]
    path = tmp_path / "a.flac"
    path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    assert soundfile.info(path).frames > 2**60
    samples, warnings = _read(path)
    assert len(samples) == 2 * SAMPLE_RATE
    assert not warnings


def test_truncated_flac_and_mp3(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).normal(0, 0.1, 10 * SAMPLE_RATE).astype("f4")
    for kind, subtype in (("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")):
        path = _file(tmp_path / kind, noise, format=kind, subtype=subtype)
        os.truncate(path, path.stat().st_size // 2)
        samples, warnings = _read(path)
        assert 4 * SAMPLE_RATE < len(samples) < 6 * SAMPLE_RATE
        assert [warning[:9] for warning in warnings] == ["cut short"]


@needs_ffmpeg
def test_truncated_ogg(tmp_path: Path) -> None:
    """Libsndfile finds no end in it, and so no samples."""
    path = _file(tmp_path / "a.ogg", _voice(10), format="OGG", subtype="VORBIS")
    os.truncate(path, path.stat().st_size * 3 // 4)
    samples, _ = _read(path)
    assert len(samples) > 5 * SAMPLE_RATE


@needs_ffmpeg
def test_an_mp3_that_does_not_say_its_length(tmp_path: Path) -> None:
    """What libsndfile does is guess, and far off where the bit rate varies."""
    path = _convert(
        _file(tmp_path / "a.wav", _voice(10)), tmp_path / "a.mp3", "-q:a", "5", "-write_xing", "0"
    )
    samples, warnings = _read(path)
    assert len(samples) == pytest.approx(10 * SAMPLE_RATE, abs=4000)
    assert not warnings


def test_a_damaged_spot_keeps_the_time_of_what_follows(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).normal(0, 0.1, 10 * SAMPLE_RATE).astype("f4")
    path = _file(tmp_path / "a.flac", noise, format="FLAC")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    samples, warnings = _read(path)
    assert len(samples) == len(noise)
    np.testing.assert_allclose(samples[-4 * SAMPLE_RATE :], noise[-4 * SAMPLE_RATE :], atol=1e-4)
    assert len(warnings) == 1
    assert warnings[0].startswith("damaged: 0.")


def test_samples_that_are_no_numbers(tmp_path: Path) -> None:
    voice = _voice()
    voice[:10] = np.nan
    voice[10:15] = np.inf
    voice[15:20] = -np.inf
    samples, warnings = _read(_file(tmp_path / "a.wav", voice, subtype="FLOAT"))
    assert not samples[:20].any()
    np.testing.assert_array_equal(samples[20:], voice[20:])
    assert warnings == ["20 samples are not numbers (NaN or infinite): taken as silence"]


@pytest.mark.parametrize("gain", [1.5, 32768.0, 1e38])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_samples_beyond_full_scale(tmp_path: Path, rate: int, gain: float) -> None:
    voice = gain * 2 * _voice(rate=rate)
    samples, warnings = _read(_file(tmp_path / "a.wav", voice, rate=rate, subtype="FLOAT"))
    assert np.abs(samples).max() <= 1
    assert bool(warnings) == (gain > 4)


def test_no_samples(tmp_path: Path) -> None:
    samples, warnings = _read(_file(tmp_path / "a.wav", _voice(0)))
    assert len(samples) == 0
    assert warnings == ["holds no samples"]


@pytest.mark.parametrize("rate", [1, 999, 2_000_000, 620_000_000])
def test_an_absurd_sample_rate(tmp_path: Path, rate: int) -> None:
    """It would keep ffmpeg's resampler busy for minutes."""
    with pytest.raises(AudioError, match=rf"claims a sample rate of {rate} Hz"):
        _read(_file(tmp_path / "a.wav", _voice(), rate=rate))


# Names, pipes, descriptors


@pytest.mark.parametrize("name", [b"\xff\xfe.wav", b"-i.raw", b"http:a.wav", b"a b\n\xc3\xbc.mp3"])
def test_any_name(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(_file(tmp_path / "a", _voice()).read_bytes())
    with open_audio(path) as recording:
        recording.name.encode()  # can be printed
        assert sum(map(len, recording.blocks)) == 2 * SAMPLE_RATE


def test_a_file_object() -> None:
    data = io.BytesIO()
    soundfile.write(data, _voice(), SAMPLE_RATE, format="WAV")
    data.seek(0)
    samples, _ = _read(data)
    assert len(samples) == 2 * SAMPLE_RATE


@pytest.mark.parametrize("piped", [True, False])
def test_standard_input(tmp_path: Path, piped: bool) -> None:
    path = _file(tmp_path / "a.wav", _voice())
    code = "from whisper_npu.audio import open_audio\n"
    code += "with open_audio('-') as a: print(a.name, sum(map(len, a.blocks)), a.warnings)"
    with path.open("rb") as file:
        given: dict[str, Any] = {"input": file.read()} if piped else {"stdin": file}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, check=True, **given)
    assert done.stdout == b"standard input 32000 []\n"


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(AudioError, match="standard input: cannot be opened: it is closed"):
        _read("-")


def test_a_named_pipe(tmp_path: Path) -> None:
    data = _file(tmp_path / "a.wav", _voice()).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    samples, _ = _read(pipe)
    writer.join()
    assert len(samples) == 2 * SAMPLE_RATE


def test_a_socket_is_no_recording(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(AudioError, match="cannot be opened"):
            _read(tmp_path / "s")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    sound = _file(tmp_path / "a.flac", _voice(), format="FLAC")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF" + bytes(100))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        _read(sound)
        with pytest.raises(AudioError):
            _read(broken)
        with open_audio(sound) as recording:
            next(recording.blocks)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_mp3_in_blocks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Reading in blocks does not disturb the decoder; libmpg123 says so on descriptor 2."""
    noise = np.random.RandomState(0).normal(0, 0.2, 10 * SAMPLE_RATE).astype("f4")
    path = _file(tmp_path / "a.mp3", noise, format="MP3", subtype="MPEG_LAYER_III")
    samples, _ = _read(path)
    np.testing.assert_allclose(samples, soundfile.read(path, dtype="float32")[0], atol=1e-6)
    assert capfd.readouterr().err == ""
