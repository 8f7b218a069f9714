"""A device and a vocabulary without numerics: logits come from a function of the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.devices.device import DeviceInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Float = NDArray[np.float32]
    Logits = Callable[[tuple[int, ...]], Float]  # all tokens so far -> (V,)


class Vocabulary:
    """A space and three letters, each with a space before it; the special tokens; timestamps."""

    eot, sot, translate, transcribe, sot_lm, sot_prev, no_speech, no_timestamps = range(4, 12)
    timestamp_begin = 12
    n_vocab = 12 + 1501
    blank = (0, eot)
    multilingual = False

    def __init__(self, languages: Sequence[str] = ()) -> None:
        """With languages, they take the place of the last timestamps."""
        self.multilingual = bool(languages)
        self.language_tokens = {code: self.n_vocab - 1 - i for i, code in enumerate(languages)}

    def sot_sequence(self, language: str | None, task: str) -> tuple[int, ...]:
        if not self.multilingual:
            return (self.sot,)
        return (self.sot, self.language_tokens[language or "en"], self.transcribe)

    def suppressed(self, choice: Sequence[int]) -> tuple[int, ...]:
        banned = (self.sot, self.translate, self.transcribe, self.sot_lm, self.sot_prev)
        return (*banned, self.no_speech, *(t for t in choice if t >= 0))

    def encode(self, text: str) -> list[int]:
        return [" abc".index(letter) for letter in text if letter in "abc"]

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join((" ", " a", " b", " c")[token] for token in tokens if token < self.eot)

    def at(self, seconds: float) -> int:
        """The timestamp token."""
        return self.timestamp_begin + round(seconds / 0.02)


class ScriptedSession:
    """Remembers the tokens of each row, as a cache would."""

    def __init__(self, logits: Logits, n_heads: int) -> None:
        self._logits = logits
        self._n_heads = n_heads
        self.rows: list[tuple[int, ...]] = [()]

    def step(self, tokens: NDArray[np.int64], *, every_position: bool = False) -> Float:
        assert len(tokens) == len(self.rows)
        positions = []
        for column in tokens.T.tolist():
            self.rows = [(*row, token) for row, token in zip(self.rows, column, strict=True)]
            positions.append(np.stack([self._logits(row) for row in self.rows]))
        return np.stack(positions, axis=1) if every_position else positions[-1]

    def reorder(self, sources: Sequence[int]) -> None:
        self.rows = [self.rows[source] for source in sources]

    def attention(self) -> Float:
        """Each token looks at a moment of its own, one after another."""
        n = len(self.rows[0])
        at = np.linspace(0, 1500, n, endpoint=False)
        scores = -np.abs(np.arange(1500)[None, :] - at[:, None]).astype(np.float32)
        return np.stack([scores] * self._n_heads)

    def close(self) -> None:
        self.rows = []


class ScriptedDevice:
    """A `Device`; `windows` are the mels it has encoded."""

    info = DeviceInfo("scripted", "cpu", "f32", "f32")

    def __init__(self, logits: Callable[[Any], Logits]) -> None:
        self._logits = logits
        self.windows: list[Float] = []

    def encode(self, mel: Float, *, observe: Any = None) -> int:
        self.windows.append(mel)
        return len(self.windows) - 1

    def session(self, encoded: int, *, beams: int = 1, align: bool = False) -> ScriptedSession:
        return ScriptedSession(self._logits(encoded), 2)

    def close(self) -> None: ...


@dataclass
class Blank:
    """Features (1, 2) that say only which window they are."""

    n_frames: int

    @property
    def duration(self) -> float:
        return self.n_frames / 100

    def window(self, start: int, n_frames: int = 3000, *, silence: bool = False) -> Float:
        return np.array([[start, n_frames]], np.float32)


def saying(vocabulary: Vocabulary, *tokens: int, no_speech: float = 0.0) -> Logits:
    """Logits that are sure of these tokens after sot, then of the end.

    no_speech  probability of silence, at sot
    """

    def logits(row: tuple[int, ...]) -> Float:
        after = row[len(row) - row[::-1].index(vocabulary.sot) :] if vocabulary.sot in row else ()
        found = np.full(vocabulary.n_vocab, -20, np.float32)
        if len(after) < len(vocabulary.sot_sequence(None, "")) - 1:
            after = ()
        else:
            after = after[len(vocabulary.sot_sequence(None, "")) - 1 :]
        found[tokens[len(after)] if len(after) < len(tokens) else vocabulary.eot] = 0
        if not after and no_speech:
            found[vocabulary.no_speech] = np.log(no_speech / (1 - no_speech))
        return found

    return logits
