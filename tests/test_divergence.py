"""Where two devices part, on steps written by hand and on a scripted change of mind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.comparison.divergence import DecoderStep, first_divergence, likeliest, token_text
from whisper_npu.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@pytest.fixture(scope="module")
def tokenizer(random_model: Callable[[str], Path]) -> Tokenizer:
    return Tokenizer(Checkpoint(random_model("micro")))


def steps(*sessions: Sequence[int], sot: Sequence[int] = (50258,)) -> list[DecoderStep]:
    """Each session reads its prompt, then a token at a time."""
    return [
        DecoderStep(30.0 * number, number, tuple(read), ((read[0], 0.75), (11, 0.25)))
        for number, tokens in enumerate(sessions)
        for read in [sot, *([token] for token in tokens)]
    ]


def test_the_first_different_token(tokenizer: Tokenizer) -> None:
    hello, world, moon = (tokenizer.encode(text)[0] for text in (" hello", " world", " moon"))
    one, other = steps([hello, hello], [hello, world]), steps([hello, hello], [hello, moon, moon])
    found = first_divergence(one, other, tokenizer)
    assert found is not None
    assert (found.seconds, found.position) == (30.0, 2)
    assert found.said == "<|startoftranscript|> hello"
    assert found.chosen == (" world", " moon")
    assert [choice.probability for choice in found.choices[0]] == [0.75, 0.25]
    assert found.choices[0][0].text == " hello"
    assert first_divergence(one, one, tokenizer) is None
    assert first_divergence([], one, tokenizer) is None


@pytest.mark.parametrize("more", [[], [[5]]])
def test_one_device_stops_earlier(tokenizer: Tokenizer, more: list[list[int]]) -> None:
    a = tokenizer.encode(" a")[0]
    found = first_divergence(steps([a], *more), steps([a, a], *more), tokenizer)
    assert found is not None
    assert found.chosen == ("<|endoftext|>", " a")
    assert found.position == 2


def test_windows_that_one_has_alone_are_not_blamed_on_a_token(tokenizer: Tokenizer) -> None:
    assert first_divergence(steps([7]), steps([7], [8]), tokenizer) is None


def test_likeliest() -> None:
    logits = np.zeros(100, np.float32)
    logits[[3, 50]] = np.log([70, 30])
    best = likeliest(logits)
    assert len(best) == 5
    assert [token for token, _ in best[:2]] == [3, 50]
    assert [p for _, p in best[:2]] == pytest.approx([70 / 198, 30 / 198])
    assert likeliest(np.full(100, np.nan, np.float32)) == ()


def test_tokens_for_people(tokenizer: Tokenizer) -> None:
    assert token_text(tokenizer, tokenizer.timestamp_begin + 51) == "<|1.02|>"
    assert token_text(tokenizer, tokenizer.eot) == "<|endoftext|>"
    assert token_text(tokenizer, tokenizer.encode(" so")[0]) == " so"
