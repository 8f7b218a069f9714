"""What comes after the words that are final: one greedy search, and where each token looks.

AlignAtt (Papi et al. 2023; Simul-Whisper, arXiv 2406.10052): while a new token attends to the
newest sound, it may yet become another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.decoding import NEVER
from whisper_npu.kernels import log_sum_exp
from whisper_npu.stages import stage
from whisper_npu.timing import FILTER_WIDTH, POSITIONS_PER_SECOND, median_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_npu.devices.device import Device
    from whisper_npu.tokenizer import Tokenizer

    Float = NDArray[np.float32]

_REWIND = 2 * POSITIONS_PER_SECOND  # looking back further than this, it repeats itself
_TENTATIVE = 16  # tokens beyond the last sure one: more are a loop


@dataclass(frozen=True)
class Beginning:
    """What the decoder is given before it goes on.

    context  tokens of what was said before this sound
    sot      how a transcript begins, without timestamps
    words    tokens of the words in this sound that are final
    """

    context: tuple[int, ...]
    sot: tuple[int, ...]
    words: tuple[int, ...]


@dataclass(frozen=True)
class Continuation:
    """What follows.

    tokens          of text
    n_sure          how many of them look at sound older than the margin
    ended           whether nothing follows behind them
    logprob         sum over the tokens, and the end where it was reached
    no_speech_prob  that nobody speaks at all
    scores          (A, T, C) float32  cross-attention of the rows that predicted the tokens and
                    what would follow, before the softmax
    """

    tokens: tuple[int, ...]
    n_sure: int
    ended: bool
    logprob: float
    no_speech_prob: float
    scores: Float


@stage("decoder")
def go_on(  # noqa: PLR0913  what one search takes
    device: Device,
    tokenizer: Tokenizer,
    encoded: Any,
    beginning: Beginning,
    *,
    n_positions: int,
    margin: int,
    most: int,
) -> Continuation:
    """Search for what follows the final words.

    n_positions  of the encoded window that hold sound
    margin       positions at its end that are too new to be sure of
    most         tokens to search for
    """
    past = [tokenizer.sot_prev, *beginning.context] if beginning.context else []
    sot, *rest = beginning.sot
    session = device.session(encoded, align=True)
    try:
        logits = session.step(np.array([[*past, sot]]))
        no_speech = float(np.exp(logits[0, tokenizer.no_speech] - log_sum_exp(logits)[0]))
        logits = session.step(np.array([[*rest, tokenizer.no_timestamps, *beginning.words]]))
        gaze = _Gaze(n_positions)
        gaze.see(session.attention()[:, len(past) :])
        tokens: list[int] = []
        banned = np.array(tokenizer.suppressed((-1,)), np.int64)
        n_sure, ended, total, last = None, False, 0.0, 0
        while True:
            token, logprob = _likeliest(
                logits, tokenizer, banned, first=not beginning.words and not tokens
            )
            if token == tokenizer.eot:
                ended, total = True, total + logprob
                break
            at = gaze.at()
            if n_sure is None and at >= n_positions - margin:
                n_sure = len(tokens)
            sure_or_so = n_sure is None or len(tokens) < n_sure + _TENTATIVE
            if at < last - _REWIND or len(tokens) == most or not sure_or_so:
                break
            last = max(last, at)
            tokens.append(token)
            total += logprob
            logits = session.step(np.array([[token]]))
            gaze.see(session.attention()[:, -1:])
        scores = session.attention()[:, -1 - len(tokens) :]
    finally:
        session.close()
    n_sure = len(tokens) if n_sure is None else n_sure
    return Continuation(tuple(tokens), n_sure, ended, total, no_speech, scores)


def _likeliest(
    logits: Float, tokenizer: Tokenizer, banned: NDArray[np.int64], *, first: bool
) -> tuple[int, float]:
    """The best token of text, or the end, and its log-probability: logits (1, V)."""
    logits[:, banned] = NEVER
    logits[:, tokenizer.no_timestamps :] = NEVER
    if first:
        logits[:, [token for token in tokenizer.blank if token != tokenizer.eot]] = NEVER
    token = int(logits[0].argmax())
    return token, float(logits[0, token] - log_sum_exp(logits)[0])


class _Gaze:
    """Where the latest token looks: attention of the alignment heads, sharpened against that of
    the tokens before, as `timing.weights` does it.
    """

    def __init__(self, n_positions: int) -> None:
        self._n_positions = n_positions
        self._sum = np.zeros((1, n_positions), np.float32)
        self._squares = np.zeros((1, n_positions), np.float32)
        self._n = 0
        self._latest = np.empty(0, np.float32)

    def see(self, scores: Float) -> None:
        """Further tokens: (A, T, C) before the softmax."""
        scores = scores[:, :, : self._n_positions]
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention = e / e.sum(axis=-1, keepdims=True)
        self._sum = self._sum + attention.sum(axis=1)
        self._squares = self._squares + (attention**2).sum(axis=1)
        self._n += scores.shape[1]
        self._latest = attention[:, -1]  # (A, C)

    def at(self) -> int:
        """Position."""
        mean = self._sum / self._n
        deviation = np.sqrt(np.maximum(self._squares / self._n - mean**2, np.float32(1e-12)))
        sharpened = median_filter((self._latest - mean) / deviation, FILTER_WIDTH)
        return int(sharpened.mean(axis=0).argmax())
