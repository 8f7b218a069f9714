"""The NPU device beyond what every device does: errors by layer, faults, memory, order, plans."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boards
import numpy as np
import pytest
from test_devices import error, window
from test_soc import board

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices import npu
from whisper_npu.devices.device import DeviceOptions
from whisper_npu.devices.npu import NpuDevice, find_npu
from whisper_npu.devices.numpy_device import NumpyDevice
from whisper_npu.devices.observed import Observed
from whisper_npu.devices.plan import Step
from whisper_npu.errors import DeviceError, DeviceFault
from whisper_npu.model import Whisper, encode
from whisper_npu.reference import NumpyOps
from whisper_npu.rknpu import emulator
from whisper_npu.rknpu.librknnrt import Library
from whisper_npu.rknpu.soc import SOCS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("all_on_npu")

CASES = [(chip, precision) for chip in emulator.CHIPS for precision in ("fp16", "int8")]
TOLERANCE = {"fp16": 5e-3, "int8": 3e-2}


@pytest.fixture(scope="module")
def checkpoint(random_model: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint(random_model("short"))


@pytest.fixture
def library() -> Iterator[Library]:
    """The emulated RK3588, as new before and after."""
    library = Library(emulator.library("rk3588"))
    library.emulator_reset()
    yield library
    for setting, value in (("null", 0), ("incoherent", 0), ("context_limit", 128)):
        library.emulator_set(setting, value)
    library.emulator_reset()
    assert library.emulator_get("contexts") == 0
    assert library.emulator_get("memory") == 0


def opened(checkpoint: Checkpoint, chip: str = "rk3588", precision: str = "fp16") -> NpuDevice:
    return NpuDevice(checkpoint, DeviceOptions("npu", npu_precision=precision, emulate=chip))


@pytest.fixture(scope="module")
def layers(checkpoint: Checkpoint) -> dict[str, Any]:
    """What each layer gives in float32."""
    shown: dict[str, Any] = {}
    ops = Observed(NumpyOps(), np.asarray, lambda name, x: shown.update({name: x.copy()}))
    encode(Whisper(checkpoint), ops, window().T)
    return shown


@pytest.mark.parametrize(("chip", "precision"), CASES)
@pytest.mark.parametrize("everywhere", [True, False])
def test_every_layer_is_close_to_float32(
    chip: str, precision: str, everywhere: bool, checkpoint: Checkpoint, layers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """All layers on the NPU, or none (where the glue still keeps the NPU's order)."""
    monkeypatch.setattr(Step, "on_npu", property(lambda _: everywhere))
    device = opened(checkpoint, chip, precision)
    shown: dict[str, float] = {}
    device.encode(
        window(),
        observe=lambda name, x: (
            shown.update({name: error(x, layers[name])}) if name in layers else None
        ),
    )
    device.close()
    assert list(shown) == list(layers)
    assert max(shown.values()) < TOLERANCE[precision]
    assert max(shown.values()) > 1e-5  # it is not float32 that ran


@pytest.mark.parametrize(("chip", "precision"), CASES)
def test_memory_behind_a_cache_is_synchronised(
    chip: str, precision: str, checkpoint: Checkpoint
) -> None:
    results = []
    library = Library(emulator.library(chip))
    for incoherent in (0, 1):
        library.emulator_set("incoherent", incoherent)
        device = opened(checkpoint, chip, precision)
        device.encode(window(2))
        results.append(device.keys_values(window()))
        device.close()
    library.emulator_set("incoherent", 0)
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


@pytest.mark.parametrize("nth", [1, 2, 7, 15])
def test_a_fault_names_layer_and_code(library: Library, checkpoint: Checkpoint, nth: int) -> None:
    device = opened(checkpoint)
    library.emulator_fault("rknn_matmul_run", nth, -2)
    try:
        with pytest.raises(
            DeviceFault,
            match=r"^npu: layer (model\.\S+|attention): rknn_matmul_run .*: timed out \(code -2",
        ):
            device.encode(window())
        again = device.keys_values(window())[0][0].copy()
        assert np.array_equal(again, device.keys_values(window())[0][0])
    finally:
        device.close()


FUNCTIONS = ["rknn_matmul_create", "rknn_create_mem", "rknn_mem_sync", "rknn_matmul_set_core_mask"]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("nth", [1, 2, 6])
def test_no_fault_leaves_anything_behind(
    library: Library, checkpoint: Checkpoint, function: str, nth: int
) -> None:
    library.emulator_fault(function, nth, -4)
    with pytest.raises(DeviceFault, match=function), closing(opened(checkpoint)) as device:
        device.encode(window())


def test_contexts_are_shared_by_shape(library: Library, checkpoint: Checkpoint) -> None:
    with closing(opened(checkpoint)) as device:
        for _ in range(3):
            device.encode(window())
        n_shapes = 5 * 2 + 2  # five (M, K) of linears and convolutions, cut in two widths; heads
        assert library.emulator_get("contexts") <= 1 + 3 * n_shapes


def index_of(k: int, n: int, n_in: int) -> int:
    """Where the header of RK3588 puts element (k, n) of a float16 B: [N/16, K/32, 16, 32]."""
    return ((n // 16 * (n_in // 32) + k // 32) * 16 + n % 16) * 32 + k % 32


def test_weights_reach_the_library_in_the_documented_order(
    library: Library, checkpoint: Checkpoint
) -> None:
    device = opened(checkpoint)
    ops = device._ops
    entry = ops._image.entries["model.encoder.layers.1.fc2"]
    memory: NDArray[np.float16] = ops._tiles.array[entry.offset :][: entry.tile_bytes].view(
        np.float16
    )
    weight = entry.layer.weight.astype(np.float16)  # (N, K)
    for n, k in np.ndindex(weight.shape):
        assert memory[index_of(k, n, 256)] == weight[n, k]
    device.close()


def test_int8_tells_its_error_from_float16(checkpoint: Checkpoint) -> None:
    cpu = NumpyDevice(checkpoint).encode(window())
    errors = {}
    for precision in ("fp16", "int8"):
        device = opened(checkpoint, "rk3566", precision)
        errors[precision] = error(device.keys_values(window())[1][1], np.asarray(cpu[1][1]))
        device.close()
    assert errors["fp16"] < 5e-3 < errors["int8"] < 3e-2


def test_without_an_npu_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no NPU here"):
        find_npu(DeviceOptions("npu"), tmp_path)
    missing = tmp_path / "librknnrt.so"
    root = board(tmp_path, "radxa,rock-5b\0rockchip,rk3588")
    with pytest.raises(DeviceError, match="no such library"):
        find_npu(DeviceOptions("npu", rknnrt=str(missing)), root)
    soc, library = find_npu(DeviceOptions("npu", rknnrt=str(emulator.library("rk3588"))), root)
    assert soc is SOCS["rk3588"]
    assert library.is_emulated


def test_what_the_board_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library loads, and the kernel offers nothing that it could talk to."""
    monkeypatch.setattr(npu, "Library", lambda path: SimpleNamespace(path=path, is_emulated=False))
    with pytest.raises(DeviceError, match=r"mainline's driver rocket.*; install the vendor kernel"):
        find_npu(DeviceOptions("npu"), boards.mainline(tmp_path / "rocket").root)
    machine = boards.orange_pi_5(tmp_path / "orange")
    assert find_npu(DeviceOptions("npu"), machine.root)[0] is SOCS["rk3588"]


def test_a_library_of_another_chip_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    from whisper_npu.rknpu.cores import Cores

    with pytest.raises(DeviceError, match="orders fp16 weights otherwise than rk3588"):
        Cores(Library(emulator.library("rk3566")), replace(SOCS["rk3588"], cores=1), 1)


def test_odd_widths_are_refused(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = replace(checkpoint.dims, n_audio_head=4)  # heads of 16
    monkeypatch.setattr(checkpoint, "dims", odd)
    with pytest.raises(DeviceError, match="heads of width 16 do not fit"):
        opened(checkpoint)


@pytest.fixture(scope="module")
def said_on_the_cpu(demo_model: Path) -> list[tuple[int, ...]]:
    return said(demo_model, DeviceOptions("cpu", "f32"))


def said(demo_model: Path, options: DeviceOptions) -> list[tuple[int, ...]]:
    """The tokens heard in a recording by the model that comes with us."""
    from whisper_npu import load_model

    recording = demo_model.parent.parent / "samples" / "digits.flac"
    if not (demo_model / "model.safetensors").is_file() or not recording.is_file():
        pytest.skip("the model that comes with us is not here")
    with load_model(demo_model, device=options) as model:
        return [tuple(segment.tokens) for segment in model.transcribe(recording).segments]


@pytest.mark.parametrize(("chip", "precision"), CASES)
def test_the_npu_hears_what_the_cpu_hears(
    chip: str, precision: str, demo_model: Path, said_on_the_cpu: list[tuple[int, ...]]
) -> None:
    options = DeviceOptions("npu", "f32", npu_precision=precision, emulate=chip)
    assert said_on_the_cpu
    assert said(demo_model, options) == said_on_the_cpu
