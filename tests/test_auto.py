"""`auto`: the NPU while it works, then the CPU, and the reason once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from test_devices import PROMPT, error, window

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.opening import open_device
from whisper_npu.options import DeviceOptions
from whisper_npu.rknpu import emulator
from whisper_npu.rknpu.librknnrt import Library

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("all_on_npu")


@pytest.fixture(scope="module")
def checkpoint(random_model: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint(random_model("short"))


def test_without_an_npu_it_says_why_once(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    device = open_device(checkpoint, DeviceOptions("auto"))
    device.encode(window())
    assert device.info.name.startswith("cpu")
    (record,) = caplog.records
    assert record.getMessage().startswith("using the CPU: no NPU here")


@pytest.mark.usefixtures("manners")
def test_an_npu_that_dies_is_replaced(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    library = Library(emulator.library("rk3588"))
    library.emulator_reset()
    device = open_device(checkpoint, DeviceOptions("auto", emulate="rk3588"))
    assert device.info.name == "npu fp16 (emulated rk3588)"
    before = device.encode(window())
    library.emulator_fault("rknn_matmul_run", 5, -3, times=-1)
    after, later = device.encode(window()), device.encode(window())
    library.emulator_reset()
    logits = [device.session(encoded).step(PROMPT) for encoded in (before, after, later)]
    assert error(logits[0], logits[1]) < 3e-2
    assert np.array_equal(logits[1], logits[2])
    assert device.info.name.startswith("cpu")
    *_, record = caplog.records
    assert "going on with the CPU: npu: layer model" in record.getMessage()
    assert "device unavailable (code -3)" in record.getMessage()
    device.close()
    assert library.emulator_get("contexts") == 0
