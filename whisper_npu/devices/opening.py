"""Opening a device by name: on top of all devices, and called by none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper_npu.errors import DeviceError, OptionError

if TYPE_CHECKING:
    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.device import Device
    from whisper_npu.options import DeviceOptions


def open_device(checkpoint: Checkpoint, options: DeviceOptions) -> Device:
    """Open a device by name for one model.

    `npu` never falls back; `auto` takes the NPU when it is usable, else the CPU.
    Raises OptionError for an unknown name, DeviceError when it cannot be opened.
    """
    if options.device == "cpu" and options.emulate is not None:
        raise OptionError("emulate needs device npu", "emulate", "device")
    from whisper_npu.devices.auto import AutoDevice
    from whisper_npu.devices.cpu import open_cpu

    if options.device == "cpu":
        return open_cpu(
            checkpoint,
            precision=options.precision,
            threads=options.threads,
            short_windows=options.short_windows,
        )
    if options.device == "auto":
        return AutoDevice(checkpoint, options)
    from whisper_npu.devices.npu_path import open_npu

    return open_npu(checkpoint, options)


def npu_cores(options: DeviceOptions) -> int:
    """How many NPU cores these options find; 1 without an NPU."""
    from whisper_npu.devices.npu import find_npu

    if options.device == "cpu":
        return 1
    try:
        return find_npu(options)[0].cores
    except DeviceError:
        return 1


def plan_lines(device: Device) -> list[str]:
    """Which layers run where, for people."""
    info = device.info
    return list(info.plan) or [f"{info.name}: no plan, every layer runs on the CPU"]
