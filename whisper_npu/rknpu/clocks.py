"""Clocks that decide how fast a board is: of its NPU, its memory and its processor cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.machine import Machine


def devfreq(machine: Machine) -> dict[str, Path]:
    """What the kernel scales besides the processor -> its folder: "NPU clock", "memory clock"."""
    places = {"NPU clock": "sys/class/devfreq/*.npu", "memory clock": "sys/class/devfreq/dmc"}
    found = {name: machine.glob(place) for name, place in places.items()}
    return {name: paths[0] for name, paths in found.items() if paths}


def megahertz(machine: Machine) -> dict[str, int]:
    """Each clock as it is now; nothing where the kernel does not tell."""
    now = {
        name.removesuffix(" clock"): machine.number(path / "cur_freq") // 1_000_000
        for name, path in devfreq(machine).items()
    }
    for policy in machine.glob("sys/devices/system/cpu/cpufreq/policy*"):
        now[policy.name.replace("policy", "cpu")] = (
            machine.number(policy / "scaling_cur_freq") // 1000
        )
    return {name: clock for name, clock in now.items() if clock}
