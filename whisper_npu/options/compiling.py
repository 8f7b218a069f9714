"""How graphs for an NPU are compiled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  the command line reads annotations when it runs

from whisper_npu.options.option import check, option, whole_numbers

GRAPHS = "Graphs"


@dataclass(frozen=True)
class CompileOptions:
    """Which graphs to compile, and how. Raises OptionError."""

    target: tuple[str, ...] = option(
        (),
        "Chip to compile for: rk3588, rk3576, rk3566 or rk3562. May be given several times.",
        GRAPHS,
        metavar="CHIP",
    )
    npu_precision: str = option(
        "auto",
        "Precision of the graph: fp16, or int8, which is faster, less exact, and needs "
        "--calibrate; auto: fp16.",
        GRAPHS,
        choices=("auto", "fp16", "int8"),
    )
    calibrate: Path | None = option(
        None,
        "Folder of recordings from which the number range of each layer is learnt, for int8.",
        GRAPHS,
        metavar="FOLDER",
    )
    window: tuple[int, ...] = option(
        (30,),
        "Seconds of sound that a graph takes at once; for --short-windows of transcribe, "
        "30,20,10 makes three graphs.",
        GRAPHS,
        read=whole_numbers,
        metavar="SECONDS,...",
    )
    audio: Path | None = option(
        None,
        "Recordings on which the finished graph is verified; without this option, those of "
        "--calibrate, else two short samples that come with this program.",
        GRAPHS,
    )
    layers: bool = option(False, "Verify the output of every layer as well.", GRAPHS)
    again: bool = option(False, "Compile graphs again that are there already.", GRAPHS)
    toolchain_python: Path | None = option(
        None,
        "A Python program in whose environment rknn-toolkit2 is installed; without this option, "
        "an environment is made for it.",
        GRAPHS,
    )

    def __post_init__(self) -> None:
        check(self)
