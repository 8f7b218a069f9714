"""The reference encoder and decoder against openai/whisper (golden values, random weights)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.model import Whisper, cross_keys_values, encode
from whisper_npu.reference import NumpyOps, NumpySession

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DATA = Path(__file__).parent / "data"


def inputs(n_mels: int, n_vocab: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As in scripts/make_model_goldens.py."""
    rng = np.random.default_rng(1)
    mel = rng.standard_normal((n_mels, 3000), np.float32).clip(-1, 1.5)
    return mel, rng.integers(0, n_vocab, (1, 54))


@pytest.mark.parametrize("name", ["tiny", "tiny.en", "small", "v3"])
def test_equal_to_openai_whisper(name: str, random_model: Callable[[str], Path]) -> None:
    golden = np.load(DATA / f"model_{name}.npz")
    model = Whisper(Checkpoint(random_model(name)))
    mel, tokens = inputs(model.dims.n_mels, model.dims.n_vocab)
    features = encode(model, NumpyOps(), mel.T)
    error = np.abs(features[::75] - golden["features"]).max() / np.abs(golden["features"]).max()
    assert error < 1e-4

    cross = cross_keys_values(model, NumpyOps(), features)
    session = NumpySession(model, cross)
    logits = [session.step(tokens[:, :4])]
    logits += [session.step(tokens[:, i : i + 1]) for i in range(4, 54)]
    ours = np.concatenate(logits)  # (51, V)
    assert np.abs(ours[:, ::997] - golden["logits"]).max() / golden["scale"] < 1e-4
    assert ours.argmax(-1).tolist() == golden["top"].tolist()


def test_greedy_tokens_equal_openai_whisper(random_model: Callable[[str], Path]) -> None:
    golden = np.load(DATA / "model_tiny.npz")
    model = Whisper(Checkpoint(random_model("tiny")))
    mel, tokens = inputs(model.dims.n_mels, model.dims.n_vocab)
    session = NumpySession(
        model, cross_keys_values(model, NumpyOps(), encode(model, NumpyOps(), mel.T))
    )
    greedy = tokens[0, :4].tolist()
    logits = session.step(np.array([greedy]))
    for _ in range(50):
        greedy.append(int(logits.argmax()))
        logits = session.step(np.array([greedy[-1:]]))
    assert greedy == golden["greedy"].tolist()


@pytest.fixture(scope="module")
def micro(random_model: Callable[[str], Path]) -> tuple[Whisper, list[tuple[np.ndarray, ...]]]:
    """A small model and one encoded window."""
    model = Whisper(Checkpoint(random_model("micro")))
    mel, _ = inputs(model.dims.n_mels, model.dims.n_vocab)
    features = encode(model, NumpyOps(), mel.T)
    return model, cross_keys_values(model, NumpyOps(), features)  # type: ignore[return-value]


def test_steps_may_be_cut_anywhere(micro: tuple[Whisper, list]) -> None:  # type: ignore[type-arg]
    model, cross = micro
    tokens = np.random.default_rng(2).integers(0, 51865, (1, 12))
    whole = NumpySession(model, cross, align=True)
    expected = whole.step(tokens, every_position=True)
    parts = NumpySession(model, cross, align=True)
    pieces = [parts.step(piece, every_position=True) for piece in np.split(tokens, [5, 6], axis=1)]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=1e-5)
    np.testing.assert_allclose(parts.attention(), whole.attention(), atol=1e-5)
    assert whole.attention().shape == (2, 12, 1500)  # the upper half of 2 layers x 2 heads


def test_rows_are_independent_and_follow_reorder(micro: tuple[Whisper, list]) -> None:  # type: ignore[type-arg]
    model, cross = micro
    session = NumpySession(model, cross)
    session.step(np.array([[7, 8]]))
    session.reorder([0, 0, 0])
    session.step(np.array([[1], [2], [3]]))
    session.reorder([2, 0])
    both = session.step(np.array([[4], [5]]))
    for row, tokens in zip(both, ([7, 8, 3, 4], [7, 8, 1, 5]), strict=True):
        alone = NumpySession(model, cross).step(np.array([tokens]))
        np.testing.assert_allclose(row, alone[0], atol=1e-5)
