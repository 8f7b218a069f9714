"""The NPU's weights on disk: one image per model, chip and precision, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from model_table import Shape
from random_checkpoint import SIZES
from typer.testing import CliRunner

from whisper_npu.cli import app
from whisper_npu.devices.npu.weights import Image, build, cached, quantise_rows
from whisper_npu.errors import OptionError
from whisper_npu.kernels import reference
from whisper_npu.model import Linear, Whisper
from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.librknnrt import MOST_MEMORY
from whisper_npu.rknpu.soc import SOCS, Precision

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.checkpoint import Checkpoint

ALL = [(chip, p) for chip in SOCS for p in ("fp16", "int8")]


def image(checkpoint: Checkpoint, chip: str = "rk3588", precision: Precision = "fp16") -> Image:
    return Image(Whisper(checkpoint), SOCS[chip], precision)


@pytest.mark.parametrize(("chip", "precision"), ALL)
def test_each_layer_comes_back(checkpoint: Checkpoint, chip: str, precision: Precision) -> None:
    layout = image(checkpoint, chip, precision)
    arrays = cached(layout, checkpoint)
    for entry in layout.entries.values():
        dtype = np.int8 if entry.precision == "int8" else np.float16
        tiles = arrays["tiles"][entry.offset :][: entry.tile_bytes].view(dtype)
        order = SOCS[chip].orders[entry.precision]
        weight = tiling.untile_weight(tiles, order.b, (entry.n, entry.k)).astype(np.float32)
        scale = entry.channel_scale(arrays["floats"])
        if scale is not None:
            weight *= scale[:, None]
        expected = entry.weight() if scale is None else reference.rotated(entry.weight())
        padding = weight[:, expected.shape[1] :]
        assert not padding.any()
        step = np.abs(expected).max(1) / 127 if scale is not None else np.full(entry.n, 1e-3)
        error = np.abs(weight[:, : expected.shape[1]] - expected).max(1)
        assert (error <= 0.51 * step).all()
        bias = entry.bias(arrays["floats"])
        assert np.allclose(bias, entry.layer.bias * entry.factor)


def test_queries_carry_the_factor_of_attention(checkpoint: Checkpoint) -> None:
    entry = image(checkpoint).entries["model.encoder.layers.0.self_attn.q_proj"]
    assert isinstance(entry.layer, Linear)
    assert entry.factor == pytest.approx(32**-0.5)
    assert np.allclose(entry.weight(), entry.layer.weight / np.sqrt(32))


def test_conversion_keeps_one_weight_at_a_time(checkpoint: Checkpoint) -> None:
    layout = image(checkpoint)
    dict(layout.arrays())
    assert not any("weight" in vars(entry.layer) for entry in layout.entries.values())


@pytest.mark.parametrize(("chip", "precision"), ALL)
@pytest.mark.parametrize("size", SIZES)
def test_weights_of_every_size_are_one_piece_of_memory(
    size: str, chip: str, precision: Precision
) -> None:
    layout = Image(Whisper(cast("Checkpoint", Shape(SIZES[size]))), SOCS[chip], precision)
    assert layout.tile_bytes <= MOST_MEMORY


def test_rows_of_zeros_have_a_scale() -> None:
    whole, scale = quantise_rows(np.array([[0, 0], [1, -2]], np.float32))
    assert whole.tolist() == [[0, 0], [64, -127]]
    assert scale.tolist() == [1, pytest.approx(2 / 127)]


def files(folder: Path) -> list[Path]:
    return sorted((folder / "weights").glob("*npu*.bin"))


def test_chips_and_precisions_have_images_of_their_own(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for chip, precision in ALL:
        assert build(checkpoint, chip, precision) > 0
    assert len(files(tmp_path)) == len(ALL)


def test_an_image_is_not_made_twice(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached(image(checkpoint), checkpoint)
    monkeypatch.setattr(Image, "arrays", lambda _: pytest.fail("made again"))
    again = cached(image(checkpoint), checkpoint)
    assert all(np.array_equal(first[name], again[name]) for name in ("tiles", "floats"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_images_are_made_again(checkpoint: Checkpoint, tmp_path: Path, damage: str) -> None:
    good = cached(image(checkpoint), checkpoint)["tiles"].copy()
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 3] ^= 1
    path.unlink()
    spoilt: dict[str, bytes] = {"truncated": bytes(content[:-999]), "empty": b""}
    path.write_bytes(spoilt.get(damage, bytes(content)))
    assert np.array_equal(cached(image(checkpoint), checkpoint)["tiles"], good)


BUILD = [sys.executable, "-m", "whisper_npu", "cache", "build", "--soc", "rk3588"]


@pytest.mark.parametrize("seconds", [0.0, 0.5, 0.8])
def test_a_builder_killed_at_any_moment_harms_nobody(
    checkpoint: Checkpoint, tmp_path: Path, seconds: float
) -> None:
    process = subprocess.Popen([*BUILD, str(checkpoint.path)], stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    expected = dict(image(checkpoint).arrays())["tiles"]
    assert np.array_equal(cached(image(checkpoint), checkpoint)["tiles"], expected)


def test_builders_at_the_same_time(checkpoint: Checkpoint, tmp_path: Path) -> None:
    command = [*BUILD, str(checkpoint.path)]
    builders = [subprocess.Popen(command, env=dict(os.environ)) for _ in range(3)]
    assert [builder.wait() for builder in builders] == [0, 0, 0]
    assert len(files(tmp_path)) == 1
    expected = dict(image(checkpoint).arrays())["tiles"]
    assert np.array_equal(cached(image(checkpoint), checkpoint)["tiles"], expected)


def test_the_command_says_what_is_ready(checkpoint: Checkpoint) -> None:
    options = ["--soc", "rk3566", "--npu-precision", "int8"]
    result = CliRunner().invoke(app, ["cache", "build", str(checkpoint.path), *options])
    assert result.exit_code == 0
    assert "for rk3566, int8" in result.stderr
    with pytest.raises(OptionError, match="no chip 'rk1'"):
        build(checkpoint, "rk1", "fp16")
