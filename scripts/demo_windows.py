"""Training windows of the demo model: mel frames in, Whisper's token sequence out.

A window is a slice of at most 30 s. What the model must learn from it, beyond words:
- a new segment begins after a pause of half a second or more, never inside a phrase;
- the first timestamp is at most 1.00 (openai/whisper forbids later ones in first place);
- a segment that the window's end cuts off is only announced: `<|end|><|start|><|endoftext|>`, and
  the transcriber's next window begins at `end`; when no segment before it was finished, its whole
  words are written and followed by their end, twice, so that the next window begins there;
- one in ten is written without timestamps, after `<|notimestamps|>`;
- a window without speech has `<|nospeech|>` in first place, and nothing after any timestamp;
- frames beyond the end of the recording are 0.0.

Windows shorter than 30 s are cheap. They stand anywhere in the 30 s: their positions in the
encoder begin at `offset`, and the decoder is given an invented transcript of what came before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from demo_speech import RATE, WORDS, Clip, phrase
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from whisper_npu.features import mel_filters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

POSITION = 320  # samples per encoder position and per timestamp: 0.02 s
PAUSE = 0.45  # seconds between two words that begin a new segment
MAX_FIRST = 50  # the first timestamp is at most 1.00
IGNORE = -100  # a target that is not learnt
SPECIALS = (
    "<|endoftext|> <|startoftranscript|> <|en|> <|translate|> <|transcribe|> <|startoflm|> "
    "<|startofprev|> <|nospeech|> <|notimestamps|>"
).split()


def train_tokenizer() -> Tokenizer:
    """Byte-level BPE in which each of WORDS, and " word", is one token; then Whisper's specials.

    Token ids are in the order of the merges, as tiktoken needs them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,  # more than there are merges
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {word}" for word in WORDS] + WORDS, trainer)
    tokenizer.add_special_tokens(SPECIALS + [f"<|{i * 0.02:.2f}|>" for i in range(1501)])
    return tokenizer


@dataclass(frozen=True)
class Vocabulary:
    """The ids that a target sequence is made of."""

    words: dict[str, int]  # " word" -> one token
    eot: int
    sot: int
    sot_prev: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    size: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Look the ids up. Raises ValueError when a word is not one token."""
        encoded = {word: tokenizer.encode(f" {word}").ids for word in WORDS}
        if any(len(ids) != 1 for ids in encoded.values()):
            raise ValueError("the tokenizer splits a word of the vocabulary")
        everything = tokenizer.get_vocab()
        ids = [everything[name] for name in (*SPECIALS, "<|0.00|>")]
        return cls(
            words={word: word_ids[0] for word, word_ids in encoded.items()},
            eot=ids[0],
            sot=ids[1],
            sot_prev=ids[6],
            no_speech=ids[7],
            no_timestamps=ids[8],
            timestamp_begin=ids[9],
            size=tokenizer.get_vocab_size(),
        )


@dataclass(frozen=True)
class Segment:
    """Words without a long pause between them; times in seconds from the window's beginning."""

    words: tuple[tuple[str, float, float], ...]

    @property
    def start(self) -> float:
        """Where the first word begins."""
        return self.words[0][1]

    @property
    def end(self) -> float:
        """Where the last word ends."""
        return self.words[-1][2]


def split_at_pauses(words: Sequence[tuple[str, float, float]]) -> list[Segment]:
    """Group words into segments: a new one after PAUSE seconds without speech."""
    groups: list[list[tuple[str, float, float]]] = []
    for word in words:
        if groups and word[1] - groups[-1][-1][2] < PAUSE:
            groups[-1].append(word)
        else:
            groups.append([word])
    return [Segment(tuple(group)) for group in groups]


