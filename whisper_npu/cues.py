"""Words -> cues as a subtitler sets them: ended at sentences and pauses, short enough to be read.

Of all ways to cut the words into cues, the cheapest is found by dynamic programming: each end of a
cue, and each sentence or pause that a cue runs over, has its price. Times follow afterwards.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whisper_npu.transcript import Word

Cue = tuple[float, float, str]  # start and end in seconds, text

SENTENCE_ENDS = tuple(".!?…。！？｡।؟")  # noqa: RUF001
CLAUSE_ENDS = tuple(",;:—–、，；：،")  # noqa: RUF001
CLOSING = "\"'”’»)]}」』】"  # noqa: RUF001  may stand behind the end of a sentence
PAUSE, LONG_PAUSE = 0.7, 2.0  # seconds between two words


@dataclass(frozen=True)
class Prices:
    """What is bad about a cue, in units of one cue more."""

    cue: float = 1.0
    after_pause: float = 1.0  # a cue that ends here, though no sentence does
    after_clause: float = 2.0
    within_clause: float = 6.0
    sentence_inside: float = 1.5  # a cue that runs on over the end of a sentence
    pause_inside: float = 2.5
    long_pause_inside: float = 12.0
    too_short: float = 8.0
    too_fast: float = 3.0  # for each time that the limit is exceeded


PRICES = Prices()


@dataclass(frozen=True)
class CueLimits:
    """Bounds of a cue; the defaults are those of broadcasters."""

    max_duration: float = 7.0  # seconds
    min_duration: float = 0.8
    max_width: float = 42  # columns of a line; a wide character, as in Chinese, takes two
    max_lines: float = 2
    max_rate: float = 20.0  # columns a second, where speech leaves the time
    min_gap: float = 0.08  # seconds between two cues: two frames of 25 a second


def unlimited(max_duration: float) -> CueLimits:
    """No bound but the duration."""
    return CueLimits(max_duration, 0.0, math.inf, math.inf, math.inf, 0.0)


def lay_out(words: Sequence[Word], limits: CueLimits, end: float) -> list[Cue]:
    """All words, in order, in cues that lie apart from each other and inside the recording.

    words  not blank, in order
    end    of the recording in seconds, above 0

    A cue is brief, or early or late by a little, only where words follow too quickly; a line is
    too wide only for a single word.
    """
    cues = [words[a:b] for a, b in pairwise(_cuts(words, limits))]
    return [
        (start, stop, "\n".join(lines(cue, limits)))
        for cue, (start, stop) in zip(cues, _times(cues, limits, end), strict=True)
    ]


# where a cue ends


def _cuts(words: Sequence[Word], limits: CueLimits) -> list[int]:
    """Indices of the words that begin a cue, and the number of words behind them."""
    n = len(words)
    ending, running_on = _prices_between(words)
    held = list(accumulate(running_on, initial=0.0))  # price of running on before each word
    best, before = [0.0] + [math.inf] * n, [0] * (n + 1)
    for i in range(n):
        for j in _fitting(words, i, limits):
            room = words[j].start - limits.min_gap if j < n else math.inf
            price = best[i] + PRICES.cue + ending[j] + held[j] - held[i + 1]
            price += _haste(words[i:j], room, limits)
            if price < best[j]:
                best[j], before[j] = price, i
    cuts = [n]
    while cuts[-1] > 0:
        cuts.append(before[cuts[-1]])
    return cuts[::-1]


def _fitting(words: Sequence[Word], first: int, limits: CueLimits) -> Iterator[int]:
    """Ends (exclusive) of all cues that can begin with a word; at least that word alone."""
    n_lines, column = 1, 0
    for i, word in enumerate(words[first:], first):
        width = columns(word.text.rstrip())
        if column and column + width > limits.max_width:
            n_lines, column = n_lines + 1, 0
        column += width if column else columns(word.text.strip())
        lasts = word.end - words[first].start
        if i > first and (n_lines > limits.max_lines or lasts > limits.max_duration):
            return
        yield i + 1


def _prices_between(words: Sequence[Word]) -> tuple[list[float], list[float]]:
    """Price of ending a cue before each word, and of not ending it there; one more at the end."""
    ending, running_on = [0.0], [0.0]
    for word, following in pairwise(words):
        pause = following.start - word.end
        text = word.text.rstrip().rstrip(CLOSING)
        price, over = PRICES.within_clause, 0.0
        if text.endswith(SENTENCE_ENDS):
            price, over = 0.0, PRICES.sentence_inside
        elif pause >= PAUSE:
            price = PRICES.after_pause
        elif text.endswith(CLAUSE_ENDS):
            price = PRICES.after_clause
        if pause >= PAUSE:
            over += PRICES.long_pause_inside if pause >= LONG_PAUSE else PRICES.pause_inside
        ending.append(price)
        running_on.append(over)
    return [*ending, 0.0], running_on


def _haste(cue: Sequence[Word], room: float, limits: CueLimits) -> float:
    """Price of a cue that must go before it was read."""
    seconds = min(limits.max_duration, room - cue[0].start)
    if seconds <= 0 or seconds < limits.min_duration:
        return PRICES.too_short
    rate = sum(columns(word.text) for word in cue) / seconds
    return PRICES.too_fast * max(0.0, rate / limits.max_rate - 1)


# the text of a cue


def lines(cue: Sequence[Word], limits: CueLimits) -> list[str]:
    """The text in as few lines as it needs, and those of much the same width."""
    texts = _wrapped(cue, limits.max_width)
    if len(texts) == 1:
        return texts
    narrower = (_wrapped(cue, width) for width in range(1, int(limits.max_width)))
    return next((found for found in narrower if len(found) == len(texts)), texts)


def _wrapped(cue: Sequence[Word], width: float) -> list[str]:
    texts = [cue[0].text.strip()]
    for word in cue[1:]:
        text = word.text.rstrip()
        if columns(texts[-1] + text) <= width:
            texts[-1] += text
        else:
            texts.append(text.lstrip())
    return texts


def columns(text: str) -> int:
    """How wide a text is: an accent takes no column, a Chinese character two."""
    return sum(
        2 if unicodedata.east_asian_width(c) in "WF" else unicodedata.combining(c) == 0
        for c in text
    )


# when a cue is shown


def _times(
    cues: Sequence[Sequence[Word]], limits: CueLimits, end: float
) -> Iterator[tuple[float, float]]:
    """Start and end of each cue in seconds, in order."""
    slot = end / max(1, len(cues))  # where even this is too little, all are brief
    shortest, gap = min(limits.min_duration, 0.9 * slot), min(limits.min_gap, 0.1 * slot)
    free = 0.0  # from here on nothing is shown
    for i, cue in enumerate(cues):
        latest = end + gap - (len(cues) - i) * (shortest + gap)
        start = min(max(cue[0].start, free), latest)
        room = end
        if i + 1 < len(cues):
            following = max(cues[i + 1][0].start, start + shortest + gap)
            room = min(following, latest + shortest + gap) - gap
        to_read = sum(columns(word.text) for word in cue) / limits.max_rate
        wanted = max(cue[-1].end, start + to_read, start + shortest)
        stop = min(wanted, start + limits.max_duration, room)
        yield round(start, 3), round(stop, 3)
        free = stop + gap
