"""How near an array is to the one that was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Closeness(NamedTuple):
    """Another shape, or a value that is not finite, is infinitely far."""

    cosine: float
    relative: float  # norm of the difference over the norm of what was expected
    largest: float  # largest difference
    largest_relative: float  # the same over the largest value of what was expected


def closeness(actual: NDArray[Any], expected: NDArray[Any]) -> Closeness:
    """Compare two arrays."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return Closeness(0.0, np.inf, np.inf, np.inf)
    a, b = (x.astype(np.float64).ravel() for x in (actual, expected))
    norms, largest = np.sqrt((a @ a) * (b @ b)), np.abs(a - b).max()
    return Closeness(
        float(a @ b / norms) if norms else float(not a.any() and not b.any()),
        float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)),
        float(largest),
        float(largest / (np.abs(b).max() or 1)),
    )
