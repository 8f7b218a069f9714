"""Is the NPU of this board ready? A machine -> findings, each with the command that mends it.

Knows the vendor's kernel driver and library, mainline's `rocket`, and what containers hide.
Versions and messages are those that users of these boards reported; none was tried here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whisper_npu.errors import DeviceError
from whisper_npu.machine import Finding
from whisper_npu.rknpu import clocks
from whisper_npu.rknpu.librknnrt import find_library, library_version
from whisper_npu.rknpu.soc import Soc, detect

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.machine import Machine

GET_LIBRARY = (
    "sudo curl -L -o /usr/lib/librknnrt.so https://github.com/airockchip/rknn-toolkit2/raw/v2.3.2/"
    "rknpu2/runtime/Linux/librknn_api/aarch64/librknnrt.so"
)
_VENDOR_KERNEL = (
    "install the vendor kernel (Armbian: sudo armbian-config, System, Kernel, vendor; or the board "
    "maker's image) and reboot; or build the vendor's driver for this kernel with DKMS "
    "(w568w/rknpu-module on GitHub, for 6.19 and 7.0, tried by its author on RK3566)"
)
_OVERLAY = (
    "enable the overlay rk3568-npu-enable (Armbian: sudo armbian-config, System, device tree "
    "overlays; Radxa OS: sudo rsetup, Overlays) and reboot"
)
_CONTAINER = "start it with docker run --device /dev/dri --security-opt systempaths=unconfined"
_UDEV = (
    """echo 'SUBSYSTEM=="drm", KERNEL=="renderD*", GROUP="render", MODE="0660"' | """
    "sudo tee /etc/udev/rules.d/99-rknpu.rules && sudo udevadm control --reload && "
    "sudo udevadm trigger && sudo usermod -aG render $USER, then log in again"
)
_DRIVER_VERSIONS = (  # the first needs root
    "sys/kernel/debug/rknpu/version",
    "proc/rknpu/version",
    "sys/module/rknpu/version",
)
_TRUSTED_LIBRARY = (2, 3)
_OLDEST_DRIVER = (0, 9, 6)  # with older ones, users met refused core masks and failing matmuls
_SLOW = 0.8  # of the top clock


def examine(machine: Machine, library: Path | None = None) -> list[Finding]:
    """All that can be seen of the NPU; a machine without one gets a single finding that says so.

    library  librknnrt.so, where it is not in a usual place
    """
    soc = detect(machine.root)
    if soc is None:
        return [_no_chip(machine)]
    findings = [_chip(machine, soc), *_kernel(machine), _library(machine, library)]
    findings += _clocks(machine)
    return findings + _room(machine, soc)


def obstacle(machine: Machine) -> str:
    """What keeps programs from reaching the NPU, and the remedy; "" when nothing does."""
    failed = (finding for finding in _kernel(machine) if finding.status == "fail")
    return next((f"{finding.message}; {finding.fix}" for finding in failed), "")


# The chip


def _chip(machine: Machine, soc: Soc) -> Finding:
    cores = f"{soc.cores} cores" if soc.cores > 1 else "one core"
    board = machine.text("proc/device-tree/model") or "a board that does not tell its name"
    return Finding("chip", "pass", f"{_name(machine, soc)} with an NPU of {cores}, on {board}")


def _name(machine: Machine, soc: Soc) -> str:
    """RK3588S rather than RK3588, where the board says so."""
    names = machine.text("proc/device-tree/compatible").split("\0")
    mine = [name.partition(",")[2] for name in names if name.startswith("rockchip,rk")]
    return (mine[-1] if mine else soc.name).upper()


def _no_chip(machine: Machine) -> Finding:
    if is_hidden(machine):
        message = "this container hides which chip it runs on"
        return Finding("chip", "fail", message, f"{_CONTAINER} if the board has an NPU")
    tree = machine.text("proc/device-tree/model") or f"{machine.architecture} machine"
    return Finding(
        "chip",
        "fail",
        f"no Rockchip chip with an NPU that we know ({tree})",
        "use --device cpu, or --emulate rk3588 to try the NPU's code",
    )


def is_hidden(machine: Machine) -> bool:
    """Whether a container keeps us from seeing which chip this is."""
    seen = (machine.root / "proc/device-tree/compatible").exists()
    return machine.is_container and machine.architecture == "aarch64" and not seen


# The kernel's side


def _kernel(machine: Machine) -> list[Finding]:
    driver = _driver(machine)
    return [driver] if driver.status == "fail" else [driver, _permission(machine)]


def _driver(machine: Machine) -> Finding:
    name = "NPU driver"
    if _nodes(machine) or (machine.root / "dev/rknpu").exists():
        return _vendor_driver(machine)
    if _rocket(machine):
        message = (
            "the kernel has mainline's driver rocket, which does not understand the vendor's "
            "librknnrt: the NPU is there but out of reach"
        )
        return Finding(name, "fail", message, _VENDOR_KERNEL)
    if machine.is_container:
        message = "this container has no device node of the NPU"
        return Finding(name, "fail", message, _CONTAINER)
    if any("disabled" in machine.text(path) for path in _npu_status(machine)):
        message = "the device tree switches the NPU off, as it does on some RK3566 boards"
        return Finding(name, "fail", message, _OVERLAY)
    release = machine.text("proc/sys/kernel/osrelease") or "unknown"
    message = f"the kernel ({release}) has no driver for the NPU"
    return Finding(name, "fail", message, _VENDOR_KERNEL)


def _vendor_driver(machine: Machine) -> Finding:
    name = "NPU driver"
    found = next(filter(None, map(machine.text, _DRIVER_VERSIONS)), "")
    version = re.search(r"(\d+)\.(\d+)\.(\d+)", found)
    if version is None:
        message = "vendor driver rknpu; its version: sudo cat /sys/kernel/debug/rknpu/version"
        return Finding(name, "pass", message)
    message = f"vendor driver rknpu {version[0]}"
    if tuple(map(int, version.groups())) < _OLDEST_DRIVER:
        message += ", too old for several cores and some matmuls"
        return Finding(name, "warn", message, "sudo apt update && sudo apt full-upgrade, reboot")
    return Finding(name, "pass", message)


def _nodes(machine: Machine) -> list[str]:
    """Names of the DRM nodes that the vendor's driver made, the render node last."""
    uevents = machine.glob("sys/class/drm/*/device/uevent")
    ours = [path for path in uevents if "DRIVER=RKNPU" in machine.text(path).upper()]
    return [path.parent.parent.name for path in ours]


