"""`graphs.runtime` over the vendor's RKNNLite in an arm64 Debian; `scripts/check-arm64` runs it.

Every run has its own chip, library and stand-in behaviour; nothing here is a board.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from whisper_npu.cache import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(os.environ.get("WHISPER_NPU_ARM64_ROOT", "/nowhere"))
INPUTS = {"mel": [1, 80, 200], "echo": [1, 1, 16]}
OUTPUTS = {"key_0": [1, 100, 64], "value_0": [1, 100, 64], "echoed": [1, 1, 32]}

pytestmark = pytest.mark.skipif(
    not (ROOT / "complete").exists(), reason="scripts/check-arm64 makes the arm64 Debian"
)


@pytest.fixture(autouse=True)
def board() -> Iterator[None]:
    """An RK3588 board with a graph and a library, as a folder."""
    graph, tree, library = (ROOT / p for p in ("opt/graph", "proc/device-tree", "usr/lib"))
    for folder in (graph, tree):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"vendor,board\0rockchip,rk3588s\0rockchip,rk3588\0")
    shutil.copy(ROOT / "opt/librknnrt.so", library)
    (graph / "encoder.rknn").write_bytes(b"RKNN" + bytes(1000))
    write_manifest()
    yield
    (library / "librknnrt.so").unlink(missing_ok=True)


def write_manifest(target: str = "rk3588") -> None:
    manifest = {
        "target": target,
        "toolchain": "2.3.2",
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "sha256": sha256(ROOT / "opt/graph/encoder.rknn"),
    }
    (ROOT / "opt/graph/manifest.json").write_text(json.dumps(manifest))


def drive(n_cores: int = 1, n_runs: int = 1, **standin: str) -> list[str]:
    """The lines that tests/arm64/drive.py prints on stdout."""

    def shapes(named: dict[str, list[int]]) -> str:
        return " ".join("x".join(map(str, shape)) for shape in named.values())

    environment = {
        "PATH": "/usr/bin",
        "PYTHONPATH": "/opt/project:/opt/packages",
        "STANDIN_INPUTS": shapes(INPUTS),
        "STANDIN_OUTPUTS": shapes(OUTPUTS),
    }
    environment |= {f"STANDIN_{name}": value for name, value in standin.items()}
    python = ["/usr/bin/qemu-aarch64-static", "/usr/bin/python3.11", "/opt/project/drive.py"]
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin") or "chroot"
    done = subprocess.run(
        [chroot, str(ROOT), *python, "/opt/graph", str(n_cores), str(n_runs)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_load_and_run() -> None:
    *runs, size = drive(n_runs=3)
    assert runs == ["ok"] * 3
    assert size.startswith("size: DeviceFault")
    assert "(1, 80, 199)" in size


def test_three_cores() -> None:
    assert drive(n_cores=3)[0] == "ok"


def test_a_failed_run_that_rknnlite_hides() -> None:
    first, second, third, _ = drive(n_runs=3, FAILING_RUN="2")
    assert (first, third) == ("ok", "ok")
    assert second.startswith("run: DeviceFault")
    assert "an earlier one" in second


def test_a_first_run_that_fails() -> None:
    assert "an earlier one" in drive(FAILING_RUN="1")[0]


@pytest.mark.parametrize(
    ("status", "says", "expected"),
    [
        ("-13", "", "compiled for another chip"),
        ("-6", "", "does not accept the file"),
        ("-3", "", "driver cannot be opened"),
        ("-1", "E RKNN: failed to open rknpu module, need to insmod rknpu dirver!", "driver"),
        ("-1", "E RKNN: Invalid RKNN model version 6", "older than the graph: update it to 2.3.2"),
        ("-4", "", "ERR_MALLOC_FAIL"),
    ],
)
def test_a_library_that_refuses(status: str, says: str, expected: str) -> None:
    (line,) = drive(INIT=status, SAYS=says)
    assert line.startswith("open: DeviceError")
    assert expected in line


def test_no_library() -> None:
    (ROOT / "usr/lib/librknnrt.so").unlink()
    (line,) = drive()
    assert "librknnrt.so is missing" in line


def test_a_library_without_the_functions() -> None:
    (ROOT / "usr/lib/librknnrt.so").write_bytes(b"not a library")
    (line,) = drive()
    assert line.startswith("open: DeviceError")


def test_another_chip() -> None:
    write_manifest(target="rk3566")
    (line,) = drive()
    assert "for rk3566, this board is rk3588: compile it with --target rk3588" in line


def test_no_rockchip_board() -> None:
    (ROOT / "proc/device-tree/compatible").write_bytes(b"raspberrypi,4-model-b\0")
    (line,) = drive()
    assert "no Rockchip board" in line


def test_too_many_cores() -> None:
    (ROOT / "proc/device-tree/compatible").write_bytes(b"rockchip,rk3566\0")
    write_manifest(target="rk3566")
    (line,) = drive(n_cores=3)
    assert "cores 0, 1, 2 of rk3566, which has 1" in line


def test_a_damaged_file() -> None:
    (ROOT / "opt/graph/encoder.rknn").write_bytes(b"RKNN, cut short")
    (line,) = drive()
    assert "damaged" in line
