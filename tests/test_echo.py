"""The number that proves a run."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from whisper_npu.graphs.echo import N_ECHO, echo_bits, read_echo


@given(st.integers(0, (1 << N_ECHO) - 1))
def test_a_number_survives_int8_and_company(number: int) -> None:
    bits = echo_bits(number)
    assert bits.shape == (1, 1, N_ECHO)
    rounded = np.round(bits * 20) / 23  # as coarse as int8 next to large values
    followed = np.concatenate([rounded, np.full_like(bits, 9)], axis=-1)
    assert read_echo(followed) == number
