"""Figures and exit codes of a batch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from whisper_npu.batch import report
from whisper_npu.batch.report import DONE, FAILED, INTERRUPTED, SKIPPED, Report, Result, duration

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in {
        "thermal_zone0/temp": "41000\n",
        "thermal_zone1/temp": "63500\n",
        "thermal_zone2/temp": "",  # a sensor that is asleep
        "cooling_device0/cur_state": "0\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(content)
    monkeypatch.setattr(report, "_THERMAL", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("results", "total", "code"),
    [
        ([], 3, 0),
        ([(DONE, 0), (SKIPPED, 0)], 2, 0),
        ([(DONE, 0), (FAILED, 4)], 2, 3),
        ([(SKIPPED, 0), (FAILED, 4)], 2, 3),
        ([(FAILED, 4), (FAILED, 2)], 2, 4),
        ([(DONE, 0), (FAILED, 8), (FAILED, 4)], 3, 8),
        ([(FAILED, 2)], 1, 2),
        ([(FAILED, 4)], 1, 4),
        ([(FAILED, 4)], None, 4),
        ([(INTERRUPTED, 0)], 2, 0),
    ],
)
def test_exit_codes(results: list[tuple[str, int]], total: int | None, code: int) -> None:
    batch = Report(total=total)
    for status, exit_code in results:
        batch.add(Result("a", status, exit_code=exit_code))
    assert batch.exit_code == code


def test_the_board_is_looked_at(board: Path) -> None:
    batch = Report("npu", total=3)
    batch.add(Result("a", DONE, seconds=10.0, elapsed=2.0))
    (board / "thermal_zone1/temp").write_text("50000")
    (board / "cooling_device0/cur_state").write_text("2")
    batch.add(Result("b", FAILED, "no good", 4))
    summary = json.loads(batch.json())["summary"]
    assert summary["hottest_celsius"] == 63.5
    assert summary["throttled"] is True
    assert (summary["done"], summary["failed"], summary["not_begun"]) == (1, 1, 1)
    table = batch.table()
    assert "64 °C, throttled" in table
    assert "failed      b: no good" in table


def test_what_the_board_does_not_tell_is_not_invented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_THERMAL", tmp_path)
    batch = Report(total=1)
    batch.add(Result("a", DONE))
    summary = batch.summary()
    assert summary["hottest_celsius"] is None
    assert summary["throttled"] is None
    assert summary["rtf"] is None
    assert "°C" not in batch.table()


def test_duration() -> None:
    assert [duration(59.94), duration(60), duration(3725.4)] == ["59.9 s", "0:01:00", "1:02:05"]
