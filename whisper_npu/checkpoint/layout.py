"""The tensors of a Whisper: name -> shape. The names are Hugging Face's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisper_npu.checkpoint.contents import Dimensions

    Shapes = dict[str, tuple[int, ...]]

TIED = "proj_out.weight"  # the output projection: the embedding once more, stored by some


def shapes(dims: Dimensions) -> Shapes:
    """Every tensor of a model of these sizes.

    Some also store a bias of the keys, which is all zeros: `is_optional`.
    """
    width = dims.n_audio_state
    encoder, decoder = "model.encoder", "model.decoder"
    found: Shapes = {
        f"{encoder}.conv1.weight": (width, dims.n_mels, 3),
        f"{encoder}.conv1.bias": (width,),
        f"{encoder}.conv2.weight": (width, width, 3),
        f"{encoder}.conv2.bias": (width,),
        f"{encoder}.embed_positions.weight": (dims.n_audio_ctx, width),
        f"{decoder}.embed_tokens.weight": (dims.n_vocab, width),
        f"{decoder}.embed_positions.weight": (dims.n_text_ctx, width),
        **_norm(f"{encoder}.layer_norm", width),
        **_norm(f"{decoder}.layer_norm", width),
    }
    for i in range(dims.n_audio_layer):
        found |= _layer(f"{encoder}.layers.{i}", width)
    for i in range(dims.n_text_layer):
        name = f"{decoder}.layers.{i}"
        found |= _layer(name, width) | _attention(f"{name}.encoder_attn", width)
    return found


def is_optional(name: str) -> bool:
    """Whether a model may lack or have a tensor of this name."""
    return name.endswith("k_proj.bias")


def _layer(name: str, width: int) -> Shapes:
    return {
        **_attention(f"{name}.self_attn", width),
        **_linear(f"{name}.fc1", 4 * width, width),
        **_linear(f"{name}.fc2", width, 4 * width),
        **_norm(f"{name}.final_layer_norm", width),
    }


def _attention(name: str, width: int) -> Shapes:
    found = _norm(f"{name}_layer_norm", width)
    for part in ("q", "k", "v", "out"):
        found |= _linear(f"{name}.{part}_proj", width, width)
    return found


def _linear(name: str, n_out: int, n_in: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
