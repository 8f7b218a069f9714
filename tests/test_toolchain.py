"""The toolchain's environment and its pipe, without the vendor's packages."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

import pytest

from whisper_npu.errors import DeviceError
from whisper_npu.graphs import toolchain
from whisper_npu.graphs.toolchain import REQUIREMENTS, Toolchain, environment


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_python(tmp_path: Path, body: str) -> Path:
    """A program in place of the toolchain's Python."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, signal\n{body}\n")
    path.chmod(0o755)
    return path


ANSWER = """
for line in sys.stdin:
    request = json.loads(line)
    if request["call"] == "version":
        print(json.dumps({"version": "9.9"}), flush=True)
    elif request["call"] == "simulate":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        print(json.dumps({"error": "ValueError: " + request["target"]}), flush=True)
"""


def test_requirements_are_pinned() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line[:1] not in ("", "#")]
    assert all("==" in line for line in lines)
    assert "rknn-toolkit2==2.3.2" in lines
    assert not any(line.startswith("torch") for line in lines)


def test_an_environment_that_is_complete_is_taken(cache_folder: Path) -> None:
    key = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = cache_folder / f"toolchain-{key}"
    folder.mkdir(parents=True)
    (folder / "complete").touch()
    assert environment(pytest.fail) == folder / "bin" / "python"


def test_an_install_that_fails_is_not_complete(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "print('Collecting it (from far away)'); print('no such package'); sys.exit(1)"
    monkeypatch.setattr(toolchain, "_base_python", lambda: str(fake_python(tmp_path, body)))
    said: list[str] = []
    with pytest.raises(DeviceError, match="no such package; is the disk full"):
        environment(said.append)
    assert said[-1] == "Collecting it"
    assert not list(cache_folder.glob("*/complete"))


def test_a_python_the_vendor_has_no_wheel_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "PYTHONS", ((2, 7),))
    with pytest.raises(DeviceError, match=r"needs one of python2.7, .* --toolchain-python"):
        environment(lambda _: None)


def test_a_machine_the_vendor_has_nothing_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(DeviceError, match="on riscv64"):
        environment(lambda _: None)


def test_a_python_without_the_toolchain(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"has no rknn-toolkit2: .*PackageNotFoundError"):
        Toolchain(Path(sys.executable), tmp_path / "log")


def test_no_python_at_all(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be started: No such file"):
        Toolchain(tmp_path / "python", tmp_path / "log")


def test_errors_and_death(tmp_path: Path) -> None:
    chain = Toolchain(fake_python(tmp_path, ANSWER), tmp_path / "log")
    try:
        assert chain.version == "9.9"
        with pytest.raises(DeviceError, match=r"build: ValueError: rk3588; see .*log"):
            chain.build(tmp_path / "x.onnx", "rk3588")
        for _ in range(2):
            with pytest.raises(DeviceError, match=r"ended during simulate \(code -9"):
                chain.simulate([])
    finally:
        chain.close()
    assert not chain.scratch.exists()


def test_an_export_that_fails(tmp_path: Path) -> None:
    chain = Toolchain(
        fake_python(tmp_path, f"sys.exit('no onnx') if 'export' in sys.argv[2] else 0\n{ANSWER}"),
        tmp_path / "log",
    )
    try:
        with pytest.raises(DeviceError, match="as ONNX: no onnx"):
            chain.export({}, {"kind": "encoder"})
    finally:
        chain.close()
