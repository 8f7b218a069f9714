"""What a device reads and thinks, token by token, and where two devices part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whisper_npu.devices.device import Device, Observer, Session
    from whisper_npu.tokenizer import Tokenizer

    Float = NDArray[np.float32]

N_BEST = 5
_SAID = 12  # tokens of context that are shown


@dataclass(frozen=True)
class DecoderStep:
    """One step of the first hypothesis."""

    seconds: float  # where in the recording the window begins
    session: int  # sessions are numbered through the recording
    read: tuple[int, ...]  # the tokens appended
    best: tuple[tuple[int, float], ...]  # likeliest next tokens with their probabilities


@dataclass(frozen=True)
class Choice:
    """A token that could come next."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class Divergence:
    """The first token on which two devices differ; until then they read the same."""

    seconds: float  # where in the recording the window begins
    position: int  # tokens read in this window
    said: str  # the last few of them
    chosen: tuple[str, str]  # by the one and by the other; rules may forbid the likeliest
    choices: tuple[tuple[Choice, ...], tuple[Choice, ...]]  # before any rule


class Watched:
    """A `Device` that remembers the steps of its sessions; greedy search is assumed."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.info = device.info
        self.steps: list[DecoderStep] = []
        self.seconds = 0.0  # set by whoever moves from window to window
        self._n_sessions = 0

    def encode(self, mel: Float, *, observe: Observer | None = None) -> Any:
        return self._device.encode(mel, observe=observe)

    def session(self, encoded: Any, *, beams: int = 1, align: bool = False) -> Session:
        session = self._device.session(encoded, beams=beams, align=align)
        if align:
            return session  # word times repeat what was said
        self._n_sessions += 1
        return _WatchedSession(session, self, self._n_sessions)

    def close(self) -> None:
        self._device.close()


class _WatchedSession:
    def __init__(self, session: Session, watched: Watched, number: int) -> None:
        self._session = session
        self._watched = watched
        self._number = number
        self.reorder = session.reorder
        self.attention = session.attention
        self.close = session.close

    def step(self, tokens: NDArray[np.int64], *, every_position: bool = False) -> Float:
        logits = self._session.step(tokens, every_position=every_position)
        last = logits[0] if logits.ndim == 2 else logits[0, -1]  # (V,)
        read = tuple(int(token) for token in tokens[0])
        step = DecoderStep(self._watched.seconds, self._number, read, likeliest(last))
        self._watched.steps.append(step)
        return logits


def likeliest(logits: Float) -> tuple[tuple[int, float], ...]:
    """The most probable tokens with their probabilities, best first; logits (V,)."""
    if not np.isfinite(logits).all():
        return ()
    best = np.argpartition(-logits, N_BEST)[:N_BEST]
    best = best[np.argsort(-logits[best], kind="stable")]
    exponentials = np.exp((logits - logits[best[0]]).astype(np.float64))
    probabilities = exponentials[best] / exponentials.sum()
    return tuple(zip(best.tolist(), probabilities.tolist(), strict=True))


def first_divergence(
    one: Sequence[DecoderStep], other: Sequence[DecoderStep], tokenizer: Tokenizer
) -> Divergence | None:
    """Where the two begin to read different tokens; None: never."""
    for i in range(1, min(len(one), len(other)) + 1):
        reads = [_read(steps, i) for steps in (one, other)]
        if reads[0] != reads[1]:
            return _divergence(one, other, i - 1, tokenizer)
    return None


def _read(steps: Sequence[DecoderStep], i: int) -> tuple[int, ...] | None:
    """What step i reads, where it goes on with the session of step i - 1; None: it has ended."""
    if i >= len(steps) or steps[i].session != steps[i - 1].session:
        return None
    return steps[i].read


def _divergence(
    one: Sequence[DecoderStep], other: Sequence[DecoderStep], i: int, tokenizer: Tokenizer
) -> Divergence:
    def chosen(steps: Sequence[DecoderStep]) -> str:
        read = _read(steps, i + 1)
        return token_text(tokenizer, read[0]) if read else token_text(tokenizer, tokenizer.eot)

    def choices(steps: Sequence[DecoderStep]) -> tuple[Choice, ...]:
        return tuple(
            Choice(token, token_text(tokenizer, token), probability)
            for token, probability in steps[i].best
        )

    step = one[i]
    said = [t for earlier in one[: i + 1] if earlier.session == step.session for t in earlier.read]
    return Divergence(
        seconds=step.seconds,
        position=len(said),
        said="".join(token_text(tokenizer, token) for token in said[-_SAID:]),
        chosen=(chosen(one), chosen(other)),
        choices=(choices(one), choices(other)),
    )


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token for people: text as it is, times and marks in <|...|>."""
    if token >= tokenizer.timestamp_begin:
        return f"<|{tokenizer.timestamp(token):.2f}|>"
    return tokenizer.decode([token]) if token < tokenizer.eot else tokenizer.mark(token)
