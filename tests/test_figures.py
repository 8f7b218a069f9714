"""A figure keeps the word that says where it comes from."""

from __future__ import annotations

import pytest

from whisper_npu.figures import Figure, Origin


@pytest.mark.parametrize("origin", ["emulated", "modelled"])
def test_what_was_not_measured_cannot_be_printed_without_the_word(origin: Origin) -> None:
    figure = Figure(12.345, "ms", origin)
    for text in (str(figure), f"{figure}", f"{figure:>30}", "%s" % figure, "{}".format(figure)):  # noqa: UP031, UP032  all the ways
        assert text.strip() == f"12.3 ms {origin}"
    with pytest.raises((TypeError, ValueError)):
        f"{figure:.3f}"
    assert figure.record() == {"value": 12.345, "unit": "ms", "origin": origin}


def test_measured_figures_need_no_word() -> None:
    assert str(Figure(0.012345, "s")) == "12.3 ms"
    assert str(Figure(1234567.8, "GB/s")) == "1,234,568 GB/s"
    assert str(Figure(1.5, "")) == "1.5"