def _rocket(machine: Machine) -> bool:
    uevents = machine.glob("sys/class/accel/accel*/device/uevent")
    return any("DRIVER=rocket" in machine.text(path) for path in uevents)


def _npu_status(machine: Machine) -> list[Path]:
    return machine.glob("proc/device-tree/npu@*/status")


def _permission(machine: Machine) -> Finding:
    """Whether we may use the render node and the card beside it: librknnrt opens either."""
    name = "permission"
    nodes = [f"dri/{node}" for node in _nodes(machine)] or ["rknpu"]
    shown = [f"/dev/{node}" for node in nodes if (machine.root / "dev" / node).exists()]
    if f"/dev/{nodes[-1]}" not in shown:
        fix = _CONTAINER if machine.is_container else _UDEV
        return Finding(name, "fail", f"/dev/{nodes[-1]} is missing", fix)
    closed = [node for node in shown if not machine.may_use(machine.root / node[1:])]
    if closed:
        return _closed(machine, closed)
    if "dri/" in nodes[-1] and (machine.root / "dev/rknpu").is_symlink():
        message = "/dev/rknpu is a link and leads librknnrt away from the NPU's DRM node"
        return Finding(name, "warn", message, "sudo rm /dev/rknpu")
    return Finding(name, "pass", f"{' and '.join(shown)} may be used")


