"""One encoded window -> a hypothesis: filters over the logits, and a search.

It knows nothing of audio, of other windows or of the device behind the session. The rules and
their order are those of openai/whisper decoding.py.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from whisper_npu.kernels import largest, log_sum_exp
from whisper_npu.stages import stage
from whisper_npu.tokenizer import TIME_PRECISION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from whisper_npu.devices.device import Device, Session
    from whisper_npu.options.decoding import DecodingOptions
    from whisper_npu.options.transcription import TranscribeOptions
    from whisper_npu.tokenizer import Tokenizer

    Float = NDArray[np.float32]
    Rows = Sequence[Sequence[int]]  # B hypotheses of sampled tokens, all of one length
    Filter = Callable[[Float, Rows], None]  # bans tokens in logits (B, V), in place

NEVER = np.float32(-np.inf)


@dataclass(frozen=True)
class Hypothesis:
    """What a window was heard to say."""

    tokens: tuple[int, ...]  # timestamps included, eot not
    text: str
    temperature: float
    avg_logprob: float  # per token, eot counted
    no_speech_prob: float
    compression_ratio: float


def has_failed(hypothesis: Hypothesis, options: TranscribeOptions) -> bool:
    """Whether it repeats itself or guesses; of silence nothing better can be said."""
    most, silent = options.compression_ratio_threshold, options.no_speech_threshold
    guesses = _guesses(hypothesis, options)
    if silent is not None and hypothesis.no_speech_prob > silent and guesses:
        return False
    return guesses or (most is not None and hypothesis.compression_ratio > most)


def is_silence(hypothesis: Hypothesis, options: TranscribeOptions) -> bool:
    """Whether nobody speaks, and the text was made up."""
    silent, least = options.no_speech_threshold, options.logprob_threshold
    if silent is None or hypothesis.no_speech_prob <= silent:
        return False
    return least is None or hypothesis.avg_logprob <= least


def _guesses(hypothesis: Hypothesis, options: TranscribeOptions) -> bool:
    least = options.logprob_threshold
    return least is not None and hypothesis.avg_logprob < least


def suppress(tokens: Sequence[int]) -> Filter:
    """Never these tokens."""
    columns = np.array(tokens, np.int64)

    def apply(logits: Float, _: Rows) -> None:
        logits[:, columns] = NEVER

    return apply


def suppress_at_start(tokens: Sequence[int]) -> Filter:
    """Not these tokens as the first one."""
    columns = np.array(tokens, np.int64)

    def apply(logits: Float, rows: Rows) -> None:
        if not rows[0]:
            logits[:, columns] = NEVER

    return apply


class TimestampRules:
    """Timestamps come in pairs, where a segment ends and the next begins, and never go back."""

    def __init__(self, tokenizer: Tokenizer, max_initial: float | None) -> None:
        self._begin = tokenizer.timestamp_begin
        self._eot = tokenizer.eot
        self._no_timestamps = tokenizer.no_timestamps
        self._n_initial = round(max_initial / TIME_PRECISION) + 1 if max_initial else None

    def __call__(self, logits: Float, rows: Rows) -> None:
        """Ban what the rules forbid."""
        logits[:, self._no_timestamps] = NEVER
        for i, row in enumerate(rows):
            self._pairs(logits[i], row)
        if not rows[0]:
            logits[:, : self._begin] = NEVER
            if self._n_initial is not None:
                logits[:, self._begin + self._n_initial :] = NEVER
        self._prefer_time(logits)

    def _pairs(self, logits: Float, row: Sequence[int]) -> None:
        """Bans for one row: logits (V,)."""
        begin = self._begin
        last_is_time = len(row) >= 1 and row[-1] >= begin
        before_is_time = len(row) < 2 or row[-2] >= begin
        may_open = last_is_time and not before_is_time  # a segment has ended: time or the end
        if may_open:
            logits[: self._eot] = NEVER
        elif last_is_time:  # a segment has begun: text
            logits[begin:] = NEVER
        latest = next((token for token in reversed(row) if token >= begin), None)
        if latest is not None:  # no segment may be empty, or the window loop would stand still
            logits[begin : latest if may_open else latest + 1] = NEVER

    def _prefer_time(self, logits: Float) -> None:
        """Where all timestamps together are likelier than the likeliest text: a timestamp."""
        time = log_sum_exp(logits, self._begin)  # (B,)
        text = logits[:, : self._begin].max(axis=1)
        for row in (time > text).nonzero()[0]:
            logits[row, : self._begin] = NEVER


@dataclass(frozen=True)
class Candidate:
    """A hypothesis that the search has ended with."""

    tokens: tuple[int, ...]
    logprob: float  # sum over the tokens, and eot where it was reached

    def score(self, length_penalty: float | None) -> float:
        """Log-probability made comparable between lengths."""
        n = len(self.tokens)
        if length_penalty is None:
            return self.logprob / max(n, 1)
        return self.logprob / ((5 + n) / 6) ** length_penalty


class Search(Protocol):
    """Chooses the next tokens. It begins with one empty row, as the session does."""

    rows: list[list[int]]  # the live hypotheses, in the order of the session's rows

    def extend(self, logits: Float) -> list[int]:
        """Take one more token in each hypothesis, given filtered logits (B, V).

        Returns for each live row which of the rows before it continues; none: the search is over.
        """
        ...

    def candidates(self) -> list[Candidate]:
        """What was found; live hypotheses are taken as they are."""
        ...


class Sampling:
    """The likeliest token, or above temperature 0 `n` independent samples.

    Source: openai/whisper GreedyDecoder. Finished rows leave the session, and yet each row draws
    from the same stream whatever the others do.
    """

    def __init__(self, eot: int, temperature: float, n: int, rng: np.random.Generator) -> None:
        self.rows: list[list[int]] = [[]]
        self._eot = eot
        self._temperature = temperature
        self._rng = rng
        self._n = n
        self._live: list[int] = []  # which of the n samples each row is
        self._logprob = [0.0] * n
        self._found: dict[int, Candidate] = {}

    def extend(self, logits: Float) -> list[int]:
        sources = list(range(len(self.rows)))
        if not self._live:  # the first step: n copies of the one row
            self._live = list(range(self._n))
            sources = [0] * self._n
            logits = logits[sources]
        tokens = self._choose(logits).tolist()
        totals = log_sum_exp(logits).tolist()
        kept = []
        for row, (sample, token) in enumerate(zip(self._live, tokens, strict=True)):
            self._logprob[sample] += float(logits[row, token]) - totals[row]
            if token == self._eot:
                so_far = tuple(self.rows[sources[row]])
                self._found[sample] = Candidate(so_far, self._logprob[sample])
            else:
                kept.append(row)
        self.rows = [[*self.rows[sources[row]], tokens[row]] for row in kept]
        self._live = [self._live[row] for row in kept]
        return [sources[row] for row in kept]

    def _choose(self, logits: Float) -> NDArray[np.int64]:
        if self._temperature == 0:
            return logits.argmax(axis=1)
        uniform = self._rng.random(self._n)[self._live]
        return sample(logits / np.float32(self._temperature), uniform)

    def candidates(self) -> list[Candidate]:
        unfinished = {
            sample: Candidate(tuple(row), self._logprob[sample])
            for sample, row in zip(self._live, self.rows, strict=True)
        }
        found = self._found | unfinished
        return [found[sample] for sample in sorted(found)]


def sample(logits: Float, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw one token per row by inverting the cumulative distribution.

    logits   (B, V)  float32
    uniform  (B,)    float64  in [0, 1)
    return   (B,)    int64    never a token of probability 0
    """
    weights = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    cumulative = weights.cumsum(axis=1)  # (B, V)
    targets = uniform * np.nextafter(cumulative[:, -1], 0)  # below the total, even when rounded
    rows = zip(cumulative, targets, strict=True)
    return np.array([np.searchsorted(row, target, side="right") for row, target in rows])


