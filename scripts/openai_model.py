"""One of our model folders as an openai/whisper model: the oracle of the golden tests.

Needs `openai-whisper` and torch; a tool for development, never imported by the program.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from whisper.model import ModelDimensions, Whisper

from whisper_npu.checkpoint import Checkpoint

if TYPE_CHECKING:
    from pathlib import Path

# Hugging Face's name for a part -> openai's; applied in this order
_RENAMES = [
    (r"^model\.", ""),
    (r"encoder\.embed_positions\.weight", "encoder.positional_embedding"),
    (r"decoder\.embed_positions\.weight", "decoder.positional_embedding"),
    (r"embed_tokens", "token_embedding"),
    (r"layers\.", "blocks."),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"encoder\.layer_norm", "encoder.ln_post"),
    (r"decoder\.layer_norm", "decoder.ln"),
    (r"encoder_attn", "cross_attn"),
    (r"self_attn", "attn"),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
]


def openai_model(folder: Path) -> Whisper:
    """Load a model folder into openai/whisper, in float32, with our alignment heads."""
    checkpoint = Checkpoint(folder)
    dims = checkpoint.dims
    model = Whisper(ModelDimensions(**vars(dims)))
    state = {}
    for name in checkpoint.names:
        if name == "proj_out.weight":
            continue  # tied to the embedding
        theirs = name
        for pattern, replacement in _RENAMES:
            theirs = re.sub(pattern, replacement, theirs)
        state[theirs] = torch.from_numpy(checkpoint.read(name).astype("float32"))
    model.load_state_dict(state)
    heads = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    for layer, head in checkpoint.alignment_heads:
        heads[layer, head] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model.eval()
