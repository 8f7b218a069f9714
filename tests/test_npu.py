"""The NPU device beyond what every device does: errors by layer, faults, memory, order, plans."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boards
import numpy as np
import pytest
from manners import MANNERS, behaving
from real_models import real_model
from test_devices import error, window
from test_soc import board

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices import npu
from whisper_npu.devices.npu import NpuDevice, find_npu
from whisper_npu.devices.numpy_device import NumpyDevice
from whisper_npu.devices.observed import Observed
from whisper_npu.devices.plan import Step
from whisper_npu.devices.trial import Verdict
from whisper_npu.errors import DeviceError, DeviceFault
from whisper_npu.model import Whisper, encode
from whisper_npu.options import DeviceOptions
from whisper_npu.reference import NumpyOps
from whisper_npu.rknpu import emulator
from whisper_npu.rknpu.librknnrt import Library
from whisper_npu.rknpu.soc import SOCS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("all_on_npu")

CASES = [(chip, precision) for chip in emulator.CHIPS for precision in ("fp16", "int8")]
TOLERANCE = {"fp16": 5e-3, "int8": 3e-2}


in_each = pytest.mark.usefixtures("manners")  # of the bad manners of hardware


@pytest.fixture(scope="module")
def checkpoint(random_model: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint(random_model("short"))


@pytest.fixture
def library() -> Iterator[Library]:
    """The emulated RK3588, as new before and after."""
    library = Library(emulator.library("rk3588"))
    library.emulator_reset()
    yield library
    for setting, value in (("null", 0), ("memory_limit", 0), ("context_limit", 128)):
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
    monkeypatch: pytest.MonkeyPatch, manners: str,
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


@pytest.fixture(scope="module")
def well_mannered(checkpoint: Checkpoint) -> dict[tuple[str, str], list[Any]]:
    """Three windows on memory without a cache, for each chip and precision."""
    return {case: windows(checkpoint, *case) for case in CASES}


def windows(checkpoint: Checkpoint, chip: str, precision: str) -> list[Any]:
    """Keys and values of three windows, copied."""
    with closing(opened(checkpoint, chip, precision)) as device:
        return [
            [(k.copy(), v.copy()) for k, v in device.keys_values(window(seed))]
            for seed in (1, 2, 1)
        ]


@pytest.mark.parametrize(("chip", "precision"), CASES)
def test_bad_manners_change_nothing(
    well_mannered: dict[tuple[str, str], list[Any]],
    chip: str, precision: str, checkpoint: Checkpoint, manners: str,
) -> None:  # fmt: skip
    """Dirty lines that land on results, and syncs that do nothing, harm no window."""
    found = windows(checkpoint, chip, precision)
    for ours, expected in zip(found, well_mannered[chip, precision], strict=True):
        for pair, other in zip(ours, expected, strict=True):
            if "refuse" in MANNERS[manners]:  # sums of weights are rounded otherwise
                assert error(pair[0], other[0]) < TOLERANCE[precision] / 2
            else:
                assert np.array_equal(pair, other)


FC2 = "model.encoder.layers.1.fc2"
VERDICTS = [
    Verdict((0, 2), to_fp16=False),
    Verdict((1,), normalise=True),
    Verdict((0, 1, 2), refused={"attention": "it crashed", FC2: "wrong numbers"}),
]


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_the_trial_found_is_avoided(
    precision: str, verdict: Verdict, checkpoint: Checkpoint, layers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, manners: str,
) -> None:  # fmt: skip
    """Other cores, float32 scores, normalised weights, layers on the CPU: the same results."""
    monkeypatch.setattr(Step, "on_npu", property(lambda step: not step.refused))
    monkeypatch.setattr(npu, "in_order", lambda _: verdict)
    shown: dict[str, float] = {}
    with closing(opened(checkpoint, "rk3588", precision)) as device:
        assert device._cores.n_cores == len(verdict.cores)
        to_fp16 = verdict.to_fp16 and "refuse" not in MANNERS[manners]
        assert (device._cores.fp16_strip is None) == (not to_fp16)
        lines = "\n".join(device.plan.lines())
        device.encode(window())
        device.encode(
            window(),
            observe=lambda name, x: (
                shown.update({name: error(x, layers[name])}) if name in layers else None
            ),
        )
    assert max(shown.values()) < TOLERANCE[precision]
    assert all(reason in lines for reason in verdict.refused.values())


def test_without_memory_the_reason_is_told(library: Library, checkpoint: Checkpoint) -> None:
    library.emulator_set("memory_limit", 10_000)
    with pytest.raises(DeviceFault, match=r"rknn_create_mem failed: no memory .* does not fit"):
        opened(checkpoint)


@in_each
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


@in_each
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("nth", [1, 2, 6])
def test_no_fault_leaves_anything_behind(
    library: Library, checkpoint: Checkpoint, function: str, nth: int
) -> None:
    library.emulator_fault(function, nth, -4, times=-1)
    with pytest.raises(DeviceFault, match=function), closing(opened(checkpoint)) as device:
        device.encode(window())


def test_too_few_files_are_refused_beforehand(checkpoint: Checkpoint) -> None:
    """The real library crashes when it runs out of them, and so does this one."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from whisper_npu.checkpoint import Checkpoint\n"
        "from whisper_npu.options import DeviceOptions\n"
        "from whisper_npu.devices.opening import open_device\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)\n"
        "try: open_device(Checkpoint(Path(sys.argv[1])), DeviceOptions('npu', emulate='rk3588'))\n"
        "except Exception as error: sys.exit(str(error))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(checkpoint.path), limit],
            env=os.environ | {"WHISPER_NPU_EMULATOR": "descriptors"},
            capture_output=True, text=True, check=False,
        )
        for limit in ("100", "4096")
    ]  # fmt: skip
    assert found[0].returncode == 1
    assert re.search(r"needs \d+ open files and this process may have 100: raise", found[0].stderr)
    assert (found[1].returncode, found[1].stderr) == (0, "")


