"""Which cores are computed on, over made-up /sys folders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from whisper_npu.devices import cores

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capacities: list[int], core_ids: list[int]
) -> Path:
    for cpu, (capacity, core) in enumerate(zip(capacities, core_ids, strict=True)):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "core_id").write_text(f"{core}\n")
        (topology / "physical_package_id").write_text("0\n")
        if capacity:
            (folder / f"cpu{cpu}" / "cpu_capacity").write_text(f"{capacity}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(len(capacities))))
    return folder


def test_rk3588_computes_on_its_four_big_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capacities = [414, 414, 414, 414, 1010, 1010, 1024, 1024]
    cpus = machine(tmp_path, monkeypatch, capacities, [0, 1, 2, 3, 0, 1, 0, 1])
    for cpu in range(8):
        (cpus / f"cpu{cpu}" / "topology" / "cluster_id").write_text(f"{min(cpu // 2, 3)}")
    assert cores.choose(cpus=cpus) == (4, (4, 5, 6, 7))
    assert cores.choose(2, cpus=cpus) == (2, (4, 5, 6, 7))
    assert cores.choose(8, cpus=cpus) == (8, ())  # more than the big ones: everywhere


def test_equal_cores_are_all_used_and_nothing_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = machine(tmp_path, monkeypatch, [1024] * 4, [0, 1, 2, 3])
    assert cores.choose(cpus=cpus) == (4, ())


def test_two_hardware_threads_of_a_core_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = machine(tmp_path, monkeypatch, [0] * 8, [0, 1, 2, 3, 0, 1, 2, 3])
    assert cores.choose(cpus=cpus) == (4, ())


def test_without_sysfs_each_core_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5})
    assert cores.choose(cpus=tmp_path) == (2, ())
