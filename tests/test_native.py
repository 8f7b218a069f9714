"""The kernels for Arm, as a program under qemu-user; and all kernels here with sanitizers."""

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


PRELOADING = """
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

name, path, *arguments = sys.argv[1:]
spec = spec_from_file_location(name, path)
sys.modules[name] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])
sys.exit(pytest.main(arguments))
"""


@pytest.mark.timeout(1800)
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """AddressSanitizer and UBSan under the tests of every kernel in every instruction set here."""
    needs("cmake", "g++")
    python = f"-DPython_EXECUTABLE={sys.executable}"
    (module,) = build(tmp_path, "_native", "-DSANITIZE=ON", python).glob("_native*.so")
    tests = [str(ROOT / "tests" / f"test_{name}.py") for name in ("kernels", "tiles", "cpu")]
    runtimes = [succeeds("g++", f"-print-file-name=lib{name}.so") for name in ("asan", "stdc++")]
    output = succeeds(
        sys.executable, "-c", PRELOADING, "whisper_npu.kernels._native", str(module), *tests,
        "-s", "-p", "no:cacheprovider",
        LD_PRELOAD=" ".join(runtime.strip() for runtime in runtimes),
        ASAN_OPTIONS="detect_leaks=0",  # Python itself leaks
        PYTHONMALLOC="malloc",
    )  # fmt: skip
    assert " passed" in output
