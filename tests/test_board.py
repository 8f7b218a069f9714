"""The NPU of boards played by folders: what is found, and the command that mends it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import boards
import pytest

from whisper_npu.graphs import readiness
from whisper_npu.rknpu.board import examine, obstacle

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.machine import Finding, Machine


def _findings(machine: Machine, library: Path | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(machine, library)}


def _statuses(machine: Machine) -> dict[str, str]:
    return {finding.name: finding.status for finding in examine(machine)}


def test_an_orange_pi_in_order(tmp_path: Path) -> None:
    machine = boards.orange_pi_5(tmp_path)
    found = _findings(machine)
    assert set(_statuses(machine).values()) == {"pass"}
    assert found["chip"].message == "RK3588S with an NPU of 3 cores, on Orange Pi 5"
    assert found["NPU driver"].message == "vendor driver rknpu 0.9.8"
    assert found["permission"].message == "/dev/dri/card1 and /dev/dri/renderD129 may be used"
    assert found["librknnrt"].message == f"2.3.2 in {tmp_path}/usr/lib/librknnrt.so"
    assert found["NPU clock"].message == "1000 of 1000 MHz, governor rknpu_ondemand"
    assert obstacle(machine) == ""


def test_armbian_as_installed(tmp_path: Path) -> None:
    machine = boards.armbian(tmp_path)
    found = _findings(machine)
    assert _statuses(machine) == {
        "chip": "pass",
        "NPU driver": "pass",
        "permission": "fail",
        "librknnrt": "fail",
        "NPU clock": "pass",
        "memory clock": "warn",
    }
    assert "sudo cat" in found["NPU driver"].message  # its version is root's to read
    assert found["permission"].fix == "sudo usermod -aG render $USER, then log in again"
    assert found["librknnrt"].fix.startswith("sudo curl -L -o /usr/lib/librknnrt.so https://")
    fix = "echo performance | sudo tee /sys/class/devfreq/dmc/governor"
    assert found["memory clock"].fix == fix
    assert obstacle(machine).startswith(
        "you may not use /dev/dri/card0 (group render, mode 660), "
        "/dev/dri/renderD128 (group render, mode 660); sudo usermod -aG render $USER"
    )


def test_mainline_has_a_driver_that_does_not_help(tmp_path: Path) -> None:
    machine = boards.mainline(tmp_path)
    found = _findings(machine)
    assert found["NPU driver"].status == "fail"
    assert "rocket" in found["NPU driver"].message
    assert "vendor kernel" in found["NPU driver"].fix
    assert "w568w/rknpu-module" in found["NPU driver"].fix
    assert "permission" not in found  # of what?


def test_a_board_with_the_npu_switched_off(tmp_path: Path) -> None:
    found = _findings(boards.zero_3(tmp_path))
    assert found["chip"].message == "RK3566 with an NPU of one core, on Radxa ZERO 3"
    assert found["NPU driver"].status == "fail"
    assert "rk3568-npu-enable" in found["NPU driver"].fix
    (tmp_path / "proc/device-tree/npu@fde40000/status").write_bytes(b"okay\0")
    found = _findings(boards.zero_3(tmp_path / "without"))
    assert "rk3568-npu-enable" in found["NPU driver"].fix


def test_a_kernel_without_a_driver(tmp_path: Path) -> None:
    machine = boards.zero_3(tmp_path)
    (tmp_path / "proc/device-tree/npu@fde40000/status").write_bytes(b"okay\0")
    driver = _findings(machine)["NPU driver"]
    assert driver.status == "fail"
    assert driver.message == "the kernel (6.1.75-vendor-rk35xx) has no driver for the NPU"


def test_docker_that_hides_the_board(tmp_path: Path) -> None:
    (chip,) = examine(boards.docker(tmp_path, device=False))
    assert chip.status == "fail"
    assert "--security-opt systempaths=unconfined" in chip.fix
    assert "--device /dev/dri" in chip.fix


def test_docker_that_was_given_the_device(tmp_path: Path) -> None:
    """The driver's node names the chip."""
    machine = boards.docker(tmp_path, device=True)
    assert set(_statuses(machine).values()) == {"pass"}
    (tmp_path / "dev/dri/renderD129").unlink()
    assert "--device /dev/dri" in obstacle(machine)


