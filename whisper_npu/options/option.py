"""One option, declared once: as the field of the dataclass that uses it.

    beam_size: int | None = option(None, "How many candidates to follow.", SEARCH, least=1)

Everything else comes from the field: the flag --beam-size, the setting beam-size, the variable
WHISPER_NPU_BEAM_SIZE, its line in --help and in `config show`, and the check of its value, wherever
that was given. Nothing here imports anything heavy: --help needs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# groups, as headings in --help
MODEL, OUTPUT, MANY, SPEECH = "Model and device", "Output", "Many recordings", "Speech"
SEARCH, FALLBACK, PROMPTS = "Search", "Fallback and silence", "Prompts"
SUBTITLES = "Word times and subtitles"

LIBRARY = object()  # the command line has the library's default


@dataclass(frozen=True)
class Option:
    """What is known of an option besides its name, type and default."""

    text: str  # help: a whole sentence
    group: str  # heading in --help
    short: str  # a flag of one letter, such as -m
    metavar: str  # what stands for the value in --help
    least: float | None  # of a number, or of each number in a tuple
    most: float | None
    above: float | None  # least, without this number itself
    rises: bool  # a tuple whose numbers grow
    needs: str  # name of the option without which this one means nothing
    choices: tuple[str, ...]  # of a text, or of each text in a tuple
    read: Callable[[str], Any] | None  # text -> value, raises ValueError; None: by the type
    typed: Any  # default on the command line, where that is not the library's

    def wrong(self, value: Any) -> str:
        """Why a value is not allowed; empty when it is."""
        values = value if isinstance(value, tuple) else (value,)
        wrong = next(filter(None, map(self._wrong, values)), "")
        if not wrong and self.rises and any(a >= b for a, b in pairwise(values)):
            return "it must be one number, or several that rise"
        return wrong

    def _wrong(self, one: Any) -> str:
        if self.choices and one not in self.choices:
            return f"{one!r} is not one of {', '.join(self.choices)}"
        if isinstance(one, float) and not math.isfinite(one):
            return f"{one} is not a number that can be used here"
        if self.least is not None and one < self.least:
            return f"{one:g} is less than {self.least:g}"
        if self.most is not None and one > self.most:
            return f"{one:g} is more than {self.most:g}"
        if self.above is not None and one <= self.above:
            return f"{one:g} is not above {self.above:g}"
        return ""


def option(  # noqa: PLR0913  each says one thing about the option
    default: T,
    text: str,
    group: str,
    *,
    short: str = "",
    metavar: str = "",
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    rises: bool = False,
    needs: str = "",
    choices: tuple[str, ...] = (),
    read: Callable[[str], Any] | None = None,
    typed: Any = LIBRARY,
) -> T:
    """Declare a field of a dataclass as an option; see `Option`."""
    declared = Option(
        text, group, short, metavar, least, most, above, rises, needs, choices, read, typed
    )
    found: T = field(default=default, metadata={"option": declared})
    return found


def declared(options: Any) -> dict[str, Option]:
    """The options of a dataclass, by the names of their fields."""
    return {one.name: one.metadata["option"] for one in fields(options) if one.metadata}


def check(options: Any) -> None:
    """Raise OptionError for the first value that is not allowed as it was declared."""
    for name, one in declared(options).items():
        value = getattr(options, name)
        if value is not None and (wrong := one.wrong(value)):
            raise OptionError(f"{name}: {wrong}", name)
        if value not in (None, False) and one.needs and not getattr(options, one.needs):
            raise OptionError(f"{name} needs {one.needs}", name, one.needs)


def whole_number(text: str) -> int:
    """An int. Raises ValueError that says what is wrong."""
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a whole number") from error


def number(text: str) -> float:
    """A float. Raises ValueError that says what is wrong."""
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a number") from error


def number_or_none(text: str) -> float | None:
    """A number, or "none" to switch something off."""
    if text.strip().lower() == "none":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither a number nor none") from error


def numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas."""
    return tuple(number(part.strip()) for part in text.split(","))


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas; an empty text holds none."""
    return tuple(whole_number(part.strip()) for part in text.split(",") if part.strip())


def n_bytes(text: str) -> int:
    """A size in bytes: 800M, 2G, 1500000."""
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
    digits, unit = text.strip().upper().removesuffix("B"), ""
    if digits[-1:] in units:
        digits, unit = digits[:-1], digits[-1:]
    try:
        return int(float(digits) * units[unit])
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a size such as 800M or 2G") from error
