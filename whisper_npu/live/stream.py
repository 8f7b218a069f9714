"""Samples in, words out, while somebody speaks.

Sound is kept from the beginning of an utterance on, at most half a minute. After each step of new
sound all of it is encoded anew, and the decoder goes on behind the words that are final. A pause
ends the utterance: what is left of it becomes final, and its sound is forgotten. What comes out
depends on the samples alone, and not on how they were cut into calls.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from whisper_npu.audio import SAMPLE_RATE
from whisper_npu.decoding import compression_ratio
from whisper_npu.events import Language
from whisper_npu.features import HOP, WINDOW, log_mel
from whisper_npu.languages import language_code
from whisper_npu.live.continuation import Beginning, Continuation, go_on
from whisper_npu.live.events import Final, LiveEvent, SegmentDone, Tentative
from whisper_npu.live.voice import Voice
from whisper_npu.options.live import AGREEMENT, StreamOptions
from whisper_npu.options.transcription import APPENDED, AUTO
from whisper_npu.speech import CHUNK
from whisper_npu.timing import POSITIONS_PER_SECOND, SENTENCE_ENDS, dtw, split_words, weights
from whisper_npu.transcript import Segment, Word
from whisper_npu.translation import require_translation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.decoding import Decoder
    from whisper_npu.devices.device import Device
    from whisper_npu.tokenizer import Tokenizer

    Float = NDArray[np.float32]

_BEFORE = 0.8  # seconds kept from before speech is noticed
_LONGEST = 20.0  # seconds of sound, after which its beginning is forgotten
_FULL = 28.0  # seconds of sound: a window holds no more
_KEPT = 8.0  # seconds of sound that are kept then
_CONTEXT = 80  # tokens of what was said before
_PACE = 12  # tokens a second: nobody speaks faster
_LISTENED = 3.0  # seconds of sound that settle the language
_CERTAIN = 0.9  # a language as probable as this needs no more sound
_STALE = 20.0  # seconds of silence after which what was said before no longer matters
_BEHIND = 128  # positions of nothing behind the sound: without them the decoder loops
_SAMPLES_PER_POSITION = SAMPLE_RATE // POSITIONS_PER_SECOND


class Recogniser(Protocol):
    """What a stream needs of an opened model; `transcribe.Model` is one."""

    checkpoint: Checkpoint
    device: Device
    tokenizer: Tokenizer
    decoder: Decoder


Placed = tuple[Word, tuple[int, ...]]  # a word and its tokens


class SpeechStream:
    """One stream of sound. Raises OptionError for a language or task the model does not know."""

    def __init__(self, model: Recogniser, options: StreamOptions | None = None) -> None:
        options = options or StreamOptions()
        self._model = model
        self._options = options
        self._pace = options.pace
        self._voice = Voice(options.vad_threshold, options.pace.pause)
        self._agrees = _agrees(model.checkpoint, options)
        self.language = self._fixed_language()
        self._settled = self.language is not None
        prompt = f" {(options.initial_prompt or '').strip()}"
        self._context = tuple(model.tokenizer.encode(prompt)) if options.initial_prompt else ()
        self._rest = np.empty(0, np.float32)  # less than a chunk
        self._sound: deque[Float] = deque()  # chunks
        self._begin = 0  # sample of the stream at which the sound begins
        self._n_segments = 0
        self._next_look: int | None = None  # sample; None: nobody speaks
        self._finals: list[Placed] = []  # in the sound
        self._segment: list[Placed] = []  # final, of no segment yet
        self._shown: tuple[Word, ...] = ()  # tentative
        self._heard: list[tuple[int, ...]] = []  # tokens of the words that were tentative last time
        self._spoken_until = 0.0

    def _fixed_language(self) -> str | None:
        tokenizer, options = self._model.tokenizer, self._options
        if options.task == "translate":
            require_translation(self._model.checkpoint)
        if not tokenizer.multilingual:
            return "en"
        if not options.is_language_given:
            return None
        code = language_code(options.language)
        tokenizer.sot_sequence(code, options.task)  # raises if unknown
        return code

    @property
    def seconds(self) -> float:
        """How much sound was heard."""
        return (self._end + len(self._rest)) / SAMPLE_RATE

    @property
    def _end(self) -> int:
        """Sample of the stream at which the sound ends."""
        return self._begin + CHUNK * len(self._sound)

    def feed(self, samples: Float, *, behind: float = 0.0) -> list[LiveEvent]:
        """Hear further sound, and tell what is known now.

        samples  (S,)  float32  mono at 16 kHz, in [-1, 1]; any number. What is no number counts
                 as silence, what is beyond full scale is clipped.
        behind   seconds of sound that wait behind these samples: looks that would only delay what
                 comes are left out then
        """
        samples = np.nan_to_num(np.asarray(samples, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        waiting = np.concatenate([self._rest, samples.reshape(-1).clip(-1, 1)])
        n_chunks = len(waiting) // CHUNK
        self._rest = waiting[n_chunks * CHUNK :]
        events: list[LiveEvent] = []
        for chunk in waiting[: n_chunks * CHUNK].reshape(n_chunks, CHUNK):
            events += self._hear(chunk, hurry=behind > self._pace.step)
        return events

    def finish(self) -> list[LiveEvent]:
        """The stream has ended: make final what is left."""
        events: list[LiveEvent] = []
        if len(self._rest):
            events += self.feed(np.zeros(CHUNK - len(self._rest), np.float32))
        if self._next_look is not None:
            events += self._conclude()
        return events

    @property
    def _length(self) -> float:
        """Seconds of sound that are kept."""
        return CHUNK * len(self._sound) / SAMPLE_RATE

    def _hear(self, chunk: Float, *, hurry: bool) -> list[LiveEvent]:
        self._voice.hear(chunk)
        self._sound.append(chunk)
        now = self._end
        if not self._voice.speaks:
            if self._next_look is not None:
                return self._conclude()
            self._keep(_BEFORE)
            return []
        step = round(self._pace.step * SAMPLE_RATE)
        if self._next_look is None:
            self._next_look = now + step
            if now / SAMPLE_RATE - self._spoken_until > _STALE:
                self._context = self._context if not self._n_segments else ()
        if self._length > _FULL:
            return self._conclude()
        if now < self._next_look:
            return []
        self._next_look += step
        return [] if hurry else self._look()

    def _keep(self, seconds: float) -> None:
        """Forget the sound but for its end, in whole chunks."""
        while len(self._sound) * CHUNK > seconds * SAMPLE_RATE:
            self._sound.popleft()
            self._begin += CHUNK

    # a look at what was said

    def _look(self) -> list[LiveEvent]:
        """Words that are sure now are final, the others are shown."""
        encoded, n_positions = self._encode()
        events = self._hear_language(encoded)
        found = self._go_on(encoded, n_positions)
        words = self._place(found, n_positions)
        n_final = self._n_final(words, found) if self._settled else 0
        events += self._make_final(words[:n_final])
        events += self._show(words[n_final:])
        if self._length > _LONGEST:
            self._shorten()
        return events

    def _conclude(self) -> list[LiveEvent]:
        """A pause: all that was said is final."""
        encoded, n_positions = self._encode()
        events = self._hear_language(encoded)
        found = self._go_on(encoded, n_positions, pause=True)
        if not self._is_invented(found):
            events += self._make_final(self._place(found, n_positions))
        events += self._show([])
        events += self._end_segment()
        self._say_before(self._finals)
        self._finals = []
        self._next_look = None
        self._settled = self._settled or self.language is not None
        silence = self._pace.pause - 0.1  # none of the last word: it would be heard again
        self._keep(min(_BEFORE, silence))
        return events

    def _encode(self) -> tuple[Any, int]:
        """The sound, encoded, and how many positions hold it."""
        n_mels = self._model.checkpoint.dims.n_mels
        mel = log_mel([np.concatenate(self._sound)], n_mels).window(0)
        n_positions = CHUNK * len(self._sound) // _SAMPLES_PER_POSITION
        n_frames = min(WINDOW, 2 * (n_positions + _BEHIND))
        return self._model.device.encode(mel[:, :n_frames]), n_positions

    def _hear_language(self, encoded: Any) -> list[LiveEvent]:
        """Guess the language until there is enough to be sure."""
        if self._settled:
            return []
        probabilities, _ = self._model.decoder.detect_language(encoded)
        best = max(probabilities, key=lambda code: probabilities[code])
        self.language = best
        self._settled = self._length >= _LISTENED or probabilities[best] >= _CERTAIN
        return (
            [Language(best, probabilities[best], self._begin / SAMPLE_RATE)]
            if self._settled
            else []
        )

    def _go_on(self, encoded: Any, n_positions: int, *, pause: bool = False) -> Continuation:
        tokenizer = self._model.tokenizer
        words = tuple(token for _, tokens in self._finals for token in tokens)
        sot = tokenizer.sot_sequence(self.language, self._options.task)
        margin = 0 if pause or self._agrees else round(self._pace.margin * POSITIONS_PER_SECOND)
        beginning = Beginning(self._context, sot, words)
        since = self._begin / SAMPLE_RATE if not self._finals else self._finals[-1][0].end
        most = round(_PACE * (self._end / SAMPLE_RATE - since)) + 8
        room = self._model.decoder.n_ctx - len(self._context) - len(sot) - len(words) - 2
        return go_on(
            self._model.device, tokenizer, encoded, beginning,
            n_positions=n_positions, margin=margin, most=min(most, room),
        )  # fmt: skip

    def _place(self, found: Continuation, n_positions: int) -> list[Placed]:
        """The words of what follows, with their times."""
        split = split_words(self._model.tokenizer, found.tokens, self.language)
        if not split:
            return []
        begin = self._begin / SAMPLE_RATE
        # they begin where the last final word ends
        first = round((self._spoken_until - begin) * POSITIONS_PER_SECOND)
        first = min(max(0, first), n_positions - 1)
        matrix = weights(found.scores, 2 * n_positions)[:, first:]
        rows, columns = dtw(-matrix)
        starts = begin + (first + columns[np.diff(rows, prepend=-1) > 0]) / POSITIONS_PER_SECOND
        placed, n = [], 0
        probability = float(np.exp(found.logprob / (len(found.tokens) + found.ended)))
        for text, tokens in split:
            start, end = float(starts[n]), float(starts[n + len(tokens)])
            placed.append((Word(text, round(start, 2), round(end, 2), probability), tuple(tokens)))
            n += len(tokens)
        return placed

    def _n_final(self, words: list[Placed], found: Continuation) -> int:
        """How many of the words are sure: whole ones, up to the margin, or heard twice."""
        if self._agrees:
            heard, self._heard = self._heard, [tokens for _, tokens in words]
            pairs = zip(heard, self._heard, strict=False)
            n = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            self._heard = self._heard[n:]
            return n
        n = n_tokens = 0
        for _, tokens in words:
            n_tokens += len(tokens)
            if n_tokens > found.n_sure:
                break
            n += 1
        if n == len(words) and n and not found.ended:  # the last one may go on
            n -= 1
        return n

    def _is_invented(self, found: Continuation) -> bool:
        """Whether nobody said that: improbable text in what may be silence, or a loop."""
        if not found.tokens:
            return False
        mean = found.logprob / (len(found.tokens) + 1)
        text = self._model.tokenizer.decode(found.tokens)
        nobody = not self._finals and found.no_speech_prob > 0.6 and mean < -1
        return nobody or compression_ratio(text) > 2.4

    # what became of it

    def _make_final(self, words: Sequence[Placed]) -> list[LiveEvent]:
        """Tell final words, and the segments that end with them."""
        if not words:
            return []
        events: list[LiveEvent] = [Final(tuple(word for word, _ in words))]
        for placed in words:
            self._finals.append(placed)
            self._segment.append(placed)
            long = placed[0].end - self._segment[0][0].start > _LONGEST
            if long or _ends_sentence(placed[0]):
                events += self._end_segment()
        self._spoken_until = words[-1][0].end
        return events

    def _show(self, words: Sequence[Placed]) -> list[LiveEvent]:
        shown = tuple(word for word, _ in words)
        if shown == self._shown:
            return []
        self._shown = shown
        return [Tentative(shown)]

    def _end_segment(self) -> list[LiveEvent]:
        placed, self._segment = self._segment, []
        words = _joined([word for word, _ in placed])
        text = "".join(word.text for word in words)
        if not text.strip():
            return []
        segment = Segment(
            id=self._n_segments,
            seek=round(self._begin / HOP),
            start=words[0].start,
            end=words[-1].end,
            text=text,
            tokens=tuple(token for _, tokens in placed for token in tokens),
            temperature=0.0,
            avg_logprob=float(np.mean([np.log(max(1e-9, word.probability)) for word in words])),
            compression_ratio=compression_ratio(text.strip()),
            no_speech_prob=0.0,
            words=words,
        )
        self._n_segments += 1
        return [SegmentDone(segment)]

    def _say_before(self, placed: Iterable[Placed]) -> None:
        """Words leave the sound: the decoder is told that they were said."""
        if self._options.condition_on_previous_text:
            said = [token for _, tokens in placed for token in tokens]
            self._context = (*self._context, *said)[-_CONTEXT:]
        else:
            self._context = ()

    def _shorten(self) -> None:
        """Forget the beginning of a long utterance: whole words, best a whole sentence."""
        end = self._end / SAMPLE_RATE
        old = [i for i, (word, _) in enumerate(self._finals, 1) if word.end <= end - _KEPT]
        if not old:
            return
        ends = [i for i in old if _ends_sentence(self._finals[i - 1][0])]
        n = (ends or old)[-1]
        self._say_before(self._finals[:n])
        at = self._finals[n - 1][0].end
        self._finals = self._finals[n:]
        self._keep(self._end / SAMPLE_RATE - at)


def _agrees(checkpoint: Checkpoint, options: StreamOptions) -> bool:
    """Whether words become final by agreement: distilled models look nowhere in particular."""
    if options.policy == AUTO:
        return checkpoint.dims.n_text_layer < checkpoint.dims.n_audio_layer
    return options.policy == AGREEMENT


def _ends_sentence(word: Word) -> bool:
    text = word.text.strip()
    return text != "" and text[-1] in SENTENCE_ENDS


def _joined(words: Sequence[Word]) -> tuple[Word, ...]:
    """Words, with the marks that follow them in them."""
    joined: list[Word] = []
    for word in words:
        if joined and word.text in APPENDED:
            joined[-1] = replace(joined[-1], text=joined[-1].text + word.text)
        else:
            joined.append(word)
    return tuple(joined)
