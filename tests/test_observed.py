"""Layers shown one by one: names of the checkpoint, outputs as they were computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.numpy_device import NumpyDevice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def test_each_layer_is_shown_in_order_under_its_name(random_model: Callable[[str], Path]) -> None:
    tiny = Checkpoint(random_model("micro"))
    seen: dict[str, NDArray[np.float32]] = {}
    mel = np.random.default_rng(0).standard_normal((tiny.dims.n_mels, 3000), np.float32)
    device = NumpyDevice(tiny)
    pairs = device.encode(mel, observe=seen.__setitem__)
    names = list(seen)
    assert names[:5] == [
        "model.encoder.conv1",
        "model.encoder.conv2",
        "model.encoder.embed_positions",
        "model.encoder.layers.0.self_attn_layer_norm",
        "model.encoder.layers.0.self_attn.q_proj",
    ]
    assert names.index("model.encoder.layers.0.self_attn") == 7
    assert all(f"{name}.weight" in tiny for name in names if not name.endswith("self_attn"))
    last = tiny.dims.n_text_layer - 1
    assert names[-1] == f"model.decoder.layers.{last}.encoder_attn.v_proj"
    np.testing.assert_array_equal(seen[names[-1]], pairs[-1][1])
    assert seen["model.encoder.layer_norm"].shape == (1500, tiny.dims.n_audio_state)
