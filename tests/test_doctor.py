"""The verdict over machines played by folders, and the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boards
import pytest
from typer.testing import CliRunner

from whisper_npu import kernels, sources
from whisper_npu.cli import app
from whisper_npu.doctor import diagnose
from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from whisper_npu.catalogue import KnownModel
    from whisper_npu.doctor import Diagnosis
    from whisper_npu.machine import Finding


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is on this machine."""
    monkeypatch.setattr(sources, "here", lambda _model: None)


def _named(report: Diagnosis, name: str) -> Finding:
    (found,) = (f for f in [*report.npu, *report.rest] if f.name == name)
    return found


@pytest.mark.parametrize(
    ("board", "auto", "npu", "cpu"),
    [
        (boards.orange_pi_5, 0, 0, 0),
        (boards.armbian, 6, 6, 0),
        (boards.mainline, 6, 6, 0),
        (boards.zero_3, 6, 6, 0),
        (boards.pc, 0, 6, 0),
    ],
)
def test_exit_codes(tmp_path: Path, board: Any, auto: int, npu: int, cpu: int) -> None:
    """A machine without an NPU is in order unless one is asked for."""
    machine = board(tmp_path)
    assert diagnose(machine).exit_code == auto
    assert diagnose(machine, device="npu").exit_code == npu
    assert diagnose(machine, device="cpu").exit_code == cpu


def test_docker(tmp_path: Path) -> None:
    hidden = boards.docker(tmp_path / "hidden", device=False)
    assert diagnose(hidden).exit_code == 0  # it may be no Rockchip board at all
    assert _named(diagnose(hidden), "chip").status == "warn"
    assert diagnose(hidden, device="npu").exit_code == 6
    assert diagnose(boards.docker(tmp_path / "seen", device=True), device="npu").exit_code == 0


def test_verdicts(tmp_path: Path) -> None:
    board, pc = boards.orange_pi_5(tmp_path / "board"), boards.pc(tmp_path / "pc")
    assert diagnose(board).verdict == "CPU: ready. NPU: ready."
    assert diagnose(board, device="cpu").verdict == "CPU: ready. NPU: left out."
    assert diagnose(pc).verdict == "CPU: ready. NPU: none."
    assert diagnose(pc, device="npu").verdict == "CPU: ready. NPU: not ready, 1 to mend."
    arm = boards.mainline(tmp_path / "arm")
    assert diagnose(arm).verdict == "CPU: ready. NPU: not ready, 2 to mend."
    hidden = boards.docker(tmp_path / "hidden", device=False)
    assert diagnose(hidden).verdict == "CPU: ready. NPU: unknown."


def test_the_rest_of_a_board(tmp_path: Path) -> None:
    report = diagnose(boards.orange_pi_5(tmp_path))
    assert _named(report, "system").message == "Linux 6.1.43-rockchip-rk3588, aarch64"
    assert _named(report, "processor").message == "up to 2.35 GHz, governor schedutil"
    assert _named(report, "memory").message == "7.2 GB free of 8.3 GB"
    assert _named(report, "temperature").message == "43 °C at the hottest place"
    assert _named(report, "graphs").message.startswith("rknn-toolkit-lite2 2.3.2")
    assert _named(report, "model").fix == "whisper-npu models pull base"


def _write(root: Path, name: str, content: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "file", "content", "fix"),
    [
        ("temperature", "sys/class/thermal/thermal_zone1/temp", "86000", "cool the board"),
        ("memory", "proc/meminfo", "MemTotal: 999000 kB\nMemAvailable: 90000 kB", "model tiny"),
        ("memory", "sys/fs/cgroup/memory.max", "268435456", "model tiny"),
        (
            "processor",
            "sys/devices/system/cpu/cpufreq/policy4/scaling_governor",
            "powersave",
            "echo performance | sudo tee /sys/devices/system/cpu",
        ),
    ],
)
def test_what_slows_a_board(tmp_path: Path, name: str, file: str, content: str, fix: str) -> None:
    machine = boards.orange_pi_5(tmp_path)
    _write(tmp_path, file, content)
    found = _named(diagnose(machine), name)
    assert found.status == "warn"
    assert fix in found.fix


def test_powersave_means_something_else_to_intel(tmp_path: Path) -> None:
    machine = boards.pc(tmp_path)
    for policy in (tmp_path / "sys/devices/system/cpu/cpufreq").iterdir():
        (policy / "scaling_governor").write_text("powersave")
        (policy / "scaling_driver").write_text("intel_pstate")
    assert _named(diagnose(machine), "processor").status == "pass"


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    report = diagnose(replace(boards.pc(tmp_path), root=tmp_path / "nothing"))
    assert not {"memory", "temperature", "processor"} & {f.name for f in report.rest}
    assert report.exit_code == 0


def test_a_32_bit_system(tmp_path: Path) -> None:
    machine = replace(boards.orange_pi_5(tmp_path), architecture="armv7l")
    system = _named(diagnose(machine, device="cpu"), "system")
    assert system.status == "fail"
    assert "64-bit" in system.fix
    assert diagnose(machine, device="cpu").exit_code == 1


@pytest.mark.parametrize(
    ("python", "packages", "status", "says"),
    [
        ((3, 12), {"rknn-toolkit-lite2": "2.3.2"}, "pass", "rknn-toolkit-lite2 2.3.2"),
        ((3, 12), {}, "warn", "is not installed"),
        ((3, 12), {"rknn-toolkit2": "2.3.2"}, "warn", "the one for PCs"),
        ((3, 13), {}, "warn", "no wheel for this Python"),
    ],
)
def test_the_vendors_wheel(
    tmp_path: Path, python: tuple[int, int], packages: dict[str, str], status: str, says: str
) -> None:
    machine = replace(boards.orange_pi_5(tmp_path), python=python, packages=packages)
    graphs = _named(diagnose(machine), "graphs")
    assert graphs.status == status
    assert says in graphs.message


