"""The native kernels of every instruction set, against `reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_npu.kernels import reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float32]

native = pytest.importorskip("whisper_npu.kernels._native")  # installed without a compiler

KINDS = {"f32": (0, 2e-6), "f16": (1, 6e-3), "int8": (2, 1.5e-2)}  # kind, error / largest result
every_isa = pytest.mark.parametrize("isa", native.instruction_sets())


def padded(x: Float, *multiples: int) -> Float:
    return np.pad(x, [(0, -n % m) for n, m in zip(x.shape, multiples, strict=True)])


def native_linear(
    isa: str, kind: int, x: Float, weight: Float, bias: Float, *, threads: int = 1,
    gelu: bool = False, residual: Float | None = None,
) -> Float:  # fmt: skip
    packed = native.pack(padded(weight, 64, 16), kind)
    return native.linear(
        isa, x, kind, *packed, padded(bias, 64), len(weight), gelu, residual, threads
    )


def matrices(rows: int, n_in: int, n_out: int) -> tuple[Float, Float, Float]:
    rng = np.random.default_rng([rows, n_in, n_out])
    x = rng.standard_normal((rows, n_in), np.float32)
    weight = rng.standard_normal((n_out, n_in), np.float32)
    return x, weight, rng.standard_normal(n_out, np.float32)


@every_isa
@pytest.mark.parametrize("kind", KINDS)
@given(
    rows=st.integers(1, 20), n_in=st.integers(1, 300), n_out=st.integers(1, 200),
    gelu=st.booleans(), add=st.booleans(), threads=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_linear_of_any_size(
    isa: str, kind: str, rows: int, n_in: int, n_out: int, gelu: bool, add: bool, threads: int
) -> None:
    x, weight, bias = matrices(rows, n_in, n_out)
    residual = np.full((rows, n_out), 3, np.float32) if add else None
    expected = reference.linear(x, weight, bias)
    if gelu:
        expected = reference.gelu(expected)
    if residual is not None:
        expected = expected + residual
    number, tolerance = KINDS[kind]
    y = native_linear(isa, number, x, weight, bias, threads=threads, gelu=gelu, residual=residual)
    largest = np.abs(x).sum(1, keepdims=True).max() + 5  # bounds each result of unit weights
    assert np.abs(y - expected).max() <= tolerance * largest


@every_isa
@pytest.mark.parametrize("n_out", [51864, 51865, 51866])
def test_linear_to_a_vocabulary(isa: str, n_out: int) -> None:
    x, weight, bias = matrices(2, 64, n_out)
    y = native_linear(isa, 0, x, weight, bias, threads=2)
    np.testing.assert_allclose(y, reference.linear(x, weight, bias), atol=1e-4)


@every_isa
def test_int8_is_exact_on_whole_numbers(isa: str) -> None:
    """Sums far beyond 16 bits, with the extreme products: no step may saturate."""
    rng = np.random.default_rng(0)
    x = rng.choice([-127, 127], (7, 3072)).astype(np.float32)
    weight = rng.choice([-127, 127], (64, 3072)).astype(np.float32)
    weight[0] = 127
    x[0] = 127
    turned_x, turned_weight = (reference.rotated(values, back=True) for values in (x, weight))
    y = native_linear(isa, 2, turned_x, turned_weight, np.zeros(64, np.float32))
    np.testing.assert_allclose(
        y, reference.linear(x, weight), rtol=1e-5, atol=1e-6 * 127 * 127 * 3072
    )


@given(n=st.integers(1, 400), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_rotation_keeps_products_and_comes_back(n: int, seed: int) -> None:
    x, y = np.random.default_rng(seed).standard_normal((2, 3, n), np.float32)
    turned = reference.rotated(x)
    np.testing.assert_allclose(reference.rotated(turned, back=True), x, atol=1e-5)
    np.testing.assert_allclose(turned @ reference.rotated(y).T, x @ y.T, atol=1e-4)


def in_int8(x: Float) -> Float:
    """What is left of rows: rotated, rounded, and rotated back."""
    turned = reference.rotated(x)
    step = np.abs(turned).max(1, keepdims=True) / 127
    return reference.rotated(np.rint(turned / step) * step, back=True)


@every_isa
@pytest.mark.parametrize("width", [16, 48, 384, 512, 768, 1280, 1536])
def test_one_large_channel_leaves_the_others_their_bits(isa: str, width: int) -> None:
    x, weight, bias = matrices(5, width, 70)
    x[:, width // 3] = 200
    rounded_x, rounded_weight = in_int8(x), in_int8(weight)
    y = native_linear(isa, 2, x, weight, bias)
    # a value between two steps may be rounded either way
    step = np.abs(reference.rotated(x)).max() / 127 * np.abs(weight).max() * np.sqrt(width)
    np.testing.assert_allclose(
        y, reference.linear(rounded_x, rounded_weight, bias), atol=step, rtol=1e-4
    )
    if width >= 384:
        plain_step = np.abs(x).max(1, keepdims=True) / 127
        plain = np.rint(x / plain_step) * plain_step
        assert np.linalg.norm(rounded_x - x) < 0.6 * np.linalg.norm(plain - x)


@every_isa
@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_row_poisons_only_itself(isa: str, kind: int, poison: float) -> None:
    x, weight, bias = matrices(9, 100, 70)
    clean = native_linear(isa, kind, x, weight, bias)
    x[4, 17] = poison
    y = native_linear(isa, kind, x, weight, bias)
    assert not np.isfinite(y[4]).any()
    rest = np.arange(9) != 4
    np.testing.assert_array_equal(y[rest], clean[rest])


@every_isa
def test_a_row_of_zeros_gives_the_bias(isa: str) -> None:
    _, weight, bias = matrices(1, 30, 65)
    for kind in range(3):
        y = native_linear(isa, kind, np.zeros((1, 30), np.float32), weight, bias)
        np.testing.assert_array_equal(y[0], bias)


@every_isa
@given(rows=st.integers(1, 5), n=st.integers(2, 200), offset=st.sampled_from([0, 3, -1000]))
@settings(max_examples=40, deadline=None)
def test_layer_norm(isa: str, rows: int, n: int, offset: float) -> None:
    x, _, _ = matrices(rows, n, 1)
    _, weight, bias = matrices(1, 1, n)
    y = native.layer_norm(isa, x + np.float32(offset), weight[:, 0].copy(), bias)
    expected = reference.layer_norm(x + np.float32(offset), weight[:, 0], bias)
    np.testing.assert_allclose(y, expected, atol=2e-5 if abs(offset) < 10 else 5e-3)


@every_isa
def test_gelu(isa: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 1001), [0, 1e10, -1e10]]).astype(np.float32)
    np.testing.assert_allclose(native.gelu(isa, x), reference.gelu(x), atol=3e-6)
    assert np.isnan(native.gelu(isa, np.full(1, np.nan, np.float32))).all()


@every_isa
@given(rows=st.integers(1, 3), n=st.integers(1, 2000), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=40, deadline=None)
def test_log_sum_exp(isa: str, rows: int, n: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, n)) * 30).astype(np.float32)
    x[rng.random((rows, n)) < 0.3] = -np.inf
    first = data.draw(st.integers(0, n - 1))
    exact = reference.log_sum_exp(x[:, first:].astype(np.float64))
    y = native.log_sum_exp(x, first, isa)
    np.testing.assert_allclose(y, exact, atol=2e-5)


@every_isa
@given(rows=st.integers(1, 3), n=st.integers(1, 500), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=40, deadline=None)
def test_largest(isa: str, rows: int, n: int, seed: int, data: st.DataObject) -> None:
    """All different: which of equals at the end are taken is anybody's."""
    rng = np.random.default_rng(seed)
    x = rng.permuted(np.arange(rows * n, dtype=np.float32).reshape(rows, n), axis=1)
    count = data.draw(st.integers(1, n))
    values, places = native.largest(x, count, isa)
    np.testing.assert_array_equal(values, -np.sort(-x, axis=1)[:, :count])
    np.testing.assert_array_equal(np.take_along_axis(x, places, axis=1), values)
    for ours, theirs in zip((values, places), reference.largest(x, count), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@every_isa
def test_the_earlier_of_equals_comes_first(isa: str) -> None:
    x = np.array([[1, 5, -np.inf, 5, 1, 5]], np.float32)
    values, places = native.largest(x, 6, isa)
    assert values[0].tolist() == [5, 5, 5, 1, 1, -np.inf]
    assert places[0, :5].tolist() == [1, 3, 5, 0, 4]


@every_isa
def test_log_sum_exp_of_what_is_no_number(isa: str) -> None:
    x = np.zeros((3, 40), np.float32)
    x[0], x[1, 7], x[2, 39] = -np.inf, np.inf, np.nan
    np.testing.assert_equal(native.log_sum_exp(x, 0, isa)[:2], [-np.inf, np.inf])
    assert np.isnan(native.log_sum_exp(x, 0, isa)[2])


def test_a_wrong_size_is_refused() -> None:
    x = np.zeros((2, 16), np.float32)
    panels, scale, sums = native.pack(np.zeros((64, 16), np.float32), 2)
    with pytest.raises(ValueError, match="panels"):
        native.linear("portable", x, 2, panels[:-1], scale, sums, np.zeros(64, np.float32),
                      64, False, None, 1)  # fmt: skip
    with pytest.raises(ValueError, match="cannot run"):
        native.gelu("z80", np.zeros(1, np.float32))
