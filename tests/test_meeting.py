"""Threads that decode at the same time share their steps, and hear what they hear alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_checkpoint import SIZES, write

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.cores import Threads
from whisper_npu.devices.cpu import CpuDevice
from whisper_npu.devices.meeting import Meeting
from whisper_npu.kernels import status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

pytest.importorskip("whisper_npu.kernels._native")  # installed without a compiler


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(write(tmp_path_factory.mktemp("models") / "micro", SIZES["micro"]))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))


# a window, the tokens of its prompt, how many beams, steps before each reordering, when it comes
ROLES = st.tuples(
    st.integers(0, 3), st.integers(1, 9), st.integers(1, 4), st.integers(1, 8), st.integers(0, 3)
)
_devices: dict[str, Any] = {}


def _device(checkpoint: Checkpoint, decoder: str) -> Any:
    """A device, and some windows."""
    if decoder not in _devices:
        isa = status().instruction_sets[0]
        device = CpuDevice(checkpoint, isa, "f32", decoder, Threads(2, ()))
        dims = checkpoint.dims
        mels = np.random.default_rng(0).standard_normal((4, dims.n_mels, 2 * dims.n_audio_ctx))
        _devices[decoder] = device, [device.encode(mel.astype(np.float32)) for mel in mels]
    return _devices[decoder]


def _play(checkpoint: Checkpoint, decoder: str, role: tuple[int, ...]) -> list[Float]:
    """All that a session hears: a prompt, then beams that fork and die."""
    device, windows = _device(checkpoint, decoder)
    window, n_prompt, beams, n_steps, pause = role
    rng = np.random.default_rng(role)
    time.sleep(pause / 1000)
    session = device.session(windows[window], beams=beams, align=True)
    try:
        heard = [session.step(rng.integers(0, 100, (1, n_prompt)), every_position=True)]
        for _ in range(n_steps):
            rows = int(rng.integers(1, beams + 1))
            session.reorder(rng.integers(0, len(heard[-1]), rows).tolist())
            heard.append(session.step(rng.integers(0, 100, (rows, 1))))
        return [*heard, session.attention()]
    finally:
        session.close()


@pytest.mark.parametrize("decoder", ["f32", "f16", "int8"])
@given(roles=st.lists(ROLES, min_size=2, max_size=6))
@settings(max_examples=15, deadline=None)
def test_nobody_hears_who_else_is_there(
    micro: Checkpoint, decoder: str, roles: list[tuple[int, ...]]
) -> None:
    alone = [_play(micro, decoder, role) for role in roles]
    with ThreadPoolExecutor(len(roles)) as pool:
        together = list(pool.map(lambda role: _play(micro, decoder, role), roles))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("isa", status().instruction_sets)
@pytest.mark.parametrize("decoder", ["f32", "f16", "int8"])
def test_a_row_is_the_same_among_any_number(micro: Checkpoint, isa: str, decoder: str) -> None:
    """Kernels take rows in blocks of several sizes."""
    device = CpuDevice(micro, isa, "f32", decoder, Threads(2, ()))
    engine = device._engine
    window = device.encode(np.ones((micro.dims.n_mels, 2 * micro.dims.n_audio_ctx), np.float32))
    tokens = np.array([[5, 6, 7]])
    expected = engine.step([(engine.session(window, 1, []), tokens, False)])[0]
    for n in (2, 3, 4, 5, 7, 13):
        sessions = [engine.session(window, 1, []) for _ in range(n)]
        others = [(session, np.full((1, i + 1), i), True) for i, session in enumerate(sessions)]
        others[n // 2] = (sessions[n // 2], tokens, False)
        np.testing.assert_array_equal(engine.step(others)[n // 2], expected)


class Recorder:
    """A step that notes who came."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, wanted: Sequence[Any]) -> list[Any]:
        self.sizes.append(len(wanted))
        for session, _, _ in wanted:
            if session == "bad":
                raise ValueError("bad")
        return [np.full(1, session) for session, _, _ in wanted]


def _decode(meeting: Meeting, session: Any, n_steps: int, at: threading.Barrier) -> list[Any]:
    meeting.join()
    at.wait()
    try:
        return [meeting.step((session, np.zeros((1, 1), np.int64), False)) for _ in range(n_steps)]
    finally:
        meeting.leave()


def test_everybody_is_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_npu.devices.meeting._PATIENCE", 60)
    recorder, at = Recorder(), threading.Barrier(3)
    meeting = Meeting(recorder)
    with ThreadPoolExecutor(3) as pool:
        heard = list(pool.map(lambda i: _decode(meeting, i, 2 + i, at), range(3)))
    assert [[int(x[0]) for x in each] for each in heard] == [[0] * 2, [1] * 3, [2] * 4]
    assert recorder.sizes == [3, 3, 2, 1]  # who has decoded is no longer waited for


def test_a_step_that_fails_fails_its_own_session_only() -> None:
    recorder, at = Recorder(), threading.Barrier(3)
    meeting = Meeting(recorder)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(_decode, meeting, s, 3, at) for s in (1, "bad", 2)]
        assert [len(futures[i].result()) for i in (0, 2)] == [3, 3]
        with pytest.raises(ValueError, match="bad"):
            futures[1].result()


@pytest.mark.timeout(30)
def test_whoever_does_not_come_is_not_waited_for_twice() -> None:
    recorder = Recorder()
    meeting = Meeting(recorder)
    gone = threading.Thread(target=meeting.join)
    gone.start()
    gone.join()
    for _ in range(1000):
        meeting.step((1, np.zeros((1, 1), np.int64), False))
    assert recorder.sizes == [1] * 1000


def test_a_thread_may_decode_two_windows_in_turns() -> None:
    meeting = Meeting(Recorder())
    meeting.join()
    meeting.join()
    assert [int(meeting.step((i, np.zeros((1, 1), np.int64), False))[0]) for i in (1, 2, 1)] == [
        1,
        2,
        1,
    ]
