#!/usr/bin/env python3
"""Golden values of the encoder and the decoder, from openai/whisper on random weights.

scripts/make_model_goldens.py        writes tests/data/model_<name>.npz
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from openai_model import openai_model
from random_checkpoint import SIZES, write

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA = Path(__file__).parent.parent / "tests" / "data"
CASES = {
    "tiny": SIZES["tiny"],
    "tiny.en": replace(SIZES["tiny"], n_vocab=51864),
    "small": SIZES["small"],
    "v3": replace(SIZES["micro"], n_mels=128, n_vocab=51866, n_text_layer=1),  # distilled shape
}


def inputs(n_mels: int, n_vocab: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A noisy mel (n_mels, 3000) and 54 arbitrary tokens (1, 54)."""
    rng = np.random.default_rng(1)
    mel = rng.standard_normal((n_mels, 3000), np.float32).clip(-1, 1.5)
    return mel, rng.integers(0, n_vocab, (1, 54))


def golden(folder: Path) -> dict[str, Any]:
    """Encoder rows, and the decoder's logits and cross-attention for the tokens of `inputs`."""
    model = openai_model(folder)
    mel, tokens = inputs(model.dims.n_mels, model.dims.n_vocab)
    greedy = [int(t) for t in tokens[0, :4]]
    with torch.no_grad():
        features = model.encoder(torch.from_numpy(mel)[None])
        logits = model.decoder(torch.from_numpy(tokens), features)[0]
        for _ in range(50):
            greedy.append(int(model.decoder(torch.tensor([greedy]), features)[0, -1].argmax()))
    return {
        "features": features[0, ::75].numpy(),  # (20, D)
        "logits": logits[3:, ::997].numpy(),  # (51, V / 997)
        "scale": np.float32(logits.abs().max()),
        "top": logits[3:].argmax(-1).numpy(),  # (51,)
        "greedy": np.array(greedy),
    }


def main() -> None:
    """Command line."""
    DATA.mkdir(exist_ok=True)
    for name, dims in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            values = golden(write(Path(folder), dims))
        np.savez_compressed(DATA / f"model_{name}.npz", **values)


if __name__ == "__main__":
    main()
