"""What `doctor` looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  the command line reads annotations when it runs

from whisper_npu.options.option import check, option

DIAGNOSIS = "Diagnosis"


@dataclass(frozen=True)
class DoctorOptions:
    """What `doctor` looks at. Raises OptionError."""

    device: str = option(
        "auto",
        "What to examine: with npu, it is a failure when there is none; cpu leaves the NPU out; "
        "auto takes the machine as it is.",
        DIAGNOSIS,
        choices=("auto", "cpu", "npu"),
    )
    model: str | None = option(
        None,
        "Name or folder of a model that has to be on this machine; without this option, the "
        "models that are found are looked at.",
        DIAGNOSIS,
        metavar="NAME",
    )
    rknnrt: Path | None = option(
        None,
        "Path of librknnrt.so, the NPU's library, if it is not in a usual place.",
        DIAGNOSIS,
        metavar="FILE",
    )
    emulate: str | None = option(
        None,
        "Look at the emulated NPU of this chip, rk3588 or rk3566, instead of a real one.",
        DIAGNOSIS,
        metavar="CHIP",
    )

    report: Path | None = option(
        None,
        "Measure this board for some ten minutes, and write what was found as FILE.json, to be "
        "sent to others, and FILE.html, to be read.",
        DIAGNOSIS,
        metavar="FILE",
    )
    load_seconds: float = option(
        300.0,
        "With --report, for how many seconds the board works at full load.",
        DIAGNOSIS,
        metavar="SECONDS",
        least=0,
    )

    def __post_init__(self) -> None:
        check(self)
