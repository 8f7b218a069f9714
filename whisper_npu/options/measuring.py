"""How devices are measured, and held against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  the command line reads annotations when it runs

from whisper_npu.errors import OptionError
from whisper_npu.options.option import check, option

BENCH, COMPARE = "Measurement", "Comparison"


@dataclass(frozen=True)
class BenchOptions:
    """How often to measure. Raises OptionError."""

    warm_up: int = option(
        1, "Number of windows that are run first and not measured.", BENCH, least=0
    )
    repeats: int = option(5, "Number of windows that are measured.", BENCH, least=1)
    tokens: int = option(32, "Number of tokens to decode in each window.", BENCH, least=1, most=400)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class CompareOptions:
    """What to compare, and with what. Raises OptionError."""

    devices: str | None = option(
        None,
        "Devices to compare, with commas between them; the others are compared with the first. "
        "A device is cpu or npu, or names its precision too: cpu-f32, cpu-f16, cpu-int8, "
        "npu-fp16, npu-int8; npu-fp16-graph takes a compiled graph. Without this option "
        "cpu-f32,cpu-int8; with --emulate npu-fp16,npu-int8 as well.",
        COMPARE,
        metavar="DEVICE,...",
    )
    emulate: str | None = option(
        None,
        "For npu, emulate the NPU of this chip, rk3588 or rk3566, instead of using a real one.",
        COMPARE,
        metavar="CHIP",
    )
    reference: Path | None = option(
        None,
        "What is really said in the recordings: a text file for a single one, a folder with "
        "NAME.txt for each, or a list in a .jsonl file.",
        COMPARE,
    )
    fail_above: float | None = option(
        None,
        "End with exit code 7 when a device has more than this share of different words, such "
        "as 0.02, compared with the first device; a single device is compared with --reference.",
        COMPARE,
        metavar="SHARE",
        least=0,
    )
    language: str = option(
        "auto",
        "Language that is spoken, as a code or an English name; auto: detect it.",
        COMPARE,
        short="-l",
    )
    word_timestamps: bool = option(False, "Compare the times of words as well.", COMPARE)

    def __post_init__(self) -> None:
        check(self)
        if self.fail_above is not None and len(self.names) == 1 and self.reference is None:
            raise OptionError(
                "fail_above has nothing to hold one device against: add reference, or more devices",
                "fail_above",
                "reference",
                "devices",
            )

    @property
    def names(self) -> list[str]:
        """The devices, as `DeviceOptions.named` knows them."""
        emulated = ",npu-fp16,npu-int8" if self.emulate else ""
        names = self.devices or f"cpu-f32,cpu-int8{emulated}"
        return [name.strip() for name in names.split(",")]