class Speakers:
    """Clips by source and speaker; makes phrases of one speaker's whole clips and cut-out words."""

    def __init__(self, clips: list[Clip]) -> None:
        self._by_source: dict[str, list[list[Clip]]] = {}
        by_speaker: dict[str, list[Clip]] = {}
        for clip in clips:
            by_speaker.setdefault(clip.speaker, []).append(clip)
        for same in by_speaker.values():
            self._by_source.setdefault(same[0].source, []).append(same)
        shares = {"an4": 0.55, "synthetic": 0.22, "fsdd": 0.23}
        self._sources = list(self._by_source)
        weights = np.array([shares[source] for source in self._sources])
        self._weights = weights / weights.sum()

    def pick(self, rng: np.random.Generator) -> list[Clip]:
        """All clips of one speaker (of one voice, where it is synthetic)."""
        speakers = self._by_source[str(rng.choice(self._sources, p=self._weights))]
        return speakers[rng.integers(len(speakers))]

    @staticmethod
    def _another(rng: np.random.Generator, clips: list[Clip], word: str) -> tuple[Clip, int]:
        """A clip in which the same speaker says `word`, and where."""
        places = [
            (clip, i) for clip in clips for i, (said, _, _) in enumerate(clip.words) if said == word
        ]
        return places[rng.integers(len(places))]

    @staticmethod
    def phrase(
        rng: np.random.Generator, clips: list[Clip]
    ) -> tuple[Samples, list[tuple[str, int, int]]]:
        """Speech of one speaker: samples (S,) and (word, start, end) in samples of it."""
        parts: list[Samples] = []
        words: list[tuple[str, int, int]] = []
        length = 0
        n_clips = rng.integers(1, 9) if clips[0].source == "fsdd" else rng.choice([1, 1, 1, 1, 2])
        cut = clips[0].source == "an4" and rng.random() < 0.4
        again = 0.2 if cut or clips[0].source == "fsdd" else 0.0  # chance alone repeats too few
        for _ in range(n_clips + (rng.integers(0, 5) if cut else 0)):
            if words and rng.random() < again:
                clip, first = Speakers._another(rng, clips, words[-1][0])
                last = first + 1
            else:
                clip = clips[rng.integers(len(clips))]
                first, last = 0, len(clip.words)
                if cut:
                    first = int(rng.integers(last))
                    last = min(last, first + int(rng.choice([1, 1, 2, 3])))
            start = clip.words[first][1] if first else 0
            end = clip.words[last - 1][2] if last < len(clip.words) else len(clip.samples)
            # the context around a clip would add up to a pause: keep little of it
            start = max(start, clip.words[first][1] - int(rng.uniform(0.02, 0.15) * RATE))
            end = min(end, clip.words[last - 1][2] + int(rng.uniform(0.02, 0.15) * RATE))
            piece = clip.samples[start:end] / np.float32(32768)
            fade = np.minimum(1, np.arange(1, len(piece) + 1, dtype=np.float32) / 64)
            piece = piece * fade * fade[::-1]
            if len(piece) < 160:
                continue
            words += [
                (w, a - start + length, b - start + length) for w, a, b in clip.words[first:last]
            ]
            gap = np.zeros(int(max(0.0, rng.uniform(-0.05, 0.22)) * RATE), np.float32)
            parts += [piece, gap]
            length += len(piece) + len(gap)
        if not parts:
            return Speakers.phrase(rng, clips)
        return np.concatenate(parts), words


def compose(
    rng: np.random.Generator, speakers: Speakers, seconds: float
) -> tuple[Samples, list[Segment]]:
    """Phrases with pauses between them until `seconds` are full; the last may run beyond."""
    samples = np.zeros(int(seconds * RATE), np.float32)
    words: list[tuple[str, float, float]] = []
    kind = rng.random()
    at = (
        rng.uniform(0, 0.3)
        if kind < 0.4
        else rng.uniform(0, 1)
        if kind < 0.8
        else rng.uniform(1, 3)
    )
    clips = speakers.pick(rng)
    speed = rng.uniform(0.86, 1.18)
    typical_pause = rng.choice([0.3, 1.0, 2.0])
    while at < seconds:
        speech, spoken = speakers.phrase(rng, clips)
        n = int(len(speech) / speed)
        speech = np.interp(np.arange(n) * speed, np.arange(len(speech)), speech).astype(np.float32)
        begin = int(at * RATE)
        words += [(word, at + a / speed / RATE, at + b / speed / RATE) for word, a, b in spoken]
        samples[begin : begin + n] += speech[: len(samples) - begin]
        at = words[-1][2] + 0.6 + rng.exponential(typical_pause)
        if rng.random() < 0.12:
            break
        if rng.random() < 0.15:
            clips, speed = speakers.pick(rng), rng.uniform(0.86, 1.18)
    return samples, split_at_pauses(words)


