"""Search and filters on a vocabulary of four."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedDevice, Vocabulary, saying

from whisper_npu.decoding import (
    BeamSearch,
    Candidate,
    Decoder,
    Sampling,
    Search,
    TimestampRules,
    compression_ratio,
    sample,
    suppress,
    suppress_at_start,
)
from whisper_npu.options.decoding import DecodingOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

EOT, LENGTH = 3, 4


@cache
def scores(prefix: tuple[int, ...], seed: int) -> Float:
    """Log-probabilities of the four tokens after a prefix."""
    rng = np.random.default_rng([seed, *prefix, len(prefix)])
    logits = 2 * rng.standard_normal(4)
    return cast("Float", (logits - np.log(np.exp(logits).sum())).astype(np.float32))


def run(search: Search, seed: int) -> list[Candidate]:
    for _ in range(LENGTH):
        logits = np.stack([scores(tuple(row), seed) for row in search.rows])
        if not search.extend(logits):
            break
    return search.candidates()


def everything(seed: int) -> list[Candidate]:
    """All hypotheses of up to four tokens, ended or cut off."""
    found = []
    for n in range(LENGTH + 1):
        for tokens in product(range(3), repeat=n):
            total = sum(float(scores(tokens[:i], seed)[tokens[i]]) for i in range(n))
            if n < LENGTH:
                total += float(scores(tokens, seed)[EOT])
            found.append(Candidate(tokens, total))
    return found


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([None, 0.0, 0.6, 1.0]))
@settings(max_examples=30, deadline=None)
def test_a_beam_wide_enough_finds_the_best_of_all(seed: int, alpha: float | None) -> None:
    found = run(BeamSearch(EOT, 3**LENGTH + 40, 1.0), seed)
    best = max(everything(seed), key=lambda c: c.score(alpha))
    ours = max(found, key=lambda c: c.score(alpha))
    assert ours.tokens == best.tokens
    assert ours.logprob == pytest.approx(best.logprob, abs=1e-4)


def narrow_beam(seed: int, size: int, enough: int) -> dict[tuple[int, ...], float]:
    """Beam search as the paper has it, on dictionaries."""
    live: dict[tuple[int, ...], float] = {(): 0.0}
    ended: dict[tuple[int, ...], float] = {}
    for _ in range(LENGTH):
        longer = {
            (*row, token): total + float(scores(row, seed)[token])
            for row, total in live.items()
            for token in np.argsort(-scores(row, seed))[: size + 1].tolist()
        }
        live = {}
        ending: dict[tuple[int, ...], float] = {}
        for row in sorted(longer, key=lambda row: longer[row], reverse=True):
            if len(live) == size:
                break
            (ending if row[-1] == EOT else live)[row] = longer[row]
        for row, total in ending.items():
            if len(ended) < enough:
                ended[row[:-1]] = total
        if len(ended) >= enough:
            break
    for row, total in live.items():
        if len(ended) < size:
            ended[row] = total
    return ended


@given(
    seed=st.integers(0, 10**6), size=st.integers(1, 3), patience=st.sampled_from([0.5, 1.0, 2.0])
)
@settings(max_examples=60, deadline=None)
def test_narrow_beams(seed: int, size: int, patience: float) -> None:
    enough = max(1, round(size * patience))
    found = run(BeamSearch(EOT, size, enough / size), seed)
    expected = narrow_beam(seed, size, enough)
    assert {c.tokens for c in found} == set(expected)
    for candidate in found:
        assert candidate.logprob == pytest.approx(expected[candidate.tokens], abs=1e-4)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_greedy_is_a_beam_of_one(seed: int) -> None:
    greedy = run(Sampling(EOT, 0.0, 1, np.random.default_rng()), seed)
    beam = run(BeamSearch(EOT, 1, 1.0), seed)
    if len(greedy[0].tokens) == LENGTH or greedy[0].tokens == beam[0].tokens:
        assert greedy[0].logprob <= beam[0].logprob + 1e-4 or greedy == beam


def test_sampling_follows_the_distribution() -> None:
    """The logits at temperature 0.5, for 20 000 draws: each within 5 standard deviations."""
    logits = np.array([[0.0, 1.0, -1.0, -np.inf]] * 20_000, np.float32) / np.float32(0.5)
    drawn = sample(logits, np.random.default_rng(5).random(20_000))
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    observed = np.bincount(drawn, minlength=4) / 20_000
    assert observed[3] == 0
    deviation = np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(observed - expected) <= 5 * deviation).all()


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1, 0)])
def test_sampling_never_draws_what_is_banned(uniform: float) -> None:
    logits = np.array([[-np.inf, 0.0, -np.inf]], np.float32)
    assert sample(logits, np.array([uniform])).tolist() == [1]


@given(seed=st.integers(0, 10**6), n=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_first_samples_do_not_depend_on_how_many_follow_them(seed: int, n: int) -> None:
    """Rows leave when they end, and the others draw on as if they had not."""
    found = run(Sampling(EOT, 1.0, n, np.random.default_rng(seed)), seed)
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = [[] for _ in range(n)]
    for _ in range(LENGTH):
        uniform = rng.random(n)
        for row, u in zip(rows, uniform, strict=True):
            if EOT not in row:
                row.append(int(sample(scores(tuple(row), seed)[None], np.array([u]))[0]))
        if all(EOT in row for row in rows):
            break
    assert [c.tokens for c in found] == [tuple(t for t in row if t != EOT) for row in rows]


# the session follows the search


VOCABULARY = Vocabulary()


def decoder(logits: Callable[[tuple[int, ...]], Float]) -> Decoder:
    return Decoder(ScriptedDevice(lambda _: logits), cast("Any", VOCABULARY), 448)


def erratic(row: tuple[int, ...]) -> Float:
    """Letters, the end and timestamps, differently after each prefix."""
    rng = np.random.default_rng(row)
    return rng.standard_normal(VOCABULARY.n_vocab).astype(np.float32) * 3


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(beam_size=4, sample_len=12, without_timestamps=True),
        DecodingOptions(beam_size=3, patience=2.0, sample_len=12),
        DecodingOptions(temperature=0.8, best_of=4, sample_len=12),
        DecodingOptions(sample_len=12),
    ],
)
def test_rows_of_the_session_are_those_of_the_search(options: DecodingOptions) -> None:
    """The log-probability found is that of the same tokens fed alone."""
    found = decoder(erratic).decode(0, options, np.random.default_rng(1))
    before = (VOCABULARY.sot, VOCABULARY.no_timestamps)[: 1 + options.without_timestamps]
    filters = decoder(erratic)._filters(options)
    total = 0.0
    for i, token in enumerate((*found.tokens, VOCABULARY.eot)[: options.sample_len]):
        logits = erratic((*before, *found.tokens[:i]))[None].astype(np.float32)
        for apply in filters:
            apply(logits, [found.tokens[:i]])
        total += float(logits[0, token] - np.log(np.exp(logits[0]).sum()))
    assert found.avg_logprob * (len(found.tokens) + 1) == pytest.approx(total, abs=1e-3)


def test_the_context_is_never_overrun() -> None:
    """The longest prompt and text without end: 448 positions, not one more."""
    prompt = tuple(range(4)) * 100
    longest = 0

    def endless(row: tuple[int, ...]) -> Float:
        nonlocal longest
        longest = max(longest, len(row))
        return saying(VOCABULARY, *([1] * 500))(row)

    options = DecodingOptions(prompt=prompt, prefix=prompt, without_timestamps=True)
    decoder(endless).decode(0, options, np.random.default_rng())
    assert 440 < longest <= 448


def test_prompt_comes_before_sot_and_keeps_its_end() -> None:
    rows: list[tuple[int, ...]] = []

    def logits(row: tuple[int, ...]) -> Float:
        rows.append(row)
        return saying(VOCABULARY)(row)

    prompt = tuple(i % 4 for i in range(300))
    options = DecodingOptions(prompt=prompt, prefix=(1, 2), without_timestamps=True)
    decoder(logits).decode(0, options, np.random.default_rng())
    v = VOCABULARY
    assert (v.sot_prev, *prompt[-223:], v.sot, v.no_timestamps, 1, 2) in rows


def test_a_prefix_as_long_as_the_room_is_cut_to_nothing() -> None:
    """openai/whisper keeps all of it: prefix[-0:]."""
    rows: list[tuple[int, ...]] = []

    def logits(row: tuple[int, ...]) -> Float:
        rows.append(row)
        return saying(VOCABULARY)(row)

    options = DecodingOptions(prefix=(1, 2, 3), sample_len=224)
    decoder(logits).decode(0, options, np.random.default_rng())
    assert rows[0] == (VOCABULARY.sot,)
    assert all(1 not in row for row in rows)


def test_no_speech_is_heard_at_sot() -> None:
    logits = saying(VOCABULARY, VOCABULARY.at(0), 1, VOCABULARY.at(1), no_speech=0.75)
    for options in (
        DecodingOptions(),
        DecodingOptions(prompt=(1, 2)),
        DecodingOptions(beam_size=2),
    ):
        found = decoder(logits).decode(0, options, np.random.default_rng())
        assert found.no_speech_prob == pytest.approx(0.75, abs=1e-3)


def test_an_empty_result_has_a_score() -> None:
    """openai/whisper divides by zero."""
    options = DecodingOptions(suppress_blank=False, without_timestamps=True)
    found = decoder(saying(VOCABULARY)).decode(0, options, np.random.default_rng())
    assert found.tokens == ()
    assert found.avg_logprob == pytest.approx(0, abs=1e-3)
    assert found.compression_ratio == 0


# filters


def allowed(rows: Sequence[Sequence[int]], *, max_initial: float | None = 1.0) -> list[set[int]]:
    """What the timestamp rules leave, where nothing is likelier than the rest."""
    logits = np.zeros((len(rows), VOCABULARY.n_vocab), np.float32)
    logits[:, : VOCABULARY.timestamp_begin] = 100  # text is likelier than all timestamps
    TimestampRules(cast("Any", VOCABULARY), max_initial)(logits, rows)
    return [set(np.flatnonzero(np.isfinite(row)).tolist()) for row in logits]


def times(start: float, end: float = 30.0) -> set[int]:
    return set(range(VOCABULARY.at(start), VOCABULARY.at(end) + 1))


TEXT = set(range(VOCABULARY.timestamp_begin)) - {VOCABULARY.no_timestamps}


def test_timestamp_rules() -> None:
    at, eot = VOCABULARY.at, VOCABULARY.eot
    assert allowed([[]]) == [times(0, 1)]
    assert allowed([[]], max_initial=None) == [times(0)]
    assert allowed([[]], max_initial=0) == [times(0)]
    assert allowed([[at(0.5)]]) == [TEXT]
    assert allowed([[at(0.5), 1]]) == [TEXT | times(0.52)]
    after_end = allowed([[at(0.5), 1, at(2)]])[0]
    assert after_end == {t for t in TEXT if t >= eot} | times(2)
    assert allowed([[at(0.5), 1, at(2), at(3)]]) == [TEXT]
    assert allowed([[at(0.5), 1, at(2), at(3), 2]]) == [TEXT | times(3.02)]


def test_each_row_has_its_own_rules() -> None:
    rows = [[VOCABULARY.at(0), 1], [VOCABULARY.at(0), VOCABULARY.at(1)]]
    assert allowed(rows) == [allowed([row])[0] for row in rows]


def test_timestamps_win_together() -> None:
    logits = np.full((2, VOCABULARY.n_vocab), -9, np.float32)
    logits[:, 1] = [-2, -1]  # log(1500 e^-9) is about -1.7
    rows = [[VOCABULARY.at(0), 2]] * 2
    TimestampRules(cast("Any", VOCABULARY), None)(logits, rows)
    assert np.isfinite(logits[:, 1]).tolist() == [False, True]


def test_suppression() -> None:
    logits = np.zeros((2, 4), np.float32)
    suppress_at_start([0])(logits, [[1], [2]])
    assert np.isfinite(logits).all()
    suppress_at_start([0])(logits, [[], []])
    suppress([2, 3])(logits, [[], []])
    assert np.isfinite(logits).tolist() == [[False, True, False, False]] * 2


def test_compression_ratio() -> None:
    assert compression_ratio("") == 0
    assert compression_ratio("one two " * 50) > 2.4 > compression_ratio("one two three four five")
