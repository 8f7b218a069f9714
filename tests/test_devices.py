"""The same test bodies on every device: a window in, logits out, whoever does the arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from manners import MANNERS, behaving
from test_graph_device import OURS, OurGraph

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.graph import GraphDevice
from whisper_npu.devices.opening import npu_cores, open_device
from whisper_npu.errors import OptionError
from whisper_npu.model import Whisper, cross_keys_values, encode
from whisper_npu.options import DeviceOptions
from whisper_npu.reference import NumpyOps, NumpySession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.devices.device import Device

    Float = NDArray[np.float32]

pytestmark = pytest.mark.usefixtures("all_on_npu")

DEVICES = {
    "cpu": (DeviceOptions("cpu"), 3e-2),
    "cpu-int8": (DeviceOptions("cpu", "int8"), 4e-2),
    "cpu-f16": (DeviceOptions("cpu", "f16"), 1e-2),
    "cpu-f32": (DeviceOptions("cpu", "f32"), 1e-5),
    "npu-fp16 rk3588": (DeviceOptions("npu", "f32", npu_precision="fp16", emulate="rk3588"), 5e-3),
    "npu-fp16 rk3566": (DeviceOptions("npu", "f32", npu_precision="fp16", emulate="rk3566"), 5e-3),
    "npu-int8 rk3588": (DeviceOptions("npu", "f32", npu_precision="int8", emulate="rk3588"), 3e-2),
    "npu-int8 rk3566": (DeviceOptions("npu", "f32", npu_precision="int8", emulate="rk3566"), 3e-2),
    "auto": (DeviceOptions("auto", "f32", emulate="rk3588"), 5e-3),
    "graph": (DeviceOptions("cpu", "f32"), 1e-5),
}


@pytest.fixture(scope="module")
def checkpoint(random_model: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint(random_model("short"))


CASES = [
    (name, how)
    for name, (options, _) in DEVICES.items()
    for how in (MANNERS if options.emulate else ("coherent",))
]


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def opened(
    request: pytest.FixtureRequest, checkpoint: Checkpoint
) -> Iterator[tuple[Device, float]]:
    name, how = request.param
    options, tolerance = DEVICES[name]
    with behaving(how, checkpoint.path):
        device: Any = open_device(checkpoint, options)
        if name == "graph":
            device = GraphDevice({30: OurGraph(checkpoint)}, device, OURS)
        yield device, tolerance
        device.close()


@pytest.fixture(scope="module")
def device(opened: tuple[Device, float]) -> Device:
    return opened[0]


@pytest.fixture(scope="module")
def tolerance(opened: tuple[Device, float]) -> float:
    return opened[1]


def window(seed: int = 1, n_frames: int = 200) -> Float:
    mel = np.random.default_rng(seed).standard_normal((80, 200), np.float32).clip(-1, 1.5)
    mel[:, n_frames:] = 0
    return mel


def error(actual: Float, expected: Float) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


PROMPT = np.array([[50258, 50259, 50359, 50363, 11]])


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint) -> Float:
    model = Whisper(checkpoint)
    features = encode(model, NumpyOps(), window().T)
    session = NumpySession(model, cross_keys_values(model, NumpyOps(), features))
    return session.step(PROMPT, every_position=True)


def test_logits_are_those_of_the_reference(
    device: Device, tolerance: float, expected: Float
) -> None:
    session = device.session(device.encode(window()))
    logits = session.step(PROMPT, every_position=True)
    assert error(logits, expected) < tolerance
    assert logits.argmax(-1).tolist() == expected.argmax(-1).tolist()


def test_windows_do_not_remember_one_another(device: Device) -> None:
    first = device.session(device.encode(window())).step(PROMPT)
    device.encode(window(2, n_frames=31))
    again = device.session(device.encode(window())).step(PROMPT)
    assert np.array_equal(first, again)


def test_sessions_share_a_window(device: Device) -> None:
    encoded = device.encode(window())
    device.encode(window(3))
    one, other = device.session(encoded), device.session(encoded, beams=2)
    other.step(PROMPT)
    assert np.allclose(one.step(PROMPT), device.session(encoded).step(PROMPT), atol=1e-4)


def test_rows_follow_reorder(device: Device) -> None:
    encoded = device.encode(window())
    session = device.session(encoded, beams=2)
    session.step(PROMPT)
    session.reorder([0, 0])
    logits = session.step(np.array([[7], [9]]))
    session.reorder([1, 1])
    both = session.step(np.array([[5], [5]]))
    assert logits.shape == both.shape == (2, 51865)
    assert np.allclose(both[0], both[1], atol=1e-3)
    alone = device.session(encoded)
    alone.step(PROMPT)
    alone.step(np.array([[9]]))
    assert error(both[:1], alone.step(np.array([[5]]))) < 1e-2


def test_layers_are_shown_by_name(device: Device, checkpoint: Checkpoint) -> None:
    shown: dict[str, Float] = {}
    device.encode(window(), observe=shown.__setitem__)
    for layer in range(2):
        for projection in ("k_proj", "v_proj"):
            name = f"model.decoder.layers.{layer}.encoder_attn.{projection}"
            assert shown[name].shape == (100, 64)


def test_a_device_says_what_it_is(device: Device) -> None:
    info = device.info
    assert info.name.startswith("cpu" if info.kind == "cpu" else "npu")
    assert (info.origin == "emulated") == (info.kind != "cpu")
    assert {info.precision, info.decoder_precision} <= {"f32", "f16", "int8", "fp16"}
    assert bool(info.plan) == (info.kind == "npu")
    assert bool(info.chip) == (info.kind == "npu")


def test_unknown_devices_and_contradictions_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(OptionError, match="gpu"):
        DeviceOptions("gpu")
    with pytest.raises(OptionError, match="int3"):
        DeviceOptions("npu", npu_precision="int3")
    for options in (
        DeviceOptions("cpu", emulate="rk3588"),
        DeviceOptions("npu", emulate="rk3399"),
    ):
        with pytest.raises(OptionError):
            open_device(checkpoint, options)


def test_named_devices() -> None:
    assert DeviceOptions.named("cpu-int8") == DeviceOptions("cpu", "int8")
    npu = DeviceOptions("npu", npu_precision="int8", emulate="rk3566")
    assert DeviceOptions.named("npu-int8", "rk3566") == npu


@pytest.mark.parametrize(
    ("of", "cores", "shares"),
    [
        (1, (0, 1, 2), [(0, 1, 2)]),
        (2, (0, 1, 2), [(0, 2), (1,)]),
        (3, (0, 1, 2), [(0,), (1,), (2,)]),
        (4, (0, 2), [(0,), (2,), (0,), (2,)]),
        (2, (0,), [(0,), (0,)]),
    ],
)
def test_workers_share_the_cores(
    of: int, cores: tuple[int, ...], shares: list[tuple[int, ...]]
) -> None:
    assert [DeviceOptions(share=(i, of)).mine(cores) for i in range(of)] == shares


def test_how_many_npu_cores_there_are() -> None:
    assert npu_cores(DeviceOptions("npu", emulate="rk3588")) == 3
    assert npu_cores(DeviceOptions("npu", emulate="rk3566")) == 1
    assert npu_cores(DeviceOptions("cpu")) == 1
