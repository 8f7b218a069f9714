"""What follows from the trial of a board: for one model, what its NPU is trusted with.

a result of float16 is refused or wrong      float32 scores
softmax weights are wrong unless normalised  normalised before the product with the values
a core does not do what core 0 does          fewer cores
core 0 does not do a layer                   that layer on the CPU
core 0 does nothing                          no NPU
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from whisper_npu.errors import DeviceError
from whisper_npu.model import ATTENTION
from whisper_npu.rknpu import trials
from whisper_npu.rknpu.trials import WORKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whisper_npu.devices.npu.weights import Image
    from whisper_npu.rknpu.soc import Soc
    from whisper_npu.rknpu.trials import Board, Case, Outcomes


@dataclass(frozen=True)
class Verdict:
    """What the NPU is trusted with."""

    cores: tuple[int, ...]
    to_fp16: bool = True  # results of float16
    normalise: bool = False  # softmax weights before they are multiplied
    refused: Mapping[str, str] = field(default_factory=dict)  # layer, or `ATTENTION` -> why
    left_out: Mapping[int, str] = field(default_factory=dict)  # core -> why
    n_cases: int = 0  # tried on core 0


def in_order(soc: Soc) -> Verdict:
    """Where nothing was tried."""
    return Verdict(tuple(range(soc.cores)))


def tried(image: Image, board: Board, share: tuple[int, int] = (0, 1)) -> Verdict:
    """The outcome of the trial, which takes place where it has not.

    share  of the cores, as `DeviceOptions.share`
    Raises DeviceError when nothing is left of the NPU.
    """
    n_cores = image.soc.cores
    while True:  # fewer cores multiply wider shapes, which are to be tried, too
        number, of = share
        n_mine = len(range(number % n_cores, n_cores, min(of, n_cores)))
        outcomes = trials.run(board, cases(image, n_mine))
        trials.tell(outcomes)
        verdict = judge(image, outcomes, n_mine)
        if len(verdict.cores) == n_cores:
            return replace(verdict, cores=verdict.cores[number % n_cores :: min(of, n_cores)])
        n_cores = len(verdict.cores)


def cases(image: Image, n_cores: int) -> list[Case]:
    """Everything that a model multiplies, each shape once, with what may replace it."""
    found = [case for own in image.cases(n_cores).values() for case in own]
    for case in list(found):
        if case.to_fp16:
            found.append(replace(case, to_fp16=False))
        if case.operand == "weights":
            found.append(replace(case, operand="shares"))
    return list(dict.fromkeys(found))


def judge(image: Image, outcomes: Sequence[Outcomes], n_cores: int) -> Verdict:
    """From the outcomes on each core. Raises DeviceError when core 0 does nothing right.

    n_cores  that share a layer
    """
    first = outcomes[0]
    if WORKS not in first.values():
        reason = next(iter(first.values()))
        raise DeviceError(
            f"the NPU multiplies nothing right: {reason}; look at dmesg for RKNPU, then remove "
            f"{trials.notes()} to try again, or use --device cpu"
        )
    left_out = trials.worse(outcomes)
    layers = image.cases(n_cores)
    scores, weights = layers[ATTENTION]
    to_fp16 = first[scores] == WORKS
    normalise = first[weights] != WORKS and first[replace(weights, operand="shares")] == WORKS
    layers[ATTENTION] = [
        replace(scores, to_fp16=to_fp16),
        replace(weights, operand="shares" if normalise else "weights"),
    ]
    return Verdict(
        tuple(core for core in range(len(outcomes)) if core not in left_out),
        to_fp16,
        normalise,
        {
            name: next(first[case] for case in own if first[case] != WORKS)
            for name, own in layers.items()
            if any(first[case] != WORKS for case in own)
        },
        left_out,
        len(first),
    )