def _closed(machine: Machine, nodes: list[str]) -> Finding:
    status = {node: (machine.root / node[1:]).stat() for node in nodes}
    groups = {node: machine.group(each.st_gid) for node, each in status.items()}
    told = ", ".join(
        f"{node} (group {groups[node]}, mode {status[node].st_mode & 0o777:03o})" for node in nodes
    )
    helps = all(
        groups[node] != "root" and each.st_mode & 0o060 == 0o060 for node, each in status.items()
    )
    names = ",".join(dict.fromkeys(groups.values()))
    fix = f"sudo usermod -aG {names} $USER, then log in again" if helps else _UDEV
    return Finding("permission", "fail", f"you may not use {told}", fix)


# The vendor's library


def _library(machine: Machine, given: Path | None) -> Finding:
    name = "librknnrt"
    try:
        path = find_library(given, machine.root)
        data = path.read_bytes()
    except DeviceError as error:
        return Finding(name, "fail", str(error), GET_LIBRARY)
    except FileNotFoundError:
        return Finding(name, "fail", "the vendor's library is not installed", GET_LIBRARY)
    except OSError as error:
        return Finding(name, "fail", f"{path}: {error.strerror}", GET_LIBRARY)
    if data[:5] != b"\x7fELF\x02" or data[18:20] != _ELF.get(machine.architecture):
        message = f"{path} is not a library for {machine.architecture}"
        return Finding(name, "fail", message, GET_LIBRARY)
    return _version(path)


def _version(path: Path) -> Finding:
    name, version = "librknnrt", library_version(path)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if not version:
        return Finding(name, "warn", f"{path} does not tell its version", GET_LIBRARY)
    if numbers < (2, 0):
        return Finding(name, "fail", f"{path} is {version}: 2.0 or later is needed", GET_LIBRARY)
    if numbers < _TRUSTED_LIBRARY:
        message = f"{path} is {version}: before 2.3, users met products that were all zeros"
        return Finding(name, "warn", message, GET_LIBRARY)
    return Finding(name, "pass", f"{version} in {path}")


_ELF = {"aarch64": b"\xb7\0", "x86_64": b"\x3e\0"}  # e_machine


# Memory


def _room(machine: Machine, soc: Soc) -> list[Finding]:
    """What RK356x can reach: their IOMMU knows 4 GB, and some kernels leave it off."""
    name = "NPU memory"
    units = machine.glob("proc/device-tree/iommu@fde4b000/status")
    if soc.name not in ("rk3566", "rk3562") or not units:
        return []
    if "disabled" in machine.text(units[0]):
        message = (
            "the NPU runs without its IOMMU and reaches about 12 MB, unless the kernel was given "
            "more; a window of tiny takes about 60 MB"
        )
        fix = "enable the node iommu@fde4b000 in the device tree, or give the kernel cma=256M"
        return [Finding(name, "warn", message, fix)]
    sizes = machine.memory()
    if sizes and sizes[1] > 4 << 30:
        message = "the NPU's IOMMU knows 4 GB and this board has more: its first job may fail"
        return [Finding(name, "warn", message, "boot with mem=3840M where the trial fails")]
    return []


# Clocks


def _clocks(machine: Machine) -> list[Finding]:
    """The NPU and the memory behind it: a parked clock costs a factor of two to five."""
    found = (_clock(machine, name, path) for name, path in clocks.devfreq(machine).items())
    return [finding for finding in found if finding]


def _clock(machine: Machine, name: str, folder: Path) -> Finding | None:
    steps = [int(word) for word in machine.text(folder / "available_frequencies").split()]
    now, top = machine.number(folder / "cur_freq"), max(steps, default=0)
    governor = machine.text(folder / "governor")
    if not now or not top:
        return None
    message = f"{now / 1e6:.0f} of {top / 1e6:.0f} MHz, governor {governor}"
    if governor == "performance" or now >= _SLOW * top:
        return Finding(name, "pass", message)
    shown = f"/sys/class/devfreq/{folder.name}/governor"
    return Finding(name, "warn", message, f"echo performance | sudo tee {shown}")
