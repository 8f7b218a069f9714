"""Every size of Whisper on every chip, modelled: the table of docs/npu.md.

    PYTHONPATH=scripts:. scripts/model_table.py

Nothing is run: shapes, the model of the chip in rknpu/soc.py, and the decoder by memory alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from random_checkpoint import SIZES

from whisper_npu.bench import token_bytes
from whisper_npu.devices.npu.weights import Image
from whisper_npu.devices.plan import modelled
from whisper_npu.model import Whisper
from whisper_npu.rknpu.soc import SOCS

if TYPE_CHECKING:
    from whisper_npu.checkpoint import Checkpoint, Dimensions
    from whisper_npu.rknpu.soc import Precision, Soc

CHIPS = ("rk3588", "rk3576", "rk3566", "rk3562")
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
TOKENS = 100  # of text in 30 s: fast speech


@dataclass(frozen=True)
class Shape:
    """A checkpoint of which only the sizes are known."""

    dims: Dimensions
    folder: Path = Path()


def cells(size: str, soc: Soc, precision: Precision) -> tuple[str, str, int]:
    """A window's time, how much faster than real time with its tokens, and bytes of weights."""
    dims = SIZES[size]
    image = Image(Whisper(cast("Checkpoint", Shape(dims))), soc, precision)
    window = modelled(image, dims).window_seconds
    best, worst = (
        30 / (seconds + TOKENS * token_bytes(dims) / bandwidth)
        for seconds, bandwidth in zip(window, soc.cpu_bandwidth, strict=True)
    )
    speed = " to ".join(f"{x:.0f}" if x >= 10 else f"{x:.1f}" for x in (worst, best))
    return f"{window[0]:.2f} to {window[1]:.2f} s", speed, image.tile_bytes


def main() -> None:
    """Print the table."""
    heads = " | ".join(f"{chip.upper()}, window | x real time" for chip in CHIPS)
    print(f"| | | weights | {heads} |")
    print("|---" * (3 + 2 * len(CHIPS)) + "|")
    for size in SIZES:
        for precision in PRECISIONS if size != "micro" else ():
            found = [cells(size, SOCS[chip], precision) for chip in CHIPS]
            times = " | ".join(f"{window} | {speed}" for window, speed, _ in found)
            print(f"| {size} | {precision} | {found[0][2] / 1e6:.0f} MB | {times} |")


if __name__ == "__main__":
    main()