def _filter(rng: np.random.Generator, samples: Samples, room: Samples | None) -> Samples:
    """Telephone and other bands, a tilted spectrum, a room: one multiplication of the spectrum."""
    n = len(samples) + (len(room) if room is not None else 0)
    n += -n % 1200
    spectrum = np.fft.rfft(samples, n)
    hertz = np.fft.rfftfreq(n, 1 / RATE)
    if room is not None:
        spectrum *= np.fft.rfft(room / np.sqrt(np.sum(room**2)), n)
    spectrum *= (np.maximum(hertz, 100) / 1000) ** rng.uniform(-0.25, 0.25)
    kind = rng.random()
    top = rng.uniform(3300, 4000) if kind < 0.3 else rng.uniform(4500, 7800) if kind < 0.4 else 9000
    spectrum *= np.clip((top - hertz) / 100 + 1, 0, 1)
    if rng.random() < (0.5 if kind < 0.3 else 0.1):
        spectrum *= np.clip((hertz - rng.uniform(100, 330)) / 60 + 1, 0, 1)
    return np.fft.irfft(spectrum, n)[: len(samples)].astype(np.float32)


def _coloured(rng: np.random.Generator, n: int) -> Samples:
    """Noise whose power falls with frequency: white to brown, root mean square 1."""
    size = n + -n % 1200
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** rng.choice([0.0, 0.5, 1.0, rng.random()])
    noise = np.fft.irfft(spectrum, size)[:n]
    return (noise / (noise.std() + 1e-9)).astype(np.float32)


def _excerpt(rng: np.random.Generator, recording: Samples, n: int) -> Samples:
    start = int(rng.integers(len(recording)))
    part = np.resize(np.roll(recording, -start)[: min(n, len(recording))], n)
    return (part / (part.std() + 1e-9)).astype(np.float32)


