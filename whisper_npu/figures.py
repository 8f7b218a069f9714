"""A number and where it comes from. It cannot be printed without the word, unless measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["measured", "emulated", "modelled"]


@dataclass(frozen=True)
class Figure:
    """A quantity with its unit.

    measured  on this machine, of what is reported
    emulated  on this machine, of a stand-in for hardware that is not here: no speed of a board
    modelled  calculated from constants, nothing was run
    """

    value: float
    unit: str
    origin: Origin = "measured"

    def __str__(self) -> str:
        value, unit = self.value, self.unit
        if unit == "s" and 0 < abs(value) < 1:
            value, unit = 1e3 * value, "ms"
        number = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        text = f"{number} {unit}".strip()
        return text if self.origin == "measured" else f"{text} {self.origin}"

    def __format__(self, specification: str) -> str:
        return format(str(self), specification)

    def record(self) -> dict[str, float | str]:
        """As JSON knows it."""
        return {"value": self.value, "unit": self.unit, "origin": self.origin}
