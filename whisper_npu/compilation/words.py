"""What is heard with the keys and values of a graph, beside what is heard with our encoder's.

Whoever encoded, the same float32 decoder on the CPU reads a window greedily: what differs is the
encoder's doing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.decoding import Decoder
from whisper_npu.devices.cpu import open_cpu
from whisper_npu.languages import UNSPACED
from whisper_npu.options.decoding import DecodingOptions
from whisper_npu.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint

    Float = NDArray[np.float32]


@dataclass(frozen=True)
class WordAgreement:
    """One window heard twice: with our encoder, and with a graph."""

    expected: str
    heard: str
    n_words: int  # in `expected`; characters in languages without spaces between words
    n_different: int
    first_token: int | None  # the first that differs, punctuation and times among them; None: none

    def __str__(self) -> str:
        expected, heard = (
            shorten(text, 120, placeholder=" ...") for text in (self.expected, self.heard)
        )
        if self.n_different == 0:
            return f'the same {self.n_words} words: "{heard}"'
        return (
            f"{self.n_different} of {self.n_words} words differ, from token {self.first_token} on: "
            f'"{heard}" instead of "{expected}"'
        )


class Ear:
    """Hears windows whose keys and values are given."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._n_layers = checkpoint.dims.n_text_layer
        self._device = open_cpu(checkpoint, precision="f32")
        self._tokenizer = Tokenizer(checkpoint)
        self._decoder = Decoder(self._device, self._tokenizer, checkpoint.dims.n_text_ctx)

    def compare(self, actual: Mapping[str, Float], expected: Mapping[str, Float]) -> WordAgreement:
        """Hear one window twice.

        actual, expected  key_0, value_0, key_1, ... -> (1, C, D) float32
        """
        ours, language = self._hear(expected)
        theirs, _ = self._hear(actual)
        decode = self._tokenizer.decode
        texts = decode(ours).strip(), decode(theirs).strip()
        words, others = (units(text, language) for text in texts)
        pairs = enumerate(zip_longest(ours, theirs))
        first = next((i for i, (one, other) in pairs if one != other), None)
        return WordAgreement(*texts, len(words), differing(words, others), first)

    def _hear(self, outputs: Mapping[str, Float]) -> tuple[tuple[int, ...], str]:
        """Tokens and language of a window."""
        pairs = [(outputs[f"key_{i}"][0], outputs[f"value_{i}"][0]) for i in range(self._n_layers)]
        encoded = self._device.keep(pairs)
        language = None
        if self._tokenizer.multilingual:
            probabilities, _ = self._decoder.detect_language(encoded)
            language = max(probabilities, key=lambda code: probabilities[code])
        options = DecodingOptions(language=language)
        found = self._decoder.decode(encoded, options, np.random.default_rng(0))
        return found.tokens, language or "en"


def units(text: str, language: str) -> list[str]:
    """Words without case and punctuation; characters in languages without spaces."""
    words = re.findall(r"\w+", text.casefold())
    return [letter for word in words for letter in word] if language in UNSPACED else words


def differing(one: list[str], other: list[str]) -> int:
    """Words to exchange, to add or to remove before the two are equal."""
    changes = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for change, a, b, c, d in changes if change != "equal")