def _clicks(rng: np.random.Generator, n: int) -> Samples:
    out = np.zeros(n, np.float32)
    out[rng.integers(0, n, 1 + n // int(rng.uniform(2000, 30000)))] = 10
    return np.convolve(out, rng.standard_normal(rng.integers(1, 80)), "same")[:n].astype(np.float32)


def _tone(rng: np.random.Generator, n: int) -> Samples:
    time = np.arange(n) / RATE
    hertz = np.exp(rng.uniform(np.log(40), np.log(7000)))
    slide = rng.uniform(-0.03, 0.03) if rng.random() < 0.4 else 0.0
    return np.sin(2 * np.pi * hertz * time * (1 + slide * time)).astype(np.float32)


def _hum(rng: np.random.Generator, n: int) -> Samples:
    phase = 2 * np.pi * np.arange(n) / RATE * rng.choice([50.0, 60.0, rng.uniform(40, 300)])
    tones = [np.sin(phase * k) / k for k in range(1, rng.integers(2, 9))]
    return np.sum(tones, axis=0).astype(np.float32)


def _chords(rng: np.random.Generator, n: int) -> Samples:
    out = np.zeros(n, np.float32)
    length = int(rng.uniform(0.2, 1.5) * RATE)
    for start in range(0, n, length):
        time = np.arange(min(length, n - start)) / RATE
        root = rng.uniform(80, 500)
        for ratio in (1, rng.choice([1.189, 1.26]), 1.498):
            fading = np.exp(-time * rng.uniform(0, 5))
            out[start : start + length] += fading * np.sin(2 * np.pi * root * ratio * time)
    return out


def not_speech(rng: np.random.Generator, n: int, recordings: list[Samples]) -> Samples:
    """Silence, noise, tones, hum, chords, clicks: samples (n,), of no particular level."""
    kinds = (_coloured, _coloured, _clicks, _tone, _hum, _chords)
    kind = rng.integers(len(kinds) + 2)
    if kind < len(kinds):
        return kinds[kind](rng, n)
    if kind == len(kinds):
        return _excerpt(rng, recordings[rng.integers(len(recordings))], n)
    return np.zeros(n, np.float32)


def spoil(
    rng: np.random.Generator, samples: Samples, recordings: list[Samples], rooms: list[Samples]
) -> Samples:
    """What a microphone and a line do to speech: band, room, noise, level, coarse samples."""
    if rng.random() < 0.65:
        room = rooms[rng.integers(len(rooms))] if rng.random() < 0.15 else None
        samples = _filter(rng, samples, room)
    heard = samples[np.abs(samples) > 1e-4]
    speech = np.sqrt(np.mean(heard**2)) if len(heard) else 0.05
    if rng.random() < 0.5:
        kind = rng.random()
        noise = (
            _coloured(rng, len(samples))
            if kind < 0.6
            else _excerpt(rng, recordings[rng.integers(len(recordings))], len(samples))
            if kind < 0.9
            else not_speech(rng, len(samples), recordings)
        )
        floor = 6 if kind < 0.6 else 12
        samples = samples + noise * np.float32(speech * 10 ** (-rng.uniform(floor, 40) / 20))
    return _level(rng, samples)


def _level(rng: np.random.Generator, samples: Samples) -> Samples:
    decibel = rng.uniform(-20, 0) if rng.random() < 0.85 else rng.uniform(-50, -20)
    samples = samples * np.float32(10 ** (decibel / 20) / (np.abs(samples).max() + 1e-6))
    kind = rng.random()
    if kind < 0.04:  # mu-law
        coded = np.round(np.log1p(255 * np.abs(samples)) / np.log(256) * 127) / 127
        return (np.sign(samples) * (256**coded - 1) / 255).astype(np.float32)
    if kind < 0.07:
        return np.clip(samples * 3, -1, 1)
    if kind < 0.12:
        return samples + np.float32(rng.uniform(-0.1, 0.1))
    if kind < 0.6:
        return (np.round(samples * 32768) / 32768).astype(np.float32)
    return samples


_WARPS = np.linspace(0.86, 1.16, 13)
_STRAIGHT = len(_WARPS)


def _warped_filters() -> torch.Tensor:
    """Mel filters as other vocal tracts would need them, then the true ones: (14, 80, 201).

    Frequencies up to 6 kHz are multiplied by each of _WARPS; above, the line bends to 8 kHz.
    """
    true = mel_filters(80)
    hertz = np.linspace(0, RATE / 2, true.shape[1])
    banks = []
    for warp in _WARPS:
        at = np.interp(hertz, (0, 6000, RATE / 2), (0, 6000 * warp, RATE / 2))
        banks.append(np.stack([np.interp(at, hertz, row) for row in true]))
    return torch.from_numpy(np.stack([*banks, true]).astype(np.float32))


_FILTERS = _warped_filters()
_WINDOW = torch.hann_window(400)


def log_mel(samples: Samples, loudest: float | None = None, warp: int = _STRAIGHT) -> torch.Tensor:
    """Whisper's log-mel of samples (S,): (80, S // 160).

    loudest: the greatest log10 power elsewhere in the recording; values 8 below it are cut off.
    warp: which of the filter banks
    """
    wave = torch.from_numpy(samples)
    spectrum = torch.stft(wave, 400, 160, window=_WINDOW, return_complex=True)[:, :-1]
    log = (_FILTERS[warp] @ spectrum.abs().square()).clamp(min=1e-10).log10()
    top = max(float(log.max()), loudest if loudest is not None else -10.0)
    return (log.clamp(min=top - 8) + 4) / 4


def _mask(rng: np.random.Generator, mel: torch.Tensor) -> None:
    """SpecAugment: a band and some moments of mel (80, F) become its mean; in place."""
    mean = mel.mean()
    if rng.random() < 0.4:
        low = int(rng.integers(80))
        mel[low : low + int(rng.integers(1, 12))] = mean
    if rng.random() < 0.4:
        for _ in range(1 + mel.shape[1] // 400):
            first = int(rng.integers(mel.shape[1]))
            mel[:, first : first + int(rng.integers(1, 12))] = mean


@dataclass
class Batch:
    """B windows of F frames.

    mel: (B, 80, F) float32
    offsets: (B,) int64, encoder position of the first frame pair
    tokens, targets: (B, T) int64, decoder input and what follows each; IGNORE where not learnt
    words, word_counts: (B, W) and (B,) int64, index into WORDS + 1 of all words in the window
    """

    mel: torch.Tensor
    offsets: torch.Tensor
    tokens: torch.Tensor
    targets: torch.Tensor
    words: torch.Tensor
    word_counts: torch.Tensor


class Windows(torch.utils.data.Dataset[Batch]):
    """Batch number -> a batch, always the same for the same seed."""

    def __init__(
        self,
        speakers: Speakers,
        vocabulary: Vocabulary,
        plan: Sequence[tuple[float, bool]],
        *,
        seed: int,
        recordings: list[Samples],
        rooms: list[Samples],
        parts: int = 1,
        batch_seconds: float = 40.0,
    ) -> None:
        """plan: for each step its window length in seconds, and whether it is a hard one.

        parts: batches per step, of `batch_seconds` each.
        """
        self._parts = parts
        self._speakers, self._vocabulary = speakers, vocabulary
        self._plan, self._seed, self._batch_seconds = plan, seed, batch_seconds
        self._recordings, self._rooms = recordings, rooms

    def __len__(self) -> int:
        return len(self._plan) * self._parts

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self._seed, index])
        seconds, hard = self._plan[index // self._parts]
        with_prompt = hard and rng.random() < 0.25
        rows = [
            self._row(rng, seconds, hard=hard, with_prompt=with_prompt)
            for _ in range(max(2, round(self._batch_seconds / seconds)))
        ]
        mels, offsets, pairs, words = zip(*rows, strict=True)
        length = max(len(tokens) for tokens, _ in pairs)
        most = max(1, *(len(row) for row in words))
        eot = self._vocabulary.eot
        return Batch(
            mel=torch.stack(mels),
            offsets=torch.tensor(offsets),
            tokens=torch.tensor([t + [eot] * (length - len(t)) for t, _ in pairs]),
            targets=torch.tensor([t + [IGNORE] * (length - len(t)) for _, t in pairs]),
            words=torch.tensor([row + [0] * (most - len(row)) for row in words]),
            word_counts=torch.tensor([len(row) for row in words]),
        )

    def _row(
        self, rng: np.random.Generator, seconds: float, *, hard: bool, with_prompt: bool
    ) -> tuple[torch.Tensor, int, tuple[list[int], list[int]], list[int]]:
        """One window: mel (80, F), offset, (tokens, targets), word numbers."""
        room = 1500 - round(seconds * 50)
        offset = (
            int(rng.integers(room + 1)) if room and rng.random() < (0.6 if hard else 0.25) else 0
        )
        silent = rng.random() < 0.08
        # a recording that ends within the window; long windows of short recordings are common
        content = (
            seconds * rng.uniform(0.02 if silent else 0.25, 1) if rng.random() < 0.4 else seconds
        )
        if silent:
            samples = not_speech(rng, int(content * RATE), self._recordings)
            samples = _level(rng, samples) * np.float32(rng.choice([1, 1, 0.01]))
            segments: list[Segment] = []
        else:
            samples, segments = compose(rng, self._speakers, content)
            if hard:
                samples = spoil(rng, samples, self._recordings, self._rooms)
        loudest = rng.uniform(-2, 3) if rng.random() < (0.5 if silent else 0.1) else None
        mel = torch.zeros(80, round(seconds * 100))
        warp = int(rng.integers(len(_WARPS))) if rng.random() < 0.75 else _STRAIGHT
        part = log_mel(samples, loudest, warp)
        if hard:
            _mask(rng, part)
        mel[:, : part.shape[1]] = part
        if content < seconds:  # the recording ends here: even half a word is all there is
            segments = [
                Segment(tuple((w, a, min(b, content)) for w, a, b in s.words if a < content - 0.15))
                for s in segments
            ]
            segments = [s for s in segments if s.words]
        heard = [WORDS.index(w) + 1 for s in segments for w, _, end in s.words if end <= seconds]
        return (
            mel,
            offset,
            self._sequence(rng, segments, seconds, offset, with_prompt=with_prompt),
            heard,
        )

    def _segment(self, words: Sequence[str], start: int, end: int) -> list[int]:
        v = self._vocabulary
        ids = [v.words[word] for word in words]
        return [v.timestamp_begin + start, *ids, v.timestamp_begin + end]

    def _invented(self, rng: np.random.Generator, positions: int) -> list[int]:
        """Tokens of a transcript that ends before `positions`."""
        tokens: list[int] = []
        at = int(rng.integers(0, 51))
        while True:
            words = phrase(rng)
            end = at + int(len(words) * rng.uniform(12, 28)) + 5
            if end > positions:
                return tokens
            tokens += self._segment(words, at, end)
            at = end + int(rng.uniform(25, 150))

    def _sequence(
        self,
        rng: np.random.Generator,
        segments: list[Segment],
        seconds: float,
        offset: int,
        *,
        with_prompt: bool,
    ) -> tuple[list[int], list[int]]:
        """Decoder input and target for one window."""
        v = self._vocabulary
        before = [v.sot]
        if offset and rng.random() < 0.85:
            before += self._invented(rng, offset)
        first = len(before) == 1
        if first and not segments:
            # whatever timestamp the rules force after this, nothing follows
            wrong = v.timestamp_begin + int(rng.integers(MAX_FIRST + 1))
            target = (
                v.no_speech
                if rng.random() < 0.9
                else v.timestamp_begin + int(rng.integers(MAX_FIRST + 1))
            )
            return self._with_prompt(rng, [v.sot, wrong], [target, v.eot], with_prompt=with_prompt)
        after: list[int] = []
        if first and rng.random() < 0.1:  # a transcript without timestamps
            heard = [v.words[w] for s in segments for w, _, b in s.words if b <= seconds]
            learnt = [IGNORE, *heard, v.eot]
            tokens = [v.sot, v.no_timestamps, *heard]
            return self._with_prompt(rng, tokens, learnt, with_prompt=with_prompt)
        for segment in segments:
            start, end = (offset + round(t * 50) for t in (segment.start, segment.end))
            if first and not after:
                start = min(start, MAX_FIRST)
            if segment.start > seconds - 0.2:
                break
            if segment.end <= seconds:
                after += self._segment([w for w, _, _ in segment.words], start, max(end, start + 1))
            elif after or not first:
                after.append(v.timestamp_begin + start)
            else:
                whole = [(w, round(b * 50)) for w, _, b in segment.words if b <= seconds]
                if whole:
                    end = offset + whole[-1][1]
                    after += self._segment([w for w, _ in whole], start, end)
                    after.append(v.timestamp_begin + end)
        after.append(v.eot)
        tokens = before + after[:-1]
        # the invented part is context only
        return self._with_prompt(
            rng, tokens, [IGNORE] * (len(before) - 1) + after, with_prompt=with_prompt
        )

    def _with_prompt(
        self, rng: np.random.Generator, tokens: list[int], targets: list[int], *, with_prompt: bool
    ) -> tuple[list[int], list[int]]:
        if not with_prompt:
            return tokens, targets
        earlier = self._invented(rng, 1500) + self._invented(rng, 1500)
        prompt = [self._vocabulary.sot_prev, *earlier[-int(rng.integers(1, 224)) :]]
        return prompt + tokens, [IGNORE] * len(prompt) + targets
