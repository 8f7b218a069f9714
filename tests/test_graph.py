"""The guards around RKNNLite, over one of ours; test_graph_arm64.py has the vendor's own."""

from __future__ import annotations

import json
import os
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from whisper_npu.cache import sha256
from whisper_npu.errors import DeviceError, DeviceFault
from whisper_npu.graphs.runtime import Graph

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

N_MELS, FRAMES, WIDTH = 80, 20, 6


class RKNNLite:
    """Behaves as the vendor's: a failed run gives the old outputs again."""

    NPU_CORE_AUTO, NPU_CORE_0, NPU_CORE_1, NPU_CORE_2 = 0, 1, 2, 4
    NPU_CORE_0_1, NPU_CORE_0_1_2 = 3, 7
    status = 0
    says = ""
    fails: Any = None  # what a run does instead of computing
    mask: int | None = None

    def __init__(self) -> None:
        self._outputs: list[Float] = [
            np.zeros((1, FRAMES // 2, WIDTH), np.float32),
            np.zeros((1, FRAMES // 2, WIDTH), np.float32),
            np.zeros((1, 1, 32), np.float32),
        ]

    def load_rknn(self, path: str) -> int:
        return 0

    def init_runtime(self, core_mask: int) -> int:
        os.write(1, type(self).says.encode())  # as C code does
        type(self).mask = core_mask
        return type(self).status

    def inference(self, inputs: list[Float]) -> list[Float] | None:
        if type(self).fails:
            failed: list[Float] | None = type(self).fails(self._outputs)
            return failed
        mel, echo = inputs
        key = np.full((1, FRAMES // 2, WIDTH), mel.sum(), np.float32)
        self._outputs = [key, key + 1, np.concatenate([echo, echo], axis=-1)]
        return self._outputs

    def release(self) -> None:
        pass


@pytest.fixture(autouse=True)
def rknnlite(monkeypatch: pytest.MonkeyPatch) -> type[RKNNLite]:
    api = types.ModuleType("rknnlite.api")
    runtime = type("RKNNLite", (RKNNLite,), {})
    api.RKNNLite = runtime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rknnlite", types.ModuleType("rknnlite"))
    monkeypatch.setitem(sys.modules, "rknnlite.api", api)
    return runtime


@pytest.fixture
def board(tmp_path: Path) -> Path:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_bytes(b"rockchip,rk3588\0")
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/librknnrt.so").touch()
    (tmp_path / "encoder.rknn").write_bytes(b"RKNN")
    return tmp_path


def manifest(board: Path, target: str = "rk3588") -> dict[str, Any]:
    half = [1, FRAMES // 2, WIDTH]
    content = {
        "target": target,
        "toolchain": "2.3.2",
        "sha256": sha256(board / "encoder.rknn"),
        "inputs": {"mel": [1, N_MELS, FRAMES], "echo": [1, 1, 16]},
        "outputs": {"key_0": half, "value_0": half, "echoed": [1, 1, 32]},
    }
    read: dict[str, Any] = json.loads(json.dumps(content))
    return read


def opened(board: Path, cores: tuple[int, ...] = ()) -> Graph:
    return Graph(board, manifest(board), cores=cores, root=board)


MEL = np.ones((N_MELS, FRAMES), np.float32)


def test_the_results_of_each_run(board: Path) -> None:
    graph = opened(board)
    for scale in (1, 2):
        outputs = graph.run(MEL * scale)
        assert list(outputs) == ["key_0", "value_0"]
        np.testing.assert_array_equal(
            outputs["value_0"], np.full((10, WIDTH), 1600 * scale + 1, np.float32)
        )
    graph.close()


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (lambda old: old, "an earlier one"),
        (lambda old: None, "the run gave None"),
        (lambda old: old[:2], "the run gave"),
        (lambda old: [old[0][:, 1:], *old[1:]], "the run gave"),
    ],
)
@pytest.mark.parametrize("runs_before", [0, 1])
def test_a_failed_run_never_gives_results(
    board: Path, rknnlite: type[RKNNLite], fails: Any, expected: str, runs_before: int
) -> None:
    graph = opened(board)
    for _ in range(runs_before):
        graph.run(MEL)
    rknnlite.fails = staticmethod(fails)
    with pytest.raises(DeviceFault, match=expected):
        graph.run(MEL)
    rknnlite.fails = None
    graph.run(MEL)


def test_overflow_is_a_fault(board: Path) -> None:
    with pytest.raises(DeviceFault, match="overflow"):
        opened(board).run(MEL * np.float32(np.nan))


def test_a_window_of_another_length(board: Path) -> None:
    with pytest.raises(DeviceFault, match="mel is"):
        opened(board).run(MEL[:, 1:])


MASKS = [((), 0), ((0,), 1), ((1,), 2), ((2,), 4), ((0, 1), 3), ((0, 1, 2), 7)]


@pytest.mark.parametrize(("cores", "mask"), MASKS)
def test_cores(board: Path, rknnlite: type[RKNNLite], cores: tuple[int, ...], mask: int) -> None:
    opened(board, cores)
    assert rknnlite.mask == mask


@pytest.mark.parametrize("cores", [(0, 2), (0, 1, 2, 3), (3,)])
def test_cores_that_are_not_there(board: Path, cores: tuple[int, ...]) -> None:
    with pytest.raises(DeviceError, match="cannot run on the NPU cores"):
        opened(board, cores)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("init failed: RKNN_ERR_TARGET_PLATFORM_UNMATCH", "another chip"),
        ("Invalid RKNN model version 6\nRKNN_ERR_FAIL", "older than the graph.* 2.3.2"),
        ("RKNN_ERR_DEVICE_UNAVAILABLE", "groups video and render"),
        ("Exception: Please specify the target in init_runtime!", "container"),
        ("undefined symbol: rknn_init", "not the vendor's library"),
        ("first\nlast\n", "opened: last$"),
        ("", "no reason"),
    ],
)
def test_what_the_vendor_says(
    board: Path,
    rknnlite: type[RKNNLite],
    capfd: pytest.CaptureFixture[str],
    says: str,
    expected: str,
) -> None:
    rknnlite.status, rknnlite.says = -1, says
    with pytest.raises(DeviceError, match=expected):
        opened(board)
    assert capfd.readouterr() == ("", "")


def test_stdout_is_given_back(board: Path, capfd: pytest.CaptureFixture[str]) -> None:
    opened(board)
    print("a transcript")
    assert capfd.readouterr().out == "a transcript\n"


def test_another_chip(board: Path) -> None:
    with pytest.raises(DeviceError, match="is for rk3566, this board is rk3588"):
        Graph(board, manifest(board, "rk3566"), root=board)


def test_no_board(board: Path) -> None:
    (board / "proc/device-tree/compatible").unlink()
    with pytest.raises(DeviceError, match="no Rockchip board"):
        opened(board)


def test_no_library(board: Path) -> None:
    (board / "usr/lib/librknnrt.so").unlink()
    with pytest.raises(DeviceError, match=r"/usr/lib/librknnrt.so is missing: .* 2.3.2"):
        opened(board)


def test_a_damaged_file(board: Path) -> None:
    content = manifest(board)
    (board / "encoder.rknn").write_bytes(b"RKN")
    with pytest.raises(DeviceError, match="damaged"):
        Graph(board, content, root=board)
    (board / "encoder.rknn").unlink()
    with pytest.raises(DeviceError, match="cannot be read"):
        Graph(board, content, root=board)


def test_no_rknnlite(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rknnlite.api", None)
    with pytest.raises(DeviceError, match="pip install rknn-toolkit-lite2"):
        opened(board)
