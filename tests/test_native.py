"""The kernels as a program of their own: built for Arm, under qemu-user."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARM = "aarch64-linux-gnu"


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def built(folder: Path, *options: str) -> Path:
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DAGREEMENT=ON", *options]
    for command in (
        configure,
        ["cmake", "--build", str(folder), "--target", "agreement", "--parallel"],
    ):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
    return folder / "agreement"


def assert_agrees(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stdout


@pytest.fixture(scope="session")
def arm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("cmake", f"{ARM}-g++", "qemu-aarch64")
    return built(
        tmp_path_factory.mktemp("arm"),
        f"-DCMAKE_CXX_COMPILER={ARM}-g++",
        f"-DCMAKE_C_COMPILER={ARM}-gcc",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("processor", "best"), [("max", "neon"), ("cortex-a76", "neon"), ("cortex-a72", "portable")]
)
def test_arm_agrees(arm_program: Path, processor: str, best: str) -> None:
    """Cortex-A72 has no dot product: it must get the portable kernels, not a crash."""
    output = assert_agrees("qemu-aarch64", "-cpu", processor, str(arm_program))
    assert ("neon decoding" in output) == (best == "neon")
