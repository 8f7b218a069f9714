"""The chip table agrees with itself; chips are told from fake device trees and driver nodes."""

from pathlib import Path

import pytest

from whisper_npu.rknpu.soc import SOCS, Precision, detect


def board(root: Path, compatible: str = "", npu: str = "", driver: str = "RKNPU") -> Path:
    """A fake file system: what a board's device tree and driver node would say."""
    if compatible:
        tree = root / "proc/device-tree"
        tree.mkdir(parents=True)
        (tree / "compatible").write_bytes(compatible.encode() + b"\0")
    if npu:
        for node in ("card1", "renderD129"):
            device = root / "sys/class/drm" / node / "device"
            device.mkdir(parents=True)
            text = f"DRIVER={driver}\nOF_COMPATIBLE_0={npu}\nOF_COMPATIBLE_N=1\n"
            (device / "uevent").write_text(text)
    return root


@pytest.mark.parametrize(
    ("compatible", "name"),
    [
        ("xunlong,orangepi-5\0rockchip,rk3588s", "rk3588"),
        ("radxa,rock-5b\0rockchip,rk3588", "rk3588"),
        ("pine64,quartz64-a\0rockchip,rk3566", "rk3566"),
        ("hardkernel,odroid-m1\0rockchip,rk3568", "rk3566"),
        ("armsom,sige5\0rockchip,rk3576", "rk3576"),
        ("radxa,zero3\0rockchip,rk3562", "rk3562"),
    ],
)
def test_device_tree_names_the_chip(tmp_path: Path, compatible: str, name: str) -> None:
    soc = detect(board(tmp_path, compatible))
    assert soc is not None
    assert soc.name == name


@pytest.mark.parametrize("compatible", ["", "raspberrypi,5\0brcm,bcm2712", "rockchip,rk3399"])
def test_other_machines_have_none(tmp_path: Path, compatible: str) -> None:
    assert detect(board(tmp_path, compatible)) is None


def test_driver_node_names_the_chip_where_the_device_tree_is_hidden(tmp_path: Path) -> None:
    soc = detect(board(tmp_path, npu="rockchip,rk3568-rknpu"))
    assert soc is SOCS["rk3566"]


def test_the_display_is_not_taken_for_the_npu(tmp_path: Path) -> None:
    root = board(tmp_path, npu="rockchip,display-subsystem", driver="rockchip-drm")
    assert detect(root) is None


@pytest.mark.parametrize("name", SOCS)
def test_tiles_divide_alignments(name: str) -> None:
    for order in SOCS[name].orders.values():
        n, k = order.b
        assert order.align_n % n == 0
        assert order.align_k % k == 0
        assert order.align_k % order.a == 0
        assert order.align_n % 4 == 0
        assert order.padded_k(1500) >= 1500
        assert order.padded_k(1500) % order.align_k == 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_modelled_time_grows_with_the_work(precision: Precision) -> None:
    soc = SOCS["rk3588"]
    small = soc.matmul_seconds(1500, 384, 384, precision, 4)
    assert soc.call_seconds < small < soc.matmul_seconds(1500, 384, 1536, precision, 4)


@pytest.mark.parametrize(
    ("shape", "seconds"), [((2048, 512, 2048), 4.9e-3), ((2048, 2048, 512), 7.5e-3)]
)
def test_modelled_time_of_measured_shapes(shape: tuple[int, int, int], seconds: float) -> None:
    """Two shapes that others timed in float16 on RK3588."""
    assert SOCS["rk3588"].matmul_seconds(*shape, "fp16", 4) == pytest.approx(seconds, 0.02)