class BeamSearch:
    """The best `size` hypotheses at each length, until enough of them have ended.

    Source: openai/whisper BeamSearchDecoder; patience: Kasai et al. 2022.
    """

    def __init__(self, eot: int, size: int, patience: float) -> None:
        self.rows: list[list[int]] = [[]]
        self._eot = eot
        self._size = size
        self._enough = round(size * patience)
        self._logprob = np.zeros(1)  # (B,) of the rows
        self._found: list[Candidate] = []

    def extend(self, logits: Float) -> list[int]:
        sources, rows, sums, ended = [], [], [], []
        for total, source, token in self._continuations(logits):
            if token == self._eot:
                ended.append(Candidate(tuple(self.rows[source]), total))
                continue
            sources.append(source)
            rows.append([*self.rows[source], token])
            sums.append(total)
            if len(rows) == self._size:
                break
        self._found += ended[: self._enough - len(self._found)]
        self.rows, self._logprob = rows, np.array(sums)
        return sources if len(self._found) < self._enough else []

    def _continuations(self, logits: Float) -> list[tuple[float, int, int]]:
        """(log-probability, row, token) of each row's best size + 1 tokens, best first."""
        n = min(self._size + 1, logits.shape[1])  # one more than size: one of them may be eot
        values, tokens = largest(logits, n)  # (B, n)
        chosen = values - log_sum_exp(logits)[:, None]
        totals = (self._logprob[:, None] + chosen).ravel()
        best = [i for i in np.argsort(-totals, kind="stable") if totals[i] > NEVER]
        return [(float(totals[i]), int(i) // n, int(tokens.flat[i])) for i in best]

    def candidates(self) -> list[Candidate]:
        live = [
            Candidate(tuple(row), float(total))
            for row, total in zip(self.rows, self._logprob, strict=True)
        ]
        missing = max(0, self._size - len(self._found))
        return self._found + live[:missing]  # rows are kept best first


class Decoder:
    """Decodes windows of one model. `n_ctx` is the number of positions of its decoder."""

    def __init__(self, device: Device, tokenizer: Tokenizer, n_ctx: int) -> None:
        self._device = device
        self._tokenizer = tokenizer
        self.n_ctx = n_ctx

    @property
    def max_prompt(self) -> int:
        """How many tokens of earlier text a window can see."""
        return self.n_ctx // 2 - 1

    @stage("decoder")
    def detect_language(self, encoded: Any) -> tuple[dict[str, float], float]:
        """Probability of each language, and that nobody speaks at all."""
        session = self._device.session(encoded)
        try:
            logits = session.step(np.array([[self._tokenizer.sot]]))
        finally:
            session.close()
        languages = self._tokenizer.language_tokens
        chosen = logits[:, list(languages.values())]  # (1, languages)
        probabilities = np.exp(chosen[0] - log_sum_exp(chosen))
        named = dict(zip(languages, probabilities.tolist(), strict=True))
        return named, self._no_speech(logits)

    @stage("decoder")
    def decode(
        self, encoded: Any, options: DecodingOptions, rng: np.random.Generator
    ) -> Hypothesis:
        """Decode one window; `rng` is used only above temperature 0."""
        tokenizer = self._tokenizer
        search: Search
        if options.beam_size:
            search = BeamSearch(tokenizer.eot, options.beam_size, options.patience or 1.0)
        else:
            search = Sampling(tokenizer.eot, options.temperature, options.best_of or 1, rng)
        beams = options.beam_size or options.best_of or 1
        session = self._device.session(encoded, beams=beams)
        try:
            no_speech_prob = self._search(session, search, options)
        finally:
            session.close()
        best = max(search.candidates(), key=lambda found: found.score(options.length_penalty))
        text = tokenizer.decode(best.tokens).strip()
        return Hypothesis(
            tokens=best.tokens,
            text=text,
            temperature=options.temperature,
            avg_logprob=best.logprob / (len(best.tokens) + 1),
            no_speech_prob=no_speech_prob,
            compression_ratio=compression_ratio(text),
        )

    def _search(self, session: Session, search: Search, options: DecodingOptions) -> float:
        """Run the search to its end; returns the no-speech probability."""
        past, sot = self._initial_tokens(options)
        n_past = len(past) + len(sot)
        filters = self._filters(options)
        logits = session.step(np.array([[*past, sot[0]]]))
        no_speech_prob = self._no_speech(logits)
        if sot[1:]:
            logits = session.step(np.array([sot[1:]]))
        sample_len = options.sample_len or self.n_ctx // 2
        for i in range(sample_len):
            for apply in filters:
                apply(logits, search.rows)
            n_rows = len(search.rows)
            sources = search.extend(logits)
            length = n_past + i + 1
            if not sources or length > self.n_ctx or i + 1 == sample_len:
                break
            if sources != list(range(n_rows)):
                session.reorder(sources)
            logits = session.step(np.array([[row[-1]] for row in search.rows]))
        return no_speech_prob

    def _initial_tokens(self, options: DecodingOptions) -> tuple[list[int], list[int]]:
        """What comes before sot; and sot with what follows it."""
        tokenizer = self._tokenizer
        past = [tokenizer.sot_prev, *options.prompt[-self.max_prompt :]] if options.prompt else []
        sot = list(tokenizer.sot_sequence(options.language, options.task))
        if options.without_timestamps:
            sot.append(tokenizer.no_timestamps)
        # the prefix counts as sampled, and never fills the context; beware of prefix[-0:]
        room = self.n_ctx // 2 - max(options.sample_len or 0, len(sot) + 1)
        prefix = options.prefix[-room:] if room > 0 else ()
        return past, [*sot, *prefix]

    def _filters(self, options: DecodingOptions) -> list[Filter]:
        tokenizer = self._tokenizer
        filters: list[Filter] = []
        if options.suppress_blank:
            filters.append(suppress_at_start(tokenizer.blank))
        filters.append(suppress(tokenizer.suppressed(options.suppress_tokens)))
        if not options.without_timestamps:
            filters.append(TimestampRules(tokenizer, options.max_initial_timestamp))
        return filters

    def _no_speech(self, logits: Float) -> float:
        """Logits after sot (1, V) -> probability that nobody speaks."""
        return float(np.exp(logits[0, self._tokenizer.no_speech] - log_sum_exp(logits)[0]))


def compression_ratio(text: str) -> float:
    """How well text compresses: above 2.4 or so it repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))
