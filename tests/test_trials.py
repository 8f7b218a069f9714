"""What an NPU does is tried once, by a process of its own; what stops the machine, never again."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import boards
import pytest

from whisper_npu import cache
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.npu.weights import Image
from whisper_npu.devices.trial import cases, judge, tried
from whisper_npu.errors import DeviceError
from whisper_npu.model import Whisper
from whisper_npu.rknpu import emulator, trials
from whisper_npu.rknpu.soc import SOCS
from whisper_npu.rknpu.trials import SMALL, TRYING, WORKS, Board, Case, notes, run, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from whisper_npu.machine import Machine
    from whisper_npu.rknpu.trials import Outcomes

CHIP = SOCS["rk3588"]
LIBRARY = emulator.library("rk3588")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return boards.orange_pi_5(tmp_path / "board")


@pytest.fixture
def board(machine: Machine) -> Board:
    return Board(CHIP, LIBRARY, machine)


# What a child does


TO_FP16 = Case(40, 32, 64, to_fp16=True)
WEIGHTS = Case(40, 64, 32, operand="weights")
WHOLE = Case(40, 64, 96, precision="int8")
CASES = [SMALL, TO_FP16, WEIGHTS, WHOLE]
SAID = {
    "": {},
    "late_evict": {},
    "view_nosync": {},
    "refuse=16": {TO_FP16: "the library has no matmul from float16 to float16"},
    "wrong=40x64x96": {WHOLE: "wrong numbers (off by 1.0e+00)"},
    "abort=40x32x64,hang=40x64x32": {
        TO_FP16: "it ended the process (code -6)", WEIGHTS: "it did not come back within 3 s",
    },
}  # fmt: skip


@pytest.mark.parametrize("manners", SAID)
def test_a_child_tells_what_a_core_does(
    board: Board, monkeypatch: pytest.MonkeyPatch, manners: str
) -> None:
    monkeypatch.setattr(trials, "_PATIENCE", 3.0 if "hang" in manners else 60.0)
    monkeypatch.setenv("WHISPER_NPU_EMULATOR", manners)
    expected = dict.fromkeys(CASES, WORKS) | SAID[manners]
    assert trials._ask(board, 0, CASES) == expected


def test_one_core_may_be_worse(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_EMULATOR", "wrong=64x64x64@1")
    monkeypatch.setenv("WHISPER_NPU_EMULATOR_FAULT", "rknn_matmul_set_core_mask:99:1:-1")
    assert usable(board) == (0, 2)


def test_a_library_that_does_not_load_is_told(board: Board, tmp_path: Path) -> None:
    found = trials._ask(replace(board, library=tmp_path / "gone.so"), 0, CASES)
    assert set(found) == set(CASES)
    assert all("gone.so" in said for said in found.values())


# What is kept


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Cores that were tried, and with how many cases; core 2 crashes."""
    seen: list[tuple[int, int]] = []

    def answer(_board: Board, core: int, cases: Sequence[Case]) -> Outcomes:
        seen.append((core, len(cases)))
        return dict.fromkeys(cases, "it ended the process (code -11)" if core == 2 else WORKS)

    monkeypatch.setattr(trials, "_ask", answer)
    return seen


ONCE = [(0, 1), (1, 1), (2, 1)]


def test_once_for_each_board_kernel_and_library(
    board: Board, asked: list[tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    assert usable(board) == (0, 1)
    assert asked == ONCE
    assert (
        f"core 2 of the NPU is left out: 64x64x64 fp16: it ended the process (code -11); to try "
        f"again: rm {notes()}" in caplog.text
    )
    assert usable(board) == (0, 1)
    assert asked == ONCE
    root = board.machine.root
    for change in ("proc/device-tree/serial-number", "proc/sys/kernel/osrelease"):
        (root / change).write_text("another")
        usable(board)
    boards.library(root, "2.4.0")
    usable(replace(board, library=root / "usr/lib/librknnrt.so"))
    assert asked == 4 * ONCE
    notes().unlink()
    usable(board)
    assert asked == 5 * ONCE


def test_new_shapes_are_tried_where_old_ones_are_known(
    board: Board, asked: list[tuple[int, int]]
) -> None:
    run(board, [SMALL])
    found = run(board, CASES)
    assert asked[3:] == [(0, 3), (1, 3), (2, 3)]
    assert [set(each) for each in found] == [set(CASES)] * 3


def test_what_core_0_does_not_do_is_not_tried_on_others(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Case]] = []

    def answer(_board: Board, core: int, cases: Sequence[Case]) -> Outcomes:
        seen.append(list(cases))
        return {case: WORKS if case != TO_FP16 else "crash" for case in cases}

    monkeypatch.setattr(trials, "_ask", answer)
    found = run(board, CASES)
    assert TO_FP16 in seen[0]
    assert TO_FP16 not in seen[1] + seen[2]
    assert [each[TO_FP16] for each in found] == ["crash"] * 3


def test_what_stopped_the_machine_is_not_tried_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_board: Board, core: int, cases: Sequence[Case]) -> Outcomes:
        (kept,) = cache.remembered(notes()).values()
        assert kept[str(core)] == {str(SMALL): TRYING}  # before it is tried
        if core == 1:
            raise KeyboardInterrupt
        return dict.fromkeys(cases, WORKS)

    monkeypatch.setattr(trials, "_ask", stop)
    with pytest.raises(KeyboardInterrupt):
        usable(board)
    assert usable(board) == (0, 2)
    assert board.known(1) == {str(SMALL): TRYING}


