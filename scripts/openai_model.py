"""One of our model folders as an openai/whisper model: the oracle of the golden tests.

Needs `openai-whisper` and torch; a tool for development, never imported by the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from ggml_file import openai_tensors
from whisper.model import ModelDimensions, Whisper

from whisper_npu.checkpoint import Checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def openai_model(folder: Path) -> Whisper:
    """Load a model folder into openai/whisper, in float32, with our alignment heads."""
    checkpoint = Checkpoint(folder)
    dims = checkpoint.dims
    model = Whisper(ModelDimensions(**vars(dims)))
    state = {name: torch.from_numpy(x) for name, x in openai_tensors(checkpoint).items()}
    model.load_state_dict(state)
    heads = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    for layer, head in checkpoint.alignment_heads:
        heads[layer, head] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model.eval()
