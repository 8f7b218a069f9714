"""Every element lands where the documented index formula says; padding is zero; inverses invert."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.soc import SOCS, Order

ORDERS = sorted({(o.a, o.b) for soc in SOCS.values() for o in soc.orders.values()})


@pytest.mark.parametrize("strip", [4, 8, 16, 32])
@pytest.mark.parametrize(("m", "k"), [(1, 32), (5, 64), (7, 96)])
def test_rows_follow_the_index_formula(strip: int, m: int, k: int) -> None:
    x = np.arange(m * k, dtype=np.int32).reshape(m, k)
    flat = tiling.tile(x, strip).reshape(-1)
    for row in range(m):
        for column in range(k):
            index = (column // strip * m + row) * strip + column % strip
            assert flat[index] == x[row, column]


@pytest.mark.parametrize("order", [b for _, b in ORDERS])
@pytest.mark.parametrize("segment", [None, 64])
def test_weights_follow_the_index_formula(order: tuple[int, int], segment: int | None) -> None:
    n, k = order
    n_out, n_in = 2 * n, 160
    weight = np.arange(n_out * n_in, dtype=np.int32).reshape(n_out, n_in)
    flat = tiling.tile_weight(weight, order, (n_out, n_in), segment)
    assert flat.shape == (n_out * n_in,)
    for row in range(n_out):
        for column in range(n_in):
            start = column // segment * segment if segment else 0
            width = min(segment or n_in, n_in - start)
            inside = column - start
            tile = row // n * (width // k) + inside // k
            index = n_out * start + (tile * n + row % n) * k + inside % k
            assert flat[index] == weight[row, column]


sizes = st.integers(1, 70)


@given(sizes, sizes, st.sampled_from([4, 8, 16, 32]))
def test_rows_come_back_and_padding_is_zero(m: int, k: int, strip: int) -> None:
    x = np.random.default_rng(k).integers(1, 100, (m, k)).astype(np.float16)
    tiles = tiling.tile(x, strip, -(-k // 32) * 32)
    assert tiles.size == m * -(-k // 32) * 32
    assert np.array_equal(tiling.untile(tiles, k), x)
    assert np.count_nonzero(tiles) == x.size


def _orders() -> st.SearchStrategy[Order]:
    return st.sampled_from([o for soc in SOCS.values() for o in soc.orders.values()])


@settings(max_examples=60)
@given(_orders(), sizes, sizes, st.booleans())
def test_weights_come_back_and_padding_is_zero(
    order: Order, n: int, k: int, segmented: bool
) -> None:
    weight = np.random.default_rng(n).integers(1, 100, (n, k)).astype(np.int8)
    shape = order.padded_n(n), order.padded_k(k)
    segment = order.align_k if segmented else None
    tiles = tiling.tile_weight(weight, order.b, shape, segment)
    back = tiling.untile_weight(tiles, order.b, shape, segment)
    assert np.array_equal(back[:n, :k], weight)
    assert np.count_nonzero(tiles) == weight.size
