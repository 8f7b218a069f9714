"""Machines played by folders: what the kernels of some boards show below /proc, /sys and /dev.

Put together from what users of these boards posted; none was at hand.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from whisper_npu.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

GROUP = os.getgid()  # whatever a test creates belongs to this group; boards call it render
OUTSIDER: dict[str, Any] = {"uid": os.getuid() + 1, "gids": frozenset([GROUP + 1])}
MEMBER: dict[str, Any] = {"uid": os.getuid() + 1, "gids": frozenset([GROUP])}
ELF = b"\x7fELF\x02" + bytes(13) + b"\xb7\0" + bytes(100)


def _write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())


def _common(root: Path) -> None:
    meminfo = "MemTotal:        8064000 kB\nMemFree: 100 kB\nMemAvailable:    7000000 kB"
    policy = "sys/devices/system/cpu/cpufreq/policy"
    _write(
        root,
        {
            "proc/meminfo": meminfo,
            "etc/group": f"audio:x:99999:\nrender:x:{GROUP}:\nroot:x:0:",
            "sys/class/thermal/thermal_zone0/temp": "41615",
            "sys/class/thermal/thermal_zone5/temp": "43461",
            f"{policy}0/scaling_governor": "schedutil",
            f"{policy}0/cpuinfo_max_freq": "1800000",
            f"{policy}4/scaling_governor": "schedutil",
            f"{policy}4/cpuinfo_max_freq": "2352000",
        },
    )


def _tree(root: Path, model: str, *names: str) -> None:
    compatible = b"".join(name.encode() + b"\0" for name in names)
    files = {"model": f"{model}\0".encode(), "compatible": compatible}
    _write(root, {f"proc/device-tree/{name}": content for name, content in files.items()})


def _vendor_driver(root: Path, version: str, node: int = 129) -> None:
    """Which of the two nodes is the NPU's depends on which driver came first."""
    npu = "DRIVER=RKNPU\nOF_NAME=npu\nOF_COMPATIBLE_0=rockchip,rk3588-rknpu\nOF_COMPATIBLE_N=1"
    display = "DRIVER=rockchip-drm\nOF_COMPATIBLE_0=rockchip,display-subsystem"
    _write(
        root,
        {
            f"sys/class/drm/card{node - 128}/device/uevent": npu,
            f"sys/class/drm/renderD{node}/device/uevent": npu,
            f"sys/class/drm/renderD{257 - node}/device/uevent": display,
            "sys/kernel/debug/rknpu/version": f"RKNPU driver: v{version}",
            f"dev/dri/renderD{node}": b"",
            f"dev/dri/card{node - 128}": b"",
            f"dev/dri/renderD{257 - node}": b"",
        },
    )
    for name in (f"renderD{node}", f"card{node - 128}"):
        (root / f"dev/dri/{name}").chmod(0o660)


def _clocks(root: Path, npu: int = 1000, memory: int = 2112) -> None:
    steps = "300000000 400000000 500000000 600000000 700000000 800000000 900000000 1000000000"
    _write(
        root,
        {
            "sys/class/devfreq/fdab0000.npu/available_frequencies": steps,
            "sys/class/devfreq/fdab0000.npu/cur_freq": f"{npu}000000",
            "sys/class/devfreq/fdab0000.npu/governor": "rknpu_ondemand",
            "sys/class/devfreq/dmc/available_frequencies": "528000000 1068000000 2112000000",
            "sys/class/devfreq/dmc/cur_freq": f"{memory}000000",
            "sys/class/devfreq/dmc/governor": "dmc_ondemand",
        },
    )


def library(root: Path, version: str = "2.3.2", name: str = "usr/lib/librknnrt.so") -> None:
    text = f"librknnrt version: {version} (429f97ae6b@2025-04-09T09:09:27)".encode()
    _write(root, {name: ELF + text + bytes(50)})


def orange_pi_5(root: Path, *, driver: str = "0.9.8", npu: int = 1000) -> Machine:
    """The maker's image: vendor kernel 6.1, everything in place."""
    _common(root)
    _tree(root, "Orange Pi 5", "rockchip,rk3588s-orangepi-5", "rockchip,rk3588s")
    _write(root, {"proc/sys/kernel/osrelease": "6.1.43-rockchip-rk3588"})
    _vendor_driver(root, driver)
    _clocks(root, npu)
    library(root)
    return Machine(root, "aarch64", (3, 11), **MEMBER, packages={"rknn-toolkit-lite2": "2.3.2"})


def armbian(root: Path) -> Machine:
    """Armbian with its vendor kernel, as installed: no library, a user outside of render."""
    _common(root)
    _tree(root, "Radxa ROCK 5B", "radxa,rock-5b", "rockchip,rk3588")
    _write(root, {"proc/sys/kernel/osrelease": "6.1.115-vendor-rk35xx"})
    _vendor_driver(root, "0.9.8", node=128)
    (root / "sys/kernel/debug/rknpu/version").unlink()  # root only
    _clocks(root, memory=528)
    return Machine(root, "aarch64", (3, 13), **OUTSIDER, packages={})


def mainline(root: Path) -> Machine:
    """Linux 6.18 from kernel.org: the NPU belongs to rocket."""
    _common(root)
    _tree(root, "Radxa ROCK 5B", "radxa,rock-5b", "rockchip,rk3588")
    uevent = "DRIVER=rocket\nOF_COMPATIBLE_0=rockchip,rk3588-rknn-core\nOF_COMPATIBLE_N=1"
    files = {"proc/sys/kernel/osrelease": "6.18.2", "sys/class/accel/accel0/device/uevent": uevent}
    _write(root, {**files, "dev/accel/accel0": b""})
    return Machine(root, "aarch64", (3, 12), **MEMBER, packages={})


def zero_3(root: Path) -> Machine:
    """RK3566 with the driver in the kernel and the NPU switched off in the device tree."""
    _common(root)
    _tree(root, "Radxa ZERO 3", "radxa,zero3", "rockchip,rk3566")
    files = {"proc/sys/kernel/osrelease": "6.1.75-vendor-rk35xx"}
    _write(root, {**files, "proc/device-tree/npu@fde40000/status": b"disabled\0"})
    library(root)
    return Machine(root, "aarch64", (3, 11), **MEMBER, packages={})


def docker(root: Path, *, device: bool) -> Machine:
    """A container on an Orange Pi 5 without /proc/device-tree, with or without its /dev/dri."""
    _common(root)
    _write(root, {"proc/sys/kernel/osrelease": "6.1.43-rockchip-rk3588", ".dockerenv": b""})
    if device:
        _vendor_driver(root, "0.9.8")
    library(root)
    return Machine(root, "aarch64", (3, 11), uid=0, gids=frozenset([0]), packages={})


def pc(root: Path) -> Machine:
    """A desktop."""
    _common(root)
    _write(root, {"proc/sys/kernel/osrelease": "6.12.57+deb13-amd64"})
    return Machine(root, "x86_64", (3, 13), **MEMBER, packages={"av": "15.0"})