def test_pythons(tmp_path: Path) -> None:
    machine = boards.pc(tmp_path)
    assert _named(diagnose(machine), "python").status == "pass"
    assert _named(diagnose(replace(machine, python=(3, 14))), "python").status == "warn"


def test_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "status", lambda: kernels.Status((), "no compiled kernels"))
    found = _named(diagnose(boards.pc(tmp_path)), "native code")
    assert (found.status, found.fix[:21]) == ("warn", "sudo apt install g++ ")
    monkeypatch.setattr(kernels, "status", lambda: kernels.Status(("dotprod", "neon"), ""))
    assert _named(diagnose(boards.pc(tmp_path)), "native code").message == "compiled, using dotprod"


def test_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    machine = boards.pc(tmp_path)
    assert _named(diagnose(machine), "formats").status == "pass"  # PyAV
    found = _named(diagnose(replace(machine, packages={})), "formats")
    assert (found.status, found.fix) == ("warn", "sudo apt install ffmpeg")


def test_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    found = _named(diagnose(boards.orange_pi_5(tmp_path)), "open files")
    assert (found.status, found.fix) == ("warn", "ulimit -n 4096")


# Models


def test_a_model_that_must_be_here(tmp_path: Path, random_model: Callable[[str], Path]) -> None:
    machine = boards.pc(tmp_path)
    report = diagnose(machine, model="base")
    assert report.exit_code == 5
    assert _named(report, "model").message == "base is not on this machine"
    assert _named(report, "model").fix == "whisper-npu models pull base"
    folder = random_model("micro")
    assert _named(diagnose(machine, model=str(folder)), "model").status == "pass"


def test_a_damaged_model(
    tmp_path: Path, random_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_model("micro"), folder)
    here = {"tiny": random_model("micro"), "base": folder}
    monkeypatch.setattr(sources, "here", lambda model: here.get(model.name))
    machine = boards.pc(tmp_path / "pc")
    assert _named(diagnose(machine), "model").message == "tiny, base"
    (folder / "model.safetensors").write_bytes(b"damaged")
    report = diagnose(machine)
    assert report.exit_code == 5
    assert _named(report, "model").fix == "whisper-npu models verify --repair base"
    here.clear()
    assert _named(diagnose(machine), "model").message == "there is none on this machine"


def test_a_package_with_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(model: KnownModel) -> Path | None:
        if model.name == "tiny.en":
            raise ModelError("model.bin is not that of the package")
        return None

    monkeypatch.setattr(sources, "here", here)
    report = diagnose(boards.pc(tmp_path))
    assert report.exit_code == 5
    assert _named(report, "model").fix == "whisper-npu models verify tiny.en"


# The command


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = boards.armbian(tmp_path)
    monkeypatch.setattr("whisper_npu.machine.Machine", lambda: machine)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 6
    assert (
        "fail  permission   you may not use /dev/dri/card0 (group render, mode 660)" in done.stdout
    )
    assert "-> sudo usermod -aG render $USER" in done.stdout
    assert done.stdout.endswith("CPU: ready. NPU: not ready, 2 to mend.\n")
    assert "\x1b" not in done.stdout  # colours are for terminals


def test_the_command_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = boards.armbian(tmp_path)
    monkeypatch.setattr("whisper_npu.machine.Machine", lambda: machine)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 6
    said = json.loads(done.stdout)
    assert (said["npu_ready"], said["exit_code"]) == (False, 6)
    failed = [finding for finding in said["findings"] if finding["status"] == "fail"]
    assert [finding["name"] for finding in failed] == ["permission", "librknnrt"]
    assert all(finding["fix"] and finding["about"] == "npu" for finding in failed)


TRIALS = [
    ("late_evict,view_nosync", 0, ["pass  trial ", "products on one core against numpy", ": all"]),
    ("refuse=16", 0, ["warn  trial, scores", "attention's scores are float32"]),
    (
        "wrong=100x256x0",
        0,
        ["warn  trial, layers", "fc2 and 1 more: wrong numbers (off by 1.0e+00)"],
    ),
    ("wrong=0x0x0", 6, ["fail  trial ", "multiplies nothing right: wrong numbers"]),
    ("wrong=100x64x0@1", 0, ["warn  trial, cores", "core 1 is left out, at 100x64x"]),
]


@pytest.mark.parametrize(("manners", "code", "says"), TRIALS)
def test_the_trial_of_an_emulated_npu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_model: Callable[[str], Path],
    manners: str, code: int, says: list[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path))
    monkeypatch.setenv("WHISPER_NPU_EMULATOR", manners)
    model, chip = str(random_model("short")), "rk3588" if "@" in manners else "rk3566"
    done = CliRunner().invoke(app, ["doctor", "--emulate", chip, "--model", model])
    assert all(word in done.stdout for word in says), done.output or done.exception
    assert done.exit_code == code
    assert f"emulated {chip}: nothing here says anything of a board" in done.stdout
    assert "Emulated NPU: " in done.stdout.splitlines()[-1]


def test_an_unknown_device() -> None:
    done = CliRunner().invoke(app, ["doctor", "--device", "gpu"])
    assert done.exit_code == 2
    assert "'gpu' is not one of auto, cpu, npu" in done.stderr


def test_this_machine() -> None:
    """Whatever it is, nothing crashes."""
    done = CliRunner().invoke(app, ["doctor", "--device", "npu"])
    assert done.exit_code in (0, 6)
    assert done.stdout.splitlines()[-1].startswith("CPU: ")