def test_a_pc_has_none(tmp_path: Path) -> None:
    (chip,) = examine(boards.pc(tmp_path))
    assert (chip.name, chip.status) == ("chip", "fail")
    assert "--emulate rk3588" in chip.fix


# Single faults on a board that is in order


@pytest.mark.parametrize(
    ("version", "status"), [("0.8.2", "warn"), ("0.9.3", "warn"), ("0.9.6", "pass")]
)
def test_driver_versions(tmp_path: Path, version: str, status: str) -> None:
    driver = _findings(boards.orange_pi_5(tmp_path, driver=version))["NPU driver"]
    assert driver.status == status
    assert version in driver.message


@pytest.mark.parametrize(
    ("version", "status"),
    [("1.6.0", "fail"), ("2.0.0b0", "warn"), ("2.2.0", "warn"), ("2.3.2", "pass"), ("3.1", "pass")],
)
def test_library_versions(tmp_path: Path, version: str, status: str) -> None:
    machine = boards.orange_pi_5(tmp_path)
    boards.library(tmp_path, version)
    library = _findings(machine)["librknnrt"]
    assert library.status == status
    assert version in library.message


def test_a_library_elsewhere(tmp_path: Path) -> None:
    machine = boards.orange_pi_5(tmp_path)
    (tmp_path / "usr/lib/librknnrt.so").unlink()
    boards.library(tmp_path, name="usr/local/lib/librknnrt.so")
    assert "usr/local/lib" in _findings(machine)["librknnrt"].message
    boards.library(tmp_path, "2.4.0", name="opt/librknnrt.so")
    given = tmp_path / "opt/librknnrt.so"
    assert _findings(machine, given)["librknnrt"].message == f"2.4.0 in {given}"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", "fail"),
        (b"<!DOCTYPE html>" + bytes(100), "fail"),  # the page around a download
        (boards.ELF[:18] + b"\x3e\0" + b"librknnrt version: 2.3.2", "fail"),  # for a PC
        (b"\x7fELF\x01" + boards.ELF[5:] + b"librknnrt version: 2.3.2", "fail"),  # 32 bits
        (boards.ELF, "warn"),
    ],
)
def test_files_that_are_no_library(tmp_path: Path, content: bytes, status: str) -> None:
    machine = boards.orange_pi_5(tmp_path)
    (tmp_path / "usr/lib/librknnrt.so").write_bytes(content)
    assert _findings(machine)["librknnrt"].status == status


@pytest.mark.parametrize(("mode", "fix"), [(0o600, "tee /etc/udev"), (0o660, "usermod -aG render")])
def test_node_permissions(tmp_path: Path, mode: int, fix: str) -> None:
    machine = replace(boards.orange_pi_5(tmp_path), **boards.OUTSIDER)
    node = tmp_path / "dev/dri/renderD129"
    node.chmod(mode)
    (tmp_path / "dev/dri/card1").chmod(0o666)
    permission = _findings(machine)["permission"]
    assert permission.status == "fail"
    assert fix in permission.fix
    node.chmod(0o666)
    assert _findings(machine)["permission"].status == "pass"


def test_both_nodes_are_looked_at(tmp_path: Path) -> None:
    """The card belongs to video, the render node to render, and librknnrt opens either."""
    machine = replace(boards.orange_pi_5(tmp_path), **boards.OUTSIDER)
    (tmp_path / "dev/dri/renderD129").chmod(0o666)
    permission = _findings(machine)["permission"]
    assert permission.message == "you may not use /dev/dri/card1 (group render, mode 660)"
    if os.getuid() == 0:
        os.chown(tmp_path / "dev/dri/card1", -1, 99999)
        (tmp_path / "dev/dri/renderD129").chmod(0o660)
        fix = _findings(machine)["permission"].fix
        assert fix == "sudo usermod -aG audio,render $USER, then log in again"


