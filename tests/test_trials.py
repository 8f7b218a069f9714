"""Cores are tried once, by a process of its own, and a core that stops the machine never again."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import boards
import pytest

from whisper_npu.errors import DeviceFault
from whisper_npu.rknpu import board, emulator, trials
from whisper_npu.rknpu.soc import SOCS
from whisper_npu.rknpu.trials import TRYING, WORKS, ask, notes, outcomes, usable

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.machine import Machine

CHIP = SOCS["rk3588"]
LIBRARY = emulator.library("rk3588")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return boards.orange_pi_5(tmp_path / "board")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Cores that were tried; 2 fails."""
    seen: list[int | None] = []

    def answer(_library: Path, core: int | None) -> str:
        seen.append(core)
        if core == 2:
            raise DeviceFault("a small matmul failed: ended with code -11")
        return "right"

    monkeypatch.setattr(trials, "ask", answer)
    return seen


def test_a_child_multiplies_on_the_core_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "emulated rk3588" in ask(LIBRARY, 1)
    monkeypatch.setenv("WHISPER_NPU_EMULATOR_FAULT", "rknn_matmul_set_core_mask:1:1:-1")
    with pytest.raises(DeviceFault, match="rknn_matmul_set_core_mask failed"):
        ask(LIBRARY, 1)
    assert ask(LIBRARY, None)  # any core: no mask is set


def test_once_for_each_board_and_kept(
    machine: Machine, tried: list[int | None], caplog: pytest.LogCaptureFixture
) -> None:
    assert usable(CHIP, LIBRARY, machine) == (0, 1)
    assert tried == [1, 2]
    assert (
        f"core 2 of the NPU is left out: a small matmul failed: ended with code -11; to try "
        f"again: rm {notes()}" in caplog.text
    )
    assert usable(CHIP, LIBRARY, machine) == (0, 1)
    assert tried == [1, 2]
    (machine.root / "proc/device-tree/serial-number").write_text("another")
    usable(CHIP, LIBRARY, machine)
    assert tried == [1, 2, 1, 2]
    notes().unlink()
    usable(CHIP, LIBRARY, machine)
    assert len(tried) == 6


def test_a_core_that_stopped_the_machine_is_not_tried_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_library: Path, core: int | None) -> str:
        (on_disk,) = json.loads(notes().read_text()).values()
        assert on_disk == {"1": TRYING}  # before it is tried
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "ask", stop)
    with pytest.raises(KeyboardInterrupt):
        usable(CHIP, LIBRARY, machine)
    monkeypatch.setattr(trials, "ask", lambda *_: "right")
    assert usable(CHIP, LIBRARY, machine) == (0, 2)
    assert outcomes(CHIP, machine) == {1: TRYING, 2: WORKS}
    finding = board._cores(machine, CHIP)
    assert finding is not None
    assert finding.status == "warn"
    assert finding.message == "core 1 is left out: the machine stopped when it was tried"


def test_what_cannot_be_kept_is_not_tried(
    machine: Machine, tried: list[int | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "file/cache"))
    assert usable(CHIP, LIBRARY, machine) == (0,)
    assert tried == []


@pytest.mark.parametrize("damage", ["[]", "not json", '{"rk3588": 7}'])
def test_damaged_notes_are_made_again(
    machine: Machine, tried: list[int | None], damage: str
) -> None:
    notes().parent.mkdir()
    notes().write_text(damage)
    assert usable(CHIP, LIBRARY, machine) == (0, 1)
    assert tried == [1, 2]


def test_who_opens_the_npu_meanwhile_waits(machine: Machine, tried: list[int | None]) -> None:
    found: list[tuple[int, ...]] = []
    threads = [
        threading.Thread(target=lambda: found.append(usable(CHIP, LIBRARY, machine)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(0, 1)] * 3
    assert tried == [1, 2]


def test_one_core_needs_no_trial(machine: Machine, tried: list[int | None]) -> None:
    assert usable(SOCS["rk3566"], LIBRARY, machine) == (0,)
    assert tried == []
    assert outcomes(SOCS["rk3566"], machine) == {}
