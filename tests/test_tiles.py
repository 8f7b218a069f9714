"""The glue against the plain layers: through strips and back, each function equals its definition.

`kernel` is every implementation there is of the same functions.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from whisper_npu.kernels import native, reference, status, tiles
from whisper_npu.rknpu import tiling


class Native:
    """The compiled functions for one instruction set."""

    def __init__(self, isa: str) -> None:
        self.__name__ = isa

    def __getattr__(self, name: str) -> Any:
        assert native is not None
        if name == "strips":  # only in numpy: rows enter the NPU once a window
            return tiles.strips
        return partial(getattr(native.tiles, name), isa=self.__name__)


KERNELS: list[Any] = [tiles, *map(Native, status().instruction_sets)]
M, D, HEADS = 13, 64, 2

Array = NDArray[Any]
Scales = tuple[Array | None, Array | None]


@pytest.fixture(params=KERNELS, ids=lambda module: module.__name__)
def kernel(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["float32", "int32"])
def product(request: pytest.FixtureRequest) -> tuple[Array, Scales, Array, Array]:
    """C of a matmul, its scales, its bias, and the rows it stands for."""
    rng = np.random.default_rng(7)
    bias = rng.standard_normal(D).astype(np.float32)
    if request.param == "float32":
        y = rng.standard_normal((M, D)).astype(np.float32)
        return tiling.tile(y, 4), (None, None), bias, y + bias
    c = rng.integers(-(10**6), 10**6, (M, D), dtype=np.int32)
    row = rng.uniform(1e-3, 2e-3, M).astype(np.float32)
    channel = rng.uniform(1e-3, 2e-3, D).astype(np.float32)
    return tiling.tile(c, 4), (row, channel), bias, c * row[:, None] * channel + bias


def strips_for(dtype: str, strip: int) -> tuple[Array, Array | None]:
    out = np.zeros((D // strip, M, strip), dtype)
    return out, np.zeros(M, np.float32) if dtype == "int8" else None


def read(out: Array, scale: Array | None) -> Array:
    y = tiling.untile(out, D).astype(np.float32)
    return y if scale is None else y * scale[:, None]


def close(actual: Array, expected: Array, scale: Array | None) -> None:
    """Within one rounding: half a step of each (rotated) row in int8, half an ulp in float16."""
    if scale is None:
        np.testing.assert_allclose(actual, expected, rtol=6e-4, atol=1e-6)
    else:
        expected = reference.rotated(expected)
        np.testing.assert_allclose(scale, np.abs(expected).max(axis=1) / 127, rtol=1e-4)
        assert (np.abs(actual - expected) <= 0.501 * scale[:, None]).all()


OUTPUTS = [("float16", 4), ("float16", 8), ("int8", 8), ("int8", 16)]


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("rows", [1, M])
def test_normalised_weights_sum_to_one(kernel: Any, width: int, rows: int) -> None:
    weights = np.random.default_rng(5).random((rows, D)).astype(np.float16)
    tiles_in = tiling.tile(weights, width)
    total = weights.astype(np.float32).sum(axis=1)
    expected = weights / total[:, None]
    kernel.normalise(tiles_in, total)
    np.testing.assert_allclose(read(tiles_in, None), expected, rtol=6e-4, atol=1e-6)
    assert (total == 1).all()


@pytest.mark.parametrize(("dtype", "strip"), OUTPUTS)
def test_convert(kernel: Any, product: Any, dtype: str, strip: int) -> None:
    c, scales, bias, y = product
    out, scale = strips_for(dtype, strip)
    kernel.convert(c, *scales, bias, out, scale)
    close(read(out, scale), y, scale)


@pytest.mark.parametrize(("dtype", "strip"), [*OUTPUTS, ("float32", 4)])
def test_gelu(kernel: Any, product: Any, dtype: str, strip: int) -> None:
    c, scales, bias, y = product
    out, scale = strips_for(dtype, strip)
    kernel.gelu(c, *scales, bias, out, scale)
    close(read(out, scale), reference.gelu(y.astype(np.float32)), scale)


def test_rows_of_float32_are_scaled_in_place(kernel: Any) -> None:
    y, scale = np.random.default_rng(2).standard_normal((2, M, D)).astype(np.float32)
    strips = tiling.tile(y, 4)
    kernel.convert(strips, scale[:, 0].copy(), None, None, strips, None)
    np.testing.assert_allclose(tiling.untile(strips, D), y * scale[:, :1], rtol=1e-6)


def test_add_is_in_place(kernel: Any, product: Any) -> None:
    c, scales, bias, y = product
    x = np.random.default_rng(1).standard_normal((M, D)).astype(np.float32)
    stream = tiling.tile(x, 4)
    kernel.add(c, *scales, bias, stream)
    np.testing.assert_allclose(tiling.untile(stream, D), x + y, rtol=1e-5, atol=1e-5)


def test_no_bias_is_zero(kernel: Any, product: Any) -> None:
    c, scales, bias, y = product
    out = np.empty((M, D), np.float32)
    kernel.rows(c, *scales, None, out)
    np.testing.assert_allclose(out + bias, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "strip"), OUTPUTS)
@pytest.mark.parametrize("size", [1.0, 3e4])
def test_layer_norm(kernel: Any, dtype: str, strip: int, size: float) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((M, D)) * size).astype(np.float32)
    weight, bias = rng.standard_normal((2, D)).astype(np.float32)
    out, scale = strips_for(dtype, strip)
    kernel.layer_norm(tiling.tile(x, 4), weight, bias, out, scale)
    close(read(out, scale), reference.layer_norm(x, weight, bias), scale)


@pytest.mark.parametrize("rows", [M, 70])
@pytest.mark.parametrize(("width", "strip"), [(4, 4), (8, 8), (8, 4), (4, 8)])
@pytest.mark.parametrize("n_keys", [D, D - 3, D - 8, 1])
def test_softmax_ignores_padding(
    kernel: Any, rows: int, width: int, strip: int, n_keys: int
) -> None:
    scores = (np.random.default_rng(n_keys).standard_normal((rows, D)) * 30).astype(np.float16)
    scores[:, n_keys:] = 1e4
    tiles_in = tiling.tile(scores, width)
    out = tiles_in if width == strip else np.ones((D // strip, rows, strip), np.float16)
    total = np.zeros(rows, np.float32)
    kernel.softmax(tiles_in, n_keys, out, total)
    expected = reference.softmax(scores[:, :n_keys].astype(np.float32))
    weights = read(out, None)[:, :n_keys] / total[:, None]
    np.testing.assert_allclose(weights, expected, rtol=6e-4, atol=1e-7)
    assert not read(out, None)[:, n_keys:].any()


@pytest.mark.parametrize("width", [4, 8])
def test_softmax_of_some_rows_leaves_the_others(kernel: Any, width: int) -> None:
    scores = np.random.default_rng(4).standard_normal((M, D)).astype(np.float16)
    tiles_in = tiling.tile(scores, width)
    kernel.softmax(tiles_in[:, 2:9], D, tiles_in[:, 2:9], np.zeros(7, np.float32))
    after = tiling.untile(tiles_in, D)
    assert np.array_equal(after[:2], scores[:2])
    assert np.array_equal(after[9:], scores[9:])
    assert (after[2:9].max(axis=1) == 1).all()


@pytest.mark.parametrize("order", [(16, 32), (8, 16)])
def test_keys_and_values_become_weights(kernel: Any, product: Any, order: tuple[int, int]) -> None:
    c, scales, bias, y = product
    n, k = order
    width, padded = D // HEADS, 32
    keys = np.ones((HEADS, padded // n, width // k, n, k), np.float16)
    values = np.ones((HEADS, width // n, padded // k, n, k), np.float16)
    kernel.keys(c, *scales, bias, keys)
    kernel.values(c, *scales, bias, values)
    for head in range(HEADS):
        part = y[:, head * width : (head + 1) * width]  # (C, d)
        expected = np.pad(part, ((0, padded - M), (0, 0)))
        got = tiling.untile_weight(keys[head].reshape(-1), order, (padded, width))
        np.testing.assert_allclose(got, expected, rtol=6e-4)
        got = tiling.untile_weight(values[head].reshape(-1), order, (width, padded))
        np.testing.assert_allclose(got, expected.T, rtol=6e-4)


@pytest.mark.parametrize(("dtype", "strip"), OUTPUTS)
def test_strips_pad_with_zeros(kernel: Any, dtype: str, strip: int) -> None:
    x = np.random.default_rng(5).standard_normal((M, D - 7)).astype(np.float32)
    out, scale = strips_for(dtype, strip)
    kernel.strips(x, out, scale)
    close(read(out, scale), np.pad(x, ((0, 0), (0, 7))), scale)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("strip", [4, 8])
def test_taps_make_a_convolution(kernel: Any, step: int, strip: int) -> None:
    rng = np.random.default_rng(9)
    x = rng.standard_normal((14, 16)).astype(np.float16).astype(np.float32)
    weight = rng.standard_normal((8, 16, 3)).astype(np.float32)
    out = np.ones((48 // strip, 14 // step, strip), np.float16)
    for tap in range(3):
        part = out[tap * 16 // strip : (tap + 1) * 16 // strip]
        kernel.tap(tiling.tile(x, 4), tap, step, part)
    flat = weight.transpose(0, 2, 1).reshape(8, 48)
    expected = reference.conv1d(x, weight, np.zeros(8, np.float32), step)
    np.testing.assert_allclose(tiling.untile(out, 48) @ flat.T, expected, rtol=1e-4, atol=1e-4)


def test_float16_saturates(kernel: Any) -> None:
    y = np.full((M, D), 1e6, np.float32)
    out, _ = strips_for("float16", 8)
    kernel.convert(tiling.tile(y, 4), None, None, None, out, None)
    assert (out == 65504).all()


def test_callers_may_slice_rows_and_channels(kernel: Any, product: Any) -> None:
    c, scales, bias, y = product
    out = np.zeros((D // 8, M, 8), np.float16)
    row, channel = scales
    for rows in (slice(0, 5), slice(5, M)):
        for first, last in ((0, 16), (16, D)):
            kernel.convert(
                c[first // 4 : last // 4, rows],
                None if row is None else row[rows],
                None if channel is None else channel[first:last],
                bias[first:last],
                out[first // 8 : last // 8, rows],
                None,
            )
    close(read(out, None), y, None)
