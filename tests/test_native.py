"""The kernels built in other ways: for Arm, under qemu-user; and with sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARM = "aarch64-linux-gnu"


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def succeeds(*command: str, **environment: str) -> str:
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return run.stdout


def build(folder: Path, target: str, *options: str) -> Path:
    succeeds("cmake", "-S", str(ROOT), "-B", str(folder), *options)
    succeeds("cmake", "--build", str(folder), "--target", target, "--parallel", "2")
    return folder


@pytest.fixture(scope="session")
def arm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("cmake", f"{ARM}-g++", "qemu-aarch64")
    folder = build(
        tmp_path_factory.mktemp("arm"),
        "agreement",
        "-DAGREEMENT=ON",
        f"-DCMAKE_CXX_COMPILER={ARM}-g++",
        f"-DCMAKE_C_COMPILER={ARM}-gcc",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )
    return folder / "agreement"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("processor", "best"), [("max", "neon"), ("cortex-a76", "neon"), ("cortex-a72", "portable")]
)
def test_arm_agrees(arm_program: Path, processor: str, best: str) -> None:
    """Cortex-A72 has no dot product: it must get the portable kernels, not a crash."""
    output = succeeds("qemu-aarch64", "-cpu", processor, str(arm_program))
    assert ("neon decoding" in output) == (best == "neon")


@pytest.mark.timeout(900)
def test_kernels_under_sanitizers(tmp_path: Path) -> None:
    """The tests of the kernels once more, with AddressSanitizer and UBSan in them."""
    needs("cmake", "g++")
    build(
        tmp_path / "build",
        "_native",
        "-DSANITIZE=ON",
        "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -fno-math-errno -fno-trapping-math",
        f"-DPython_EXECUTABLE={sys.executable}",
    )
    package = tmp_path / "whisper_npu"
    shutil.copytree(ROOT / "whisper_npu", package, ignore=shutil.ignore_patterns("_native*.so"))
    (module,) = (tmp_path / "build").glob("_native*.so")
    shutil.copy(module, package / "kernels")
    runtime = succeeds("g++", "-print-file-name=libasan.so").strip()
    report = succeeds(
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider",
        "-o", f"pythonpath={tmp_path} tests scripts",
        *(str(ROOT / "tests" / f"test_{part}.py") for part in ("kernels", "tiles", "cpu")),
        LD_PRELOAD=runtime, ASAN_OPTIONS="detect_leaks=0",  # Python itself leaks
    )  # fmt: skip
    assert "passed" in report
