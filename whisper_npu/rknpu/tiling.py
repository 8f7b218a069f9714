"""Row-major <-> the NPU's own order, in numpy: the definition the compiled kernels are tested by.

A and C lie in strips of columns, (columns / s, M, s); B lies in tiles, (N / n, K / k, n, k). The
widths come from `soc`. Padding is zero. Nothing here knows what a matrix is for.
Source: the layout rules of the vendor's matmul interface, checked in tests against the index of
each single element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

C_STRIP = 4  # columns in one strip of a float32 or int32 result, on every chip


def tile(x: Array, strip: int, columns: int | None = None) -> Array:
    """Rows -> strips of columns: the order of A, and of C with strip = 4.

    x        (M, K)             any    row-major
    columns                            K rounded up, a multiple of strip; default: the next one
    return   (columns / s, M, s)  same  zero beyond K
    """
    m, k = x.shape
    columns = -(-k // strip) * strip if columns is None else columns
    padded = np.zeros((m, columns), x.dtype)
    padded[:, :k] = x
    return np.ascontiguousarray(padded.reshape(m, columns // strip, strip).transpose(1, 0, 2))


def untile(tiles: Array, columns: int) -> Array:
    """Strips of columns -> rows, without the padding.

    tiles   (J, M, s)     any
    return  (M, columns)  same  row-major
    """
    n_strips, m, strip = tiles.shape
    return np.ascontiguousarray(tiles.transpose(1, 0, 2).reshape(m, n_strips * strip)[:, :columns])


def tile_weight(
    weight: Array, order: tuple[int, int], shape: tuple[int, int], segment: int | None = None
) -> Array:
    """A layer's weight -> the order of B, as one run of elements.

    weight   (N, K)      any   as stored by a checkpoint: B is its transpose
    order    (n, k)            one tile
    shape    (N', K')          rounded up to the chip's alignment
    segment                    rows of B tiled on their own before the next begin; None: all
    return   (N' K',)    same  zero beyond N and K
    """
    n_out, n_in = shape
    padded = np.zeros(shape, weight.dtype)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    n, k = order
    segment = segment or n_in
    parts = []
    for start in range(0, n_in, segment):
        part = padded[:, start : start + segment]  # (N', K' of this segment)
        tiles = part.reshape(n_out // n, n, part.shape[1] // k, k).transpose(0, 2, 1, 3)
        parts.append(tiles.reshape(-1))
    return np.concatenate(parts)


def untile_weight(
    tiles: Array, order: tuple[int, int], shape: tuple[int, int], segment: int | None = None
) -> Array:
    """The inverse of `tile_weight`, padding included.

    tiles   (N' K',)   any
    return  (N', K')   same
    """
    n_out, n_in = shape
    n, k = order
    segment = segment or n_in
    parts = []
    for start in range(0, n_in, segment):
        width = min(segment, n_in - start)
        part = tiles[n_out * start : n_out * (start + width)]
        grid = part.reshape(n_out // n, width // k, n, k).transpose(0, 2, 1, 3)
        parts.append(grid.reshape(n_out, width))
    return np.concatenate(parts, axis=1)
