"""Kills at random moments lose nothing; scripts/fault_suite.py does many more."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from faults import kill_and_resume, make_texts, outputs, start_scripted

if TYPE_CHECKING:
    from pathlib import Path


def test_killed_at_any_moment(tmp_path: Path) -> None:
    recordings = make_texts(tmp_path / "in", 20)
    started = time.monotonic()
    _, talk = start_scripted(recordings, tmp_path / "whole").communicate()
    seconds = time.monotonic() - started
    expected = outputs(tmp_path / "whole")
    assert len(expected) == 40, talk
    folders = (tmp_path / f"out{i}" for i in range(100))
    rng = random.Random(3)
    counts = kill_and_resume(
        lambda out: start_scripted(recordings, out),
        lambda: next(folders),
        expected,
        seconds,
        8,
        rng,
    )
    assert counts.kills == 8
    assert (counts.halves, counts.differences, counts.leftovers) == (0, 0, 0)