def test_what_cannot_be_kept_is_tried_on_core_0_alone(
    board: Board, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "file/cache"))
    assert usable(board) == (0,)
    assert asked == [(0, 1)]


@pytest.mark.parametrize("damage", ["[]", "not json", '{"rk3588": 7}'])
def test_damaged_notes_are_made_again(
    board: Board, asked: list[tuple[int, int]], damage: str
) -> None:
    notes().parent.mkdir()
    notes().write_text(damage)
    assert usable(board) == (0, 1)
    assert asked == ONCE


def test_who_opens_the_npu_meanwhile_waits(board: Board, asked: list[tuple[int, int]]) -> None:
    found: list[tuple[int, ...]] = []
    threads = [threading.Thread(target=lambda: found.append(usable(board))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(0, 1)] * 3
    assert sorted(asked) == ONCE


def test_one_core_needs_no_trial_of_its_mask(board: Board, asked: list[tuple[int, int]]) -> None:
    assert usable(replace(board, soc=SOCS["rk3566"])) == (0,)
    assert asked == []


# What follows for a model


@pytest.fixture
def image(random_model: Callable[[str], Path]) -> Image:
    return Image(Whisper(Checkpoint(random_model("short"))), CHIP, "fp16")


def outcomes(image: Image, n_cores: int = 3, **wrong: str) -> Outcomes:
    return {
        case: next((said for text, said in wrong.items() if text in str(case)), WORKS)
        for case in cases(image, n_cores)
    }


def test_all_is_well(image: Image) -> None:
    verdict = judge(image, [outcomes(image)] * 3, 3)
    assert verdict.cores == (0, 1, 2)
    assert (verdict.to_fp16, verdict.normalise, verdict.refused) == (True, False, {})


def test_what_follows(image: Image) -> None:
    scores, weights = image.cases(3)["attention"]
    fine = outcomes(image)
    assert not judge(image, [fine | {scores: "refused"}], 3).to_fp16
    assert judge(image, [fine | {weights: "wrong"}], 3).normalise
    both = fine | {weights: "wrong", replace(weights, operand="shares"): "wrong, too"}
    assert judge(image, [both], 3).refused == {"attention": "wrong"}
    fc1 = image.cases(3)["model.encoder.layers.0.fc1"][0]
    refused = judge(image, [fine | {fc1: "it ended the process"}], 3).refused
    assert set(refused) == {f"model.encoder.layers.{i}.fc1" for i in range(2)}
    with pytest.raises(DeviceError, match="multiplies nothing right: crash; look at dmesg"):
        judge(image, [dict.fromkeys(fine, "crash")], 3)
    worse = fine | {fc1: "wrong"}
    verdict = judge(image, [fine, worse, fine], 3)
    assert verdict.cores == (0, 2)
    assert verdict.left_out == {1: f"{fc1}: wrong"}


def test_fewer_cores_have_wider_shapes_to_try(
    image: Image, board: Board, asked: list[tuple[int, int]]
) -> None:
    verdict = tried(image, board)
    assert verdict.cores == (0, 1)
    assert max(case.n for case in cases(image, 2)) > max(case.n for case in cases(image, 3)) - 1
    assert [core for core, _ in asked] == [0, 1, 2, 0, 1, 2]
    assert tried(image, board, (1, 2)).cores == (1,)
