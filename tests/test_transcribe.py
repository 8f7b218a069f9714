"""The window loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from whisper_npu import load_model
from whisper_npu.options import TranscribeOptions
from whisper_npu.transcribe import cut

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = 100


def at(seconds: float) -> int:
    return BEGIN + round(seconds / 0.02)


@pytest.mark.parametrize(
    ("tokens", "pieces", "advance"),
    [
        # two segments, and one begun: heard again from the end of the second
        (
            (at(0), 1, at(2), at(2), 2, at(5), at(5), 3),
            [(0, 2, (at(0), 1, at(2))), (2, 5, (at(2), 2, at(5)))],
            500,
        ),
        # the last one ends in silence: the window is done
        (
            (at(0), 1, at(2), at(2.5), 2, at(5)),
            [(0, 2, (at(0), 1, at(2))), (2.5, 5, (at(2.5), 2, at(5)))],
            2900,
        ),
        ((at(1), 1, at(2)), [(0, 2, (at(1), 1, at(2)))], 2900),
        ((at(0), 1), [(0, 29, (at(0), 1))], 2900),
        ((1, 2), [(0, 29, (1, 2))], 2900),
        ((), [(0, 29, ())], 2900),
    ],
)
def test_cut_where_two_timestamps_meet(
    tokens: tuple[int, ...],
    pieces: list[tuple[float, float, tuple[int, ...]]],
    advance: int,
) -> None:
    found = cut(tokens, BEGIN, 2900)
    rounded = [(round(start, 6), round(end, 6), piece) for start, end, piece in found.pieces]
    assert rounded == pieces
    assert found.advance == advance


def test_the_loop_never_stands_still() -> None:
    assert cut((at(0), at(0), 1), BEGIN, 2900).advance > 0


def test_what_is_wrong_with_a_recording_is_logged(
    tmp_path: Path, demo_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.empty(0), 16000)
    load_model(demo_model, device="cpu").open(path, TranscribeOptions())
    assert caplog.messages == [f"{path}: holds no samples"]
