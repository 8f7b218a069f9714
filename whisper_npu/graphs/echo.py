"""A number that a graph must give back, since RKNNLite hides failed runs.

When `rknn_run` fails, RKNNLite still returns outputs: those of the run before. So every graph takes
a number with each run and returns it with the results, as bits of -1 and 1, which survive float16
and int8 alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float32]

N_ECHO = 16  # bits; consecutive numbers differ for 65536 runs


def echo_bits(number: int) -> Float:
    """(1, 1, E) float32 of -1 and 1, the lowest bit first."""
    bits = (number >> np.arange(N_ECHO)) & 1
    return np.where(bits == 1, 1, -1).astype(np.float32)[None, None]


def read_echo(echoed: Float) -> int:
    """The number in (1, 1, >= E) float32."""
    bits = echoed.reshape(-1)[:N_ECHO] > 0
    return int(sum(1 << i for i in range(N_ECHO) if bits[i]))
