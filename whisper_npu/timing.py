"""Word times: where each token looked at the audio, and what is implausible about them.

The alignment heads of the cross-attention follow the speech; dynamic time warping turns their
weights into one monotonic path. Source of the rules: openai/whisper timing.py and transcribe.py.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from whisper_npu.features import FRAMES_PER_SECOND
from whisper_npu.languages import UNSPACED
from whisper_npu.options.transcription import APPENDED, PREPENDED
from whisper_npu.stages import stage
from whisper_npu.tokenizer import TIME_PRECISION
from whisper_npu.transcript import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whisper_npu.devices.device import Device
    from whisper_npu.tokenizer import Tokenizer

    Float = NDArray[np.float32]

SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001
FILTER_WIDTH = 7  # positions of 20 ms
POSITIONS_PER_SECOND = round(1 / TIME_PRECISION)
_CHUNK = 32  # tokens whose logits are held at once


@dataclass
class Timing:
    """A word being placed; merged into a neighbour it has no text left."""

    text: str
    tokens: list[int]
    start: float  # seconds from the beginning of the window
    end: float
    probability: float


@stage("word times")
def align(  # noqa: PLR0913  what one alignment takes
    device: Device,
    encoded: Any,
    tokenizer: Tokenizer,
    *,
    sot: Sequence[int],
    text: Sequence[int],
    n_frames: int,
    language: str | None,
) -> list[Timing]:
    """Times of the words of one window.

    sot       how the transcript of the window began, without timestamps
    text      its text tokens
    n_frames  frames of the window that hold audio
    """
    words = split_words(tokenizer, text, language)
    if not words:
        return []
    tokens = [*sot, tokenizer.no_timestamps, *text, tokenizer.eot]
    session = device.session(encoded, align=True)
    try:
        probabilities = []
        for i in range(0, len(tokens), _CHUNK):
            logits = session.step(np.array([tokens[i : i + _CHUNK]]), every_position=True)
            probabilities.append(_probabilities(logits[0, :, : tokenizer.eot], tokens[i + 1 :]))
        scores = session.attention()  # (A, T, C)
    finally:
        session.close()
    n_before = len(sot)  # no_timestamps predicts the first word
    probability = np.concatenate(probabilities)[n_before : n_before + len(text)]
    path_tokens, path_times = dtw(-weights(scores, n_frames)[n_before:-1])
    first_times = path_times[np.diff(path_tokens, prepend=-1) > 0] / POSITIONS_PER_SECOND
    ends = np.cumsum([len(word_tokens) for _, word_tokens in words])
    starts = ends - [len(word_tokens) for _, word_tokens in words]
    return [
        Timing(word, word_tokens, first_times[a], first_times[b], float(probability[a:b].mean()))
        for (word, word_tokens), a, b in zip(words, starts, ends, strict=True)
    ]


def _probabilities(logits: Float, following: Sequence[int]) -> Float:
    """Probability of the token that follows each position.

    logits     (T, V)  float32
    following          tokens; special ones and those that are not there count as 0
    """
    n_text = logits.shape[1]
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    chosen = [
        e[i, token] if token < n_text else 0.0 for i, token in enumerate(following[: len(logits)])
    ]
    chosen += [0.0] * (len(logits) - len(chosen))
    return np.array(chosen, np.float32) / e.sum(axis=1)


def weights(scores: Float, n_frames: int) -> Float:
    """How much each token looks at each moment, over all heads, sharpened against its neighbours.

    scores  (A, T, C)  float32  cross-attention before the softmax
    return  (T, C')    float32  C' = n_frames / 2, at least one

    openai/whisper has no column at all for less than two frames, and divides by zero for less
    than four: every word then ends before the window.
    """
    scores = scores[:, :, : max(1, n_frames // 2)]
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attention = e / e.sum(axis=-1, keepdims=True)
    deviation = attention.std(axis=1, keepdims=True)
    deviation[deviation == 0] = 1
    attention = (attention - attention.mean(axis=1, keepdims=True)) / deviation
    return np.stack([median_filter(head, FILTER_WIDTH) for head in attention]).mean(axis=0)


def median_filter(x: Float, width: int) -> Float:
    """Running median over the last axis, mirrored at both ends: (T, C) -> (T, C)."""
    half = width // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, ((0, 0), (half, half)), mode="reflect")
    return np.partition(sliding_window_view(padded, width, axis=-1), half, axis=-1)[..., half]


def dtw(cost: Float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cheapest monotonic path through a matrix from corner to corner.

    cost    (N, M)  float32
    return  row and column of each step

    Computed along the anti-diagonals, whose cells do not depend on each other. A tie between the
    three ways into a cell goes to the one along the columns, as in openai/whisper.
    """
    n, m = cost.shape
    skewed = np.full((n + m - 1, n), np.inf, np.float32)  # row d holds the cells i + j = d
    rows, columns = np.indices((n, m))
    skewed[rows + columns, rows] = cost
    ways = np.empty((n + m - 1, n), np.int8)
    before = np.full(n + 1, np.inf, np.float32)  # totals of diagonal d - 2, one entry in front
    last = np.full(n + 1, np.inf, np.float32)  # of diagonal d - 1
    before[0] = 0
    for d in range(n + m - 1):
        diagonal, down, right = before[:-1], last[:-1], last[1:]
        way = np.where((down < diagonal) & (down < right), 1, 2)
        way[(diagonal < down) & (diagonal < right)] = 0
        ways[d] = way
        total = np.choose(way, (diagonal, down, right)) + skewed[d]
        before, last = last, np.concatenate([[np.float32(np.inf)], total])
    return _trace(ways, n - 1, m - 1)


def _trace(ways: NDArray[np.int8], i: int, j: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Follow the ways back to the first corner."""
    path = [(i, j)]
    while i > 0 or j > 0:
        way = 2 if i == 0 else 1 if j == 0 else ways[i + j, i]
        i, j = i - (way != 2), j - (way != 1)
        path.append((i, j))
    rows, columns = np.array(path[::-1]).T
    return rows, columns


def split_words(
    tokenizer: Tokenizer, tokens: Sequence[int], language: str | None
) -> list[tuple[str, list[int]]]:
    """Text tokens -> words with their tokens; a word has its leading space."""
    characters = _whole_characters(tokenizer, tokens)
    if language in UNSPACED:
        return characters
    words: list[tuple[str, list[int]]] = []
    for text, part in characters:
        if not words or text.startswith(" ") or text.strip() in string.punctuation:
            words.append((text, part))
        else:
            before, so_far = words[-1]
            words[-1] = (before + text, so_far + part)
    return words


def _whole_characters(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Cut between tokens wherever no character is cut."""
    broken = "\ufffd"
    full = tokenizer.decode(tokens)
    parts: list[tuple[str, list[int]]] = []
    part: list[int] = []
    offset = 0
    for token in tokens:
        part.append(token)
        text = tokenizer.decode(part)
        at = offset + text.find(broken)
        if broken not in text or full[at : at + 1] == broken:  # whole, or broken for good
            parts.append((text, part))
            offset += len(text)
            part = []
    if part:  # damaged to the end
        parts.append((tokenizer.decode(part), part))
    return parts


def merge_punctuation(words: list[Timing], prepended: str, appended: str) -> None:
    """Give opening punctuation to the next word, closing punctuation to the one before."""
    following = len(words) - 1
    for i in range(len(words) - 2, -1, -1):
        word = words[i]
        if word.text.startswith(" ") and word.text.strip() in prepended:
            words[following].text = word.text + words[following].text
            words[following].tokens = word.tokens + words[following].tokens
            word.text, word.tokens = "", []
        else:
            following = i
    before = 0
    for i in range(1, len(words)):
        word = words[i]
        if not words[before].text.endswith(" ") and word.text in appended:
            words[before].text += word.text
            words[before].tokens = words[before].tokens + word.tokens
            word.text, word.tokens = "", []
        else:
            before = i


@dataclass(frozen=True)
class Punctuation:
    """Which marks stick to which word."""

    prepended: str = PREPENDED
    appended: str = APPENDED


def place_words(
    segments: Sequence[Segment],
    words: list[Timing],
    eot: int,
    last_speech: float,
    punctuation: Punctuation,
) -> list[Segment]:
    """Share the words of a window out among its segments, and mend implausible times.

    last_speech  seconds: the end of the last word before this window
    """
    durations = np.array([word.end - word.start for word in words])
    durations = durations[durations != 0]
    typical = min(0.7, float(np.median(durations))) if len(durations) else 0.0
    if len(durations):
        _shorten_at_sentence_ends(words, 2 * typical)
    merge_punctuation(words, punctuation.prepended, punctuation.appended)
    placed = []
    queue = iter(words)
    for segment in segments:
        offset = segment.seek / FRAMES_PER_SECOND
        n_tokens = sum(token < eot for token in segment.tokens)
        mine: list[Timing] = []
        while n_tokens > 0 and (word := next(queue, None)) is not None:
            n_tokens -= len(word.tokens)
            if word.text:
                start, end = round(offset + word.start, 2), round(offset + word.end, 2)
                mine.append(replace(word, start=start, end=end))
        if mine:
            segment = _fitted(segment, mine, typical, last_speech)  # noqa: PLW2901
            last_speech = segment.end
        found = tuple(Word(w.text, float(w.start), float(w.end), w.probability) for w in mine)
        placed.append(replace(segment, words=found))
    return placed


def _shorten_at_sentence_ends(words: list[Timing], longest: float) -> None:
    """A long word beside the end of a sentence is a pause."""
    for before, word in pairwise(words):
        if word.end - word.start > longest:
            if word.text in SENTENCE_ENDS:
                word.end = word.start + longest
            elif before.text in SENTENCE_ENDS:
                word.start = word.end - longest


def _fitted(segment: Segment, words: list[Timing], typical: float, last_speech: float) -> Segment:
    """Shorten what is too long after a pause; let segment and words agree on start and end."""
    first, last, longest = words[0], words[-1], 2 * typical
    second = words[1] if len(words) > 1 else None
    too_long = first.end - first.start > longest or (
        second is not None and second.end - first.start > 2 * longest
    )
    if first.end - last_speech > 4 * typical and too_long:
        if second is not None and second.end - second.start > longest:
            first.end = second.start = max(second.end / 2, second.end - longest)
        first.start = max(0, first.end - longest)
    start, end = segment.start, segment.end
    if start < first.end and start - 0.5 > first.start:
        first.start = max(0, min(first.end - typical, start))
    else:
        start = first.start
    if end > last.start and end + 0.5 < last.end:
        last.end = max(last.start + typical, end)
    else:
        end = last.end
    return replace(segment, start=float(start), end=float(end))


# hallucinations


def end_of_speech(segments: Sequence[Segment]) -> float | None:
    """The end of the last word, else of the last segment."""
    ends = [word.end for segment in segments for word in segment.words or ()]
    ends = ends or [segment.end for segment in segments]
    return ends[-1] if ends else None


def is_anomalous(segment: Segment | None) -> bool:
    """Whether the first words are too many too short, too long or improbable ones."""
    if segment is None or not segment.words:
        return False
    words = [word for word in segment.words if word.text not in PREPENDED + APPENDED][:8]
    score = sum(_anomaly(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def _anomaly(word: Word) -> float:
    seconds = word.end - word.start
    improbable = 1.0 if word.probability < 0.15 else 0.0
    return improbable + max(0.0, 0.133 - seconds) * 15 + max(0.0, seconds - 2.0)


@dataclass(frozen=True)
class Span:
    """The window in which hallucinations are looked for, in seconds of the recording."""

    start: float
    end: float  # of the audio in it
    window_end: float  # 30 s after the start
    recording_end: float


def drop_hallucinations(
    segments: Sequence[Segment], span: Span, threshold: float, last_speech: float
) -> tuple[list[Segment] | None, float | None]:
    """Drop anomalous segments that are surrounded by silence or by others of their kind.

    threshold  seconds of silence
    return     segments kept, or None to hear the window again without the silence before it;
               seconds at which to go on, None: as without this
    """
    first = next((segment for segment in segments if segment.words), None)
    if first and is_anomalous(first) and first.start - span.start > threshold:
        return None, first.start
    for i, segment in enumerate(segments):
        if not segment.words:
            continue
        following = next((other for other in segments[i + 1 :] if other.words), None)
        alone = _stands_alone(segment, following, span, threshold, last_speech)
        if alone and is_anomalous(segment):
            if span.recording_end - segment.end < threshold:
                return list(segments[:i]), span.recording_end
            return list(segments[:i]), max(span.start + 1, segment.start)
        last_speech = segment.end
    return list(segments), None


def _stands_alone(
    segment: Segment, following: Segment | None, span: Span, threshold: float, last_speech: float
) -> bool:
    next_start = following.words[0].start if following and following.words else span.end
    silence_before = (
        segment.start - last_speech > threshold
        or segment.start < threshold
        or segment.start - span.start < 2.0
    )
    silence_after = (
        next_start - segment.end > threshold
        or is_anomalous(following)
        or span.window_end - segment.end < 2.0
    )
    return silence_before and silence_after
