"""Whether the parts of a model belong together, as far as is seen without reading weights.

A folder put together from two models opens in most programs, and transcribes nonsense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper_npu.checkpoint import alignment, layout
from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.checkpoint.contents import Contents, Heads

PUBLISHED_WIDTHS = (384, 512, 768, 1024, 1280)
HEAD_WIDTH = 64  # of every published model
IS_MULTILINGUAL = {51864: False, 51865: True, 51866: True}  # by the number of tokens


def check(contents: Contents, path: Path) -> None:
    """Raises ModelError naming the parts of a model at `path` that do not belong together."""
    _check_heads(contents, path)
    _check_tensors(contents, path)
    _check_facts(contents, path)


def alignment_heads(contents: Contents) -> Heads:
    """The heads that follow time: as stated, else as known, else all of the upper half."""
    dims = contents.dims
    stated = contents.facts.alignment_heads
    if stated and not _is_of_teacher(stated, contents):
        return stated
    layers = range(dims.n_text_layer // 2, dims.n_text_layer)
    upper_half = tuple((layer, head) for layer in layers for head in range(dims.n_text_head))
    return alignment.published(dims) or upper_half


def is_multilingual(contents: Contents) -> bool:
    """Whether prompts name a language and a task."""
    stated = contents.facts.is_multilingual
    return contents.dims.n_vocab >= 51865 if stated is None else stated


def _is_of_teacher(heads: Heads, contents: Contents) -> bool:
    """Distilled models often keep what their teacher had: heads of layers they no longer have."""
    dims = contents.dims
    deepest = max(layer for layer, _ in heads)
    return dims.n_text_layer <= deepest < dims.n_audio_layer


def _check_heads(contents: Contents, path: Path) -> None:
    dims = contents.dims
    if dims.n_audio_state not in PUBLISHED_WIDTHS:
        return
    expected = dims.n_audio_state // HEAD_WIDTH
    for side, n_heads in (("encoder", dims.n_audio_head), ("decoder", dims.n_text_head)):
        if n_heads != expected:
            raise ModelError(
                f"{path}: the {side} is said to have {n_heads} attention heads; every Whisper of "
                f"width {dims.n_audio_state} has {expected}"
            )


def _check_tensors(contents: Contents, path: Path) -> None:
    dims, tensors = contents.dims, contents.tensors
    expected = layout.shapes(dims)
    for name, shape in expected.items():
        if name not in tensors:
            if layout.is_optional(name):
                continue
            raise ModelError(f"{path}: the weights have no tensor {name}")
        if tensors[name].shape != shape:
            raise ModelError(
                f"{path}: tensor {name} has shape {tensors[name].shape}, "
                f"and the sizes of the model say {shape}"
            )
    unused = sorted(tensors.keys() - expected.keys() - {layout.TIED})
    if unused:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        raise ModelError(
            f"{path}: the weights have tensors that no layer uses, {unused[0]}{more}; the model is "
            f"said to have {dims.n_audio_layer} encoder and {dims.n_text_layer} decoder layers"
        )


def _check_facts(contents: Contents, path: Path) -> None:
    dims, facts = contents.dims, contents.facts
    where = path / facts.source
    stray = [token for token in (*facts.ids, *facts.tokens.values()) if token >= dims.n_vocab]
    if stray:
        raise ModelError(
            f"{where} names token {max(stray)}, and the model has {dims.n_vocab}: "
            "it belongs to another model"
        )
    expected = IS_MULTILINGUAL.get(dims.n_vocab)
    if None not in (expected, facts.is_multilingual) and expected != facts.is_multilingual:
        kind = "multilingual" if facts.is_multilingual else "English-only"
        raise ModelError(
            f"{where} says that the model is {kind}; one with {dims.n_vocab} tokens is not: "
            "it belongs to another model"
        )
    heads = facts.alignment_heads or ()
    if not heads or _is_of_teacher(heads, contents):
        return
    if not all(0 <= i < dims.n_text_layer and 0 <= h < dims.n_text_head for i, h in heads):
        raise ModelError(
            f"{where}: alignment_heads out of range for {dims.n_text_layer} layers of "
            f"{dims.n_text_head} heads: it belongs to another model"
        )
    owner = alignment.foreign(heads, dims)
    if owner:
        raise ModelError(f"{where}: the alignment_heads are those of {owner}, another model")