@in_each
def test_contexts_are_shared_by_shape(library: Library, checkpoint: Checkpoint) -> None:
    with closing(opened(checkpoint)) as device:
        for _ in range(3):
            device.encode(window())
        n_shapes = 5 * 2 + 2  # five (M, K) of linears and convolutions, cut in two widths; heads
        assert library.emulator_get("contexts") <= 3 * (
            1 + n_shapes
        )  # and a keeper for each thread


def index_of(k: int, n: int, n_in: int) -> int:
    """Where the header of RK3588 puts element (k, n) of a float16 B: [N/16, K/32, 16, 32]."""
    return ((n // 16 * (n_in // 32) + k // 32) * 16 + n % 16) * 32 + k % 32


@in_each
def test_weights_reach_the_library_in_the_documented_order(
    library: Library, checkpoint: Checkpoint
) -> None:
    device = opened(checkpoint)
    ops = device._ops
    entry = ops._image.entries["model.encoder.layers.1.fc2"]
    memory: NDArray[np.float16] = ops._tiles.memory.array[entry.offset :][: entry.tile_bytes].view(
        np.float16
    )
    weight = entry.layer.weight.astype(np.float16)  # (N, K)
    for n, k in np.ndindex(weight.shape):
        assert memory[index_of(k, n, 256)] == weight[n, k]
    device.close()


@in_each
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


@lru_cache
def said_on_the_cpu(model: Path) -> list[tuple[int, ...]]:
    return said(model, DeviceOptions("cpu", "f32"))


def said(model: Path, options: DeviceOptions) -> list[tuple[int, ...]]:
    """The tokens heard in a sample."""
    from whisper_npu import load_model

    sample = Path(__file__).parent.parent / "samples" / "sentence.flac"
    with load_model(model, device=options) as opened:
        return [tuple(segment.tokens) for segment in opened.transcribe(sample).segments]


@pytest.mark.parametrize(
    ("name", "chip", "precision", "how"),
    [
        ("tiny.en", "rk3588", "fp16", "worst"),
        ("tiny.en", "rk3588", "int8", "all"),
        ("tiny.en", "rk3566", "fp16", "all"),  # where float16 results may be missing
        ("tiny.en", "rk3566", "int8", "worst"),
        ("base", "rk3588", "fp16", "worst"),
        ("base", "rk3566", "fp16", "all"),
    ],
)
def test_the_npu_hears_what_the_cpu_hears(name: str, chip: str, precision: str, how: str) -> None:
    model = real_model(name)
    options = DeviceOptions("npu", "f32", npu_precision=precision, emulate=chip)
    assert said_on_the_cpu(model)
    with behaving(how, model):
        assert said(model, options) == said_on_the_cpu(model)
