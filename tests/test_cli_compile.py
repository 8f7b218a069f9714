"""whisper-npu compile from the command line: its errors; test_vendor.py has a build."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def compile_(cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "whisper_npu", "compile", *map(str, arguments)]
    own = {"WHISPER_NPU_CACHE": str(cache), "XDG_CONFIG_HOME": str(cache)}
    return subprocess.run(
        command, env=os.environ | own, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--target", "rk3399"], 2, "--target: 'rk3399' is not one of rk3588"),
        (["--target", "rk3588", "--window", "30;20"], 2, "'30;20' is not a whole number"),
        (["--target", "rk3588", "--toolchain-python", "/nowhere/python"], 6, "cannot be started"),
        (["--target", "rk3588", "--toolchain-python", sys.executable], 6, "has no rknn-toolkit2"),
        (["--target", "rk3588", "--audio", "/nowhere.wav"], 4, "/nowhere.wav"),
    ],
)
def test_one_line_and_a_code(
    random_model: Callable[[str], Path],
    tmp_path: Path,
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    done = compile_(tmp_path, random_model("micro"), *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr


def test_no_model(tmp_path: Path) -> None:
    done = compile_(tmp_path, tmp_path / "nothing", "--target", "rk3588")
    assert done.returncode == 5
    assert "no model folder" in done.stderr
