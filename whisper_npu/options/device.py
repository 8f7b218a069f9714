"""Where a model runs, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisper_npu.options.option import MODEL, check, option

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class DeviceOptions:
    """How to open a device. Raises OptionError."""

    device: str = option(
        "auto",
        "Where to run the model: cpu, npu, or auto, which takes the NPU if there is one that "
        "works.",
        MODEL,
        choices=("auto", "cpu", "npu"),
    )
    precision: str = option(
        "auto",
        "Precision of the weights on the CPU: f32 is exact, f16 and int8 are smaller and faster; "
        "auto: what is fastest on this CPU.",
        MODEL,
        choices=("auto", "f32", "f16", "int8"),
    )
    threads: int | None = option(
        None,
        "Number of CPU threads; without this option, one for each fast core.",
        MODEL,
        least=1,
        most=256,
    )
    npu_precision: str = option(
        "auto",
        "Precision on the NPU: fp16, or int8, which is faster and less exact; auto: fp16.",
        MODEL,
        choices=("auto", "fp16", "int8"),
    )
    npu_path: str = option(
        "auto",
        "How the NPU runs the encoder: layer by layer (layers), or as a graph made with "
        "whisper-npu compile (graph); auto: the faster of those that are there.",
        MODEL,
        choices=("auto", "layers", "graph"),
    )
    npu_cores: int = option(
        1, "Number of NPU cores that work on one graph; layers use all cores.", MODEL, least=1
    )
    short_windows: bool = option(
        False,
        "Do not fill up the last piece of a recording, or a short recording, to 30 seconds: "
        "faster, less exact. On the NPU this needs graphs compiled for 10 and 20 seconds.",
        MODEL,
    )
    emulate: str | None = option(
        None,
        "Emulate the NPU of this chip, rk3588 or rk3566, instead of using a real one.",
        MODEL,
        metavar="CHIP",
    )
    rknnrt: str | None = option(
        None,
        "Path of librknnrt.so, the NPU's library, if it is not in a usual place.",
        MODEL,
        metavar="FILE",
    )
    # a worker's part of the NPU's cores and the CPU's threads: its number, of how many workers
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        check(self)

    def mine(self, cores: Sequence[int]) -> Sequence[int]:
        """This worker's cores; never empty."""
        number, of = self.share
        return cores[number % len(cores) :: min(of, len(cores))] if of > 1 else cores

    @classmethod
    def named(cls, name: str, emulate: str | None = None) -> DeviceOptions:
        """How comparisons name devices: "cpu", "cpu-int8", "npu-fp16", "npu-int8-graph".

        The NPU's decoder is the CPU's: "npu-fp16+f32" has it in f32.
        """
        device, *rest = name.split("-")
        path = rest.pop() if rest and rest[-1] in ("layers", "graph") else "auto"
        precision = "-".join(rest) or "auto"
        if device != "npu":
            return cls(device, precision=precision)
        encoder, _, decoder = precision.partition("+")
        return cls(
            device,
            precision=decoder or "auto",
            npu_precision=encoder,
            npu_path=path,
            emulate=emulate,
        )
