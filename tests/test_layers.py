"""Errors of layers: counted by hand, and a planted fault that is found and named."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manners import behaving

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.comparison.layers import (
    N_POSITIONS,
    LayerError,
    layer_error,
    layer_errors,
    outputs,
    suspect,
)
from whisper_npu.devices import npu
from whisper_npu.devices.npu.weights import cached
from whisper_npu.devices.numpy_device import NumpyDevice
from whisper_npu.devices.opening import open_device
from whisper_npu.options import DeviceOptions
from whisper_npu.reference import NumpyOps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.devices.npu.weights import Image
    from whisper_npu.model import Conv, Linear, Norm

    Float = NDArray[np.float32]


class FaultyOps(NumpyOps):
    """One layer with a wrong scale."""

    def __init__(self, layer: str, scale: float) -> None:
        self._layer, self._scale = layer, np.float32(scale)

    def _scaled(self, name: str, x: Float) -> Float:
        return x * self._scale if name == self._layer else x

    def conv_gelu(self, x: Float, conv: Conv) -> Float:
        return self._scaled(conv.name, super().conv_gelu(x, conv))

    def layer_norm(self, x: Float, norm: Norm) -> Float:
        return self._scaled(norm.name, super().layer_norm(x, norm))

    def linear(self, x: Float, linear: Linear, **epilogue: Any) -> Float:
        return self._scaled(linear.name, super().linear(x, linear, **epilogue))


class NoisyOps(NumpyOps):
    """Every layer off by one part in a hundred, as int8 is."""

    def linear(self, x: Float, linear: Linear, **epilogue: Any) -> Float:
        y = super().linear(x, linear, **epilogue)
        noise = np.random.default_rng(len(linear.name)).standard_normal(y.shape, np.float32)
        return y + noise * np.float32(0.01 * y.std())


@pytest.fixture(scope="module")
def micro(random_model: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint(random_model("micro"))


@pytest.fixture(scope="module")
def mel(micro: Checkpoint) -> Float:
    return np.random.default_rng(0).standard_normal((micro.dims.n_mels, 3000), np.float32)


@pytest.fixture(scope="module")
def expected(micro: Checkpoint, mel: Float) -> dict[str, Float]:
    return outputs(NumpyDevice(micro), mel)


def device_of(checkpoint: Checkpoint, ops: NumpyOps) -> NumpyDevice:
    device = NumpyDevice(checkpoint)
    device._ops = ops
    return device


@pytest.mark.parametrize(
    ("layer", "scale"),
    [
        ("model.encoder.conv1", 0.5),
        ("model.encoder.layers.0.self_attn.q_proj", 1.25),
        ("model.encoder.layers.1.fc1", -1.0),
        ("model.encoder.layers.1.final_layer_norm", np.nan),
        ("model.encoder.layer_norm", 1.25),
        ("model.decoder.layers.1.encoder_attn.v_proj", 2.0),
    ],
)
def test_a_planted_fault_is_named(
    micro: Checkpoint, mel: Float, expected: dict[str, Float], layer: str, scale: float
) -> None:
    errors = layer_errors(expected, device_of(micro, FaultyOps(layer, scale)), mel)
    blamed = suspect(errors)
    assert blamed is not None
    assert blamed.name == layer
    if np.isfinite(scale):
        assert blamed.relative == pytest.approx(abs(1 - scale), rel=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        "model.encoder.layers.1.fc2",
        "model.encoder.layers.0.self_attn.v_proj",
        "model.decoder.layers.0.encoder_attn.k_proj",
    ],
)
def test_a_wrong_scale_among_the_weights_of_the_npu_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_en: Path, layer: str
) -> None:
    """Where it would happen: in what an int8 weight stands for, on the (emulated) NPU."""

    def spoilt(image: Image, checkpoint: Checkpoint) -> dict[str, Any]:
        arrays = {name: np.array(array) for name, array in cached(image, checkpoint).items()}
        scale = image.entries[layer].channel_scale(arrays["floats"])
        assert scale is not None
        scale *= 2
        return arrays

    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path))
    checkpoint = Checkpoint(tiny_en)  # wide enough for the plan to leave no layer on the CPU
    mel = np.random.default_rng(0).standard_normal((80, 3000), np.float32)
    expected = outputs(NumpyDevice(checkpoint), mel)
    options = DeviceOptions("npu", npu_precision="int8", emulate="rk3588")
    monkeypatch.setattr(npu, "cached", spoilt)
    with behaving("all", tiny_en), closing(open_device(checkpoint, options)) as device:
        blamed = suspect(layer_errors(expected, device, mel))
    assert blamed is not None
    assert blamed.name == layer


def test_rounding_is_no_fault(micro: Checkpoint, mel: Float, expected: dict[str, Float]) -> None:
    errors = layer_errors(expected, device_of(micro, NoisyOps()), mel)
    assert max(error.relative for error in errors) > 0.005
    assert suspect(errors) is None
    assert suspect([]) is None


def test_all_layers_are_compared_at_both_ends(expected: dict[str, Float], mel: Float) -> None:
    assert len(expected) == 3 + 2 * 9 + 1 + 2 * 2
    assert all(len(rows) <= N_POSITIONS for rows in expected.values())
    assert expected["model.encoder.conv1"].shape[0] == N_POSITIONS


def test_equal_devices_have_no_error(
    micro: Checkpoint, mel: Float, expected: dict[str, Float]
) -> None:
    errors = layer_errors(expected, NumpyDevice(micro), mel)
    assert [error.name for error in errors] == list(expected)
    assert {error.max_abs for error in errors} == {0.0}
    assert min(error.cosine for error in errors) > 1 - 1e-9


def test_by_hand() -> None:
    a, b = np.array([[3, 4]], np.float32), np.array([[3, 0]], np.float32)
    found = layer_error("x", a, b)
    assert (found.max_abs, found.relative, found.cosine) == pytest.approx((4, 4 / 5, 9 / 15))
    assert layer_error("x", a, a[:, :1]).relative == np.inf
    assert layer_error("x", a * 0, a * 0).relative == 0


@given(st.lists(st.floats(0, 0.1), max_size=20), st.floats(0.7, 10))
def test_only_a_jump_is_blamed(rounding: list[float], jump: float) -> None:
    errors = [LayerError(str(i), 0, value, 1) for i, value in enumerate(rounding)]
    found = suspect([*errors, LayerError("fault", 0, jump, 1)])
    assert found is not None
    assert found.name == "fault"
    assert suspect(errors) is None