@pytest.mark.parametrize(
    ("status", "kilobytes", "says"),
    [
        ("disabled", 2_000_000, "without its IOMMU and reaches about 12 MB"),
        ("okay", 8_000_000, "knows 4 GB and this board has more"),
        ("okay", 4_000_000, ""),
    ],
)
def test_memory_of_an_rk3566(tmp_path: Path, status: str, kilobytes: int, says: str) -> None:
    machine = boards.zero_3(tmp_path)
    unit = tmp_path / "proc/device-tree/iommu@fde4b000"
    unit.mkdir()
    (unit / "status").write_bytes(f"{status}\0".encode())
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {kilobytes} kB")
    found = _findings(machine)
    assert ("NPU memory" in found) == bool(says)
    if says:
        assert says in found["NPU memory"].message


def test_a_member_whose_group_may_not(tmp_path: Path) -> None:
    machine = boards.orange_pi_5(tmp_path)
    (tmp_path / "dev/dri/renderD129").chmod(0o640)
    assert _findings(machine)["permission"].status == "fail"
    assert _findings(replace(machine, uid=os.getuid()))["permission"].status == "pass"
    assert _findings(replace(machine, uid=0))["permission"].status == "pass"


def test_a_link_that_misleads_the_library(tmp_path: Path) -> None:
    machine = boards.orange_pi_5(tmp_path)
    (tmp_path / "dev/rknpu").symlink_to("dri/renderD129")
    permission = _findings(machine)["permission"]
    assert (permission.status, permission.fix) == ("warn", "sudo rm /dev/rknpu")


def test_a_kernel_with_the_older_node(tmp_path: Path) -> None:
    machine = boards.zero_3(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/rknpu").touch()
    (tmp_path / "dev/rknpu").chmod(0o660)
    found = _findings(machine)
    assert found["NPU driver"].status == "pass"
    assert found["permission"].message == "/dev/rknpu may be used"


def test_a_parked_clock(tmp_path: Path) -> None:
    machine = boards.orange_pi_5(tmp_path, npu=300)
    clock = _findings(machine)["NPU clock"]
    assert clock.status == "warn"
    assert clock.message == "300 of 1000 MHz, governor rknpu_ondemand"
    assert clock.fix == "echo performance | sudo tee /sys/class/devfreq/fdab0000.npu/governor"
    (tmp_path / "sys/class/devfreq/fdab0000.npu/governor").write_text("performance\n")
    assert _findings(machine)["NPU clock"].status == "pass"


# Graphs: the vendor's other road


def _compile(folder: Path, target: str, toolchain: str = "2.3.2", n_bytes: int = 4) -> None:
    folder.mkdir(parents=True)
    (folder / "encoder.rknn").write_bytes(b"RKNN")
    manifest = {
        "target": target, "toolchain": toolchain, "bytes": n_bytes, "precision": "fp16",
        "window": 30,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_graphs_of_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = boards.orange_pi_5(tmp_path / "board")
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache/graphs"
    assert readiness.examine(machine).status == "pass"
    assert "no graph is compiled" in readiness.examine(machine).message
    _compile(folder / "other", "rk3566")
    found = readiness.examine(machine)
    assert (found.status, found.fix.split(",")[0]) == (
        "warn", "whisper-npu compile base --target rk3588",
    )  # fmt: skip
    assert "are for rk3566" in found.message
    _compile(folder / "mine", "rk3588")
    assert readiness.examine(machine).message.endswith("1 compiled for rk3588: fp16 30 s")
    _compile(folder / "newer", "rk3588", "2.10.0")
    assert "is 2.3.2, older than a graph made by 2.10.0" in readiness.examine(machine).message
    _compile(folder / "part", "rk3588", n_bytes=5)
    assert "part/encoder.rknn is not as long" in readiness.examine(machine).message


def test_graphs_need_the_library_in_its_one_place(tmp_path: Path) -> None:
    machine = boards.orange_pi_5(tmp_path)
    library = machine.root / "usr/lib/librknnrt.so"
    (machine.root / "usr/local/lib").mkdir(parents=True)
    library.rename(machine.root / "usr/local/lib/librknnrt.so")
    fix = readiness.examine(machine).fix
    assert fix == f"sudo ln -s {tmp_path}/usr/local/lib/librknnrt.so /usr/lib/librknnrt.so"
