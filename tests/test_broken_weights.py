"""Weights that are no numbers are found by every device, and channels of zeros are numbers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.numpy_device import NumpyDevice
from whisper_npu.devices.opening import open_device
from whisper_npu.errors import ModelError
from whisper_npu.options import DeviceOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("all_on_npu")

_NPU = DeviceOptions("npu", emulate="rk3588")
DEVICES = {
    "numpy": None,
    "cpu f32": DeviceOptions("cpu", "f32"),
    "cpu f16": DeviceOptions("cpu", "f16"),
    "cpu int8": DeviceOptions("cpu", "int8"),
    "npu fp16": replace(_NPU, npu_precision="fp16"),
    "npu int8": replace(_NPU, npu_precision="int8"),
}
TENSORS = (
    "model.encoder.conv1.weight",
    "model.encoder.layers.1.fc1.weight",
    "model.encoder.layers.0.self_attn_layer_norm.bias",
    "model.decoder.layers.1.encoder_attn.k_proj.weight",
    "model.decoder.layers.0.fc2.weight",
    "model.decoder.embed_tokens.weight",
)


@pytest.fixture
def folder(
    random_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(random_model("short"), tmp_path / "model")


def logits(checkpoint: Checkpoint, name: str) -> NDArray[np.float32]:
    """Of a first token, after a window of noise."""
    mel = np.random.default_rng(0).standard_normal((80, 200), np.float32)
    options = DEVICES[name]
    device = open_device(checkpoint, options) if options else NumpyDevice(checkpoint)
    try:
        return device.session(device.encode(mel)).step(np.array([[50258, 50259]]))
    finally:
        device.close()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tensor", TENSORS)
def test_a_value_that_is_no_number_is_found(folder: Path, device: str, tensor: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor].reshape(-1)[7] = np.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"{tensor} has infinite values or NaN"):
        logits(Checkpoint(folder), device)


@pytest.mark.parametrize("device", DEVICES)
def test_channels_of_zeros_are_numbers(folder: Path, device: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    for tensor in TENSORS:
        tensors[tensor][3] = 0  # an output of the layer
        if tensors[tensor].ndim > 1:
            tensors[tensor][:, 5] = 0  # an input
    tensors["model.encoder.layers.0.fc1.weight"][:] = 0
    tensors["model.decoder.layers.1.fc2.weight"][:] = 0
    save_file(tensors, folder / "model.safetensors")
    found = logits(Checkpoint(folder), device)
    np.testing.assert_array_equal(np.isfinite(found), True)
    assert np.ptp(found) > 0
