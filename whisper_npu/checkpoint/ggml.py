"""whisper.cpp's model files: one .bin with sizes, mel filters, vocabulary and tensors.

Little-endian. Tensors of float32 or float16, and matrices in blocks of 32 values with a scale of
their own. Sources: whisper.cpp, `models/convert-pt-to-ggml.py` (writer) and `src/whisper.cpp`
(reader); ggml, `ggml-common.h` (blocks).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.checkpoint import layout
from whisper_npu.checkpoint.contents import Contents, Dimensions, Facts, Tensor, Vocabulary
from whisper_npu.checkpoint.mapped import Mapped, first_bytes
from whisper_npu.checkpoint.vocabulary import (
    END,
    N_TIMESTAMPS,
    TASKS,
    special_tokens,
    tokenizer_json,
)
from whisper_npu.errors import ModelError
from whisper_npu.languages import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Blocks = NDArray[Any]
    Float = NDArray[np.float32]

MAGIC = 0x67676D6C.to_bytes(4, "little")
BLOCK = 32  # values that share a scale
_QUANTISATION = 2  # version of the blocks below; older ones are laid out in other ways
_SIZES = (
    "n_vocab n_audio_ctx n_audio_state n_audio_head n_audio_layer "
    "n_text_ctx n_text_state n_text_head n_text_layer n_mels"
).split()
_LONGEST_WORD = 1024  # bytes

# Hugging Face's name of a part -> OpenAI's, which is stored; replaced in this order
_RENAMES = (
    ("model.", ""),
    ("embed_positions.weight", "positional_embedding"),
    ("embed_tokens", "token_embedding"),
    ("layers.", "blocks."),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("self_attn_layer_norm", "attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
    ("encoder_attn", "cross_attn"),
    ("self_attn", "attn"),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
)


def openai_name(name: str) -> str:
    """What OpenAI's own checkpoints call a tensor."""
    for ours, theirs in _RENAMES:
        name = name.replace(ours, theirs)
    return name


def is_model(path: Path) -> bool:
    """Whether a file begins as whisper.cpp's models do."""
    return first_bytes(path, 4) == MAGIC


def read(path: Path) -> Contents:
    """What a file holds. Raises ModelError naming what is damaged or not known."""
    file = Mapped(path)
    file.skip(len(MAGIC), "its first bytes")
    *sizes, file_type = file.numbers(f"{len(_SIZES) + 1}i", "its sizes")
    dims = Dimensions.checked(dict(zip(_SIZES, sizes, strict=True)), path, {})
    quantisation, kind = divmod(file_type, 1000)
    if kind > 1 and quantisation != _QUANTISATION:
        raise ModelError(
            f"{path} was quantised by an old whisper.cpp (version {quantisation}): "
            "quantise it again with a current one"
        )
    n_mels, n_frequencies = file.numbers("2i", "its mel filters")
    if n_mels != dims.n_mels or n_frequencies < 0:
        raise ModelError(f"{path} is damaged: {n_mels} mel filters for {dims.n_mels} mels")
    file.skip(4 * n_mels * n_frequencies, "its mel filters")
    words = _words(file, dims)
    ours = {openai_name(name): name for name in layout.shapes(dims)}
    tensors: dict[str, Tensor] = {}
    while not file.ended:
        name, tensor = _tensor(file)
        name = ours.get(name, name)
        if name in tensors:
            raise ModelError(f"{path} is damaged: tensor {name} is there twice")
        tensors[name] = tensor
    return Contents(
        format="ggml",
        dims=dims,
        tensors=tensors,
        vocabulary=Vocabulary(file.file, partial(_tokenizer, path, words, dims.n_vocab)),
        facts=Facts(),
        weights=(file.file,),
    )


def _words(file: Mapped, dims: Dimensions) -> list[bytes]:
    """The tokens of text; some converters write special tokens, too."""
    (n_words,) = file.numbers("i", "its vocabulary")
    if not 0 < n_words <= dims.n_vocab:
        raise ModelError(f"{file.path} is damaged: {n_words} words for {dims.n_vocab} tokens")
    words = []
    for _ in range(n_words):
        (length,) = file.numbers("i", "its vocabulary")
        if not 0 <= length <= _LONGEST_WORD:
            raise ModelError(f"{file.path} is damaged: a word of {length} bytes in its vocabulary")
        words.append(file.text(length, "its vocabulary"))
    end = END.encode()
    return words[: words.index(end)] if end in words else words


def _tokenizer(path: Path, words: list[bytes], n_vocab: int) -> str:
    n_languages = n_vocab - len(words) - 2 - len(TASKS) - N_TIMESTAMPS
    if not 0 < n_languages <= len(LANGUAGES):
        raise ModelError(f"{path}: {len(words)} words do not fit into {n_vocab} tokens")
    return tokenizer_json(words, special_tokens(n_languages))


def _tensor(file: Mapped) -> tuple[str, Tensor]:
    rank, length, kind = file.numbers("3i", "the head of a tensor")
    if not (0 < rank <= 3 and 0 < length <= 256):
        raise ModelError(f"{file.path} is damaged: where a tensor should begin there is none")
    shape = file.numbers(f"{rank}i", "the shape of a tensor")[::-1]
    name = file.text(length, "the name of a tensor").decode("utf-8", "replace")
    if not all(size > 0 for size in shape):
        raise ModelError(f"{file.path} is damaged: {name} has shape {shape}")
    if shape[-1] == 1 and rank == 2:  # biases of the convolutions, for broadcasting
        shape = shape[:1]
    n_values, dtype, _ = _KINDS.get(kind, (0, None, None))
    if not n_values or shape[-1] % n_values:
        raise ModelError(f"{file.path}: tensor {name} is of type {kind}, which is not known here")
    start = file.skip(math.prod(shape) // n_values * np.dtype(dtype).itemsize, name)
    return name, Tensor(shape, partial(_read, file, start, kind, shape))


def _read(file: Mapped, start: int, kind: int, shape: tuple[int, ...]) -> NDArray[Any]:
    n_values, dtype, floats = _KINDS[kind]
    blocks = file.array(start, dtype, (math.prod(shape) // n_values,))
    return floats(blocks).reshape(shape)


def _as_stored(values: NDArray[Any]) -> NDArray[Any]:
    return values


def _nibbles(blocks: Blocks) -> NDArray[np.uint8]:
    """(B, 32) uint8: the first half of a block in the lower four bits, the second in the upper."""
    packed = blocks["values"]
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(blocks: Blocks) -> NDArray[np.uint8]:
    """(B, 32) uint8: 0 or 16."""
    bits: NDArray[np.uint8] = np.unpackbits(blocks["high"], axis=1, bitorder="little")
    return bits * np.uint8(16)


def _scaled(blocks: Blocks, values: NDArray[Any]) -> Float:
    return values.astype(np.float32) * blocks["scale"].astype(np.float32)[:, None]


def _shifted(blocks: Blocks, values: NDArray[Any]) -> Float:
    return _scaled(blocks, values) + blocks["least"].astype(np.float32)[:, None]


def _q4_0(blocks: Blocks) -> Float:
    return _scaled(blocks, _nibbles(blocks).view(np.int8) - np.int8(8))


def _q4_1(blocks: Blocks) -> Float:
    return _shifted(blocks, _nibbles(blocks))


def _q5_0(blocks: Blocks) -> Float:
    return _scaled(blocks, (_nibbles(blocks) | _fifth_bits(blocks)).view(np.int8) - np.int8(16))


def _q5_1(blocks: Blocks) -> Float:
    return _shifted(blocks, _nibbles(blocks) | _fifth_bits(blocks))


def _q8_0(blocks: Blocks) -> Float:
    return _scaled(blocks, blocks["values"])


_SCALE, _LEAST, _HIGH = ("scale", "<f2"), ("least", "<f2"), ("high", "u1", 4)
_HALVES, _WHOLE = ("values", "u1", BLOCK // 2), ("values", "i1", BLOCK)
# type of a tensor -> values in a block, the block, and what makes floats of blocks
_KINDS: dict[int, tuple[int, Any, Callable[[Blocks], NDArray[Any]]]] = {
    0: (1, "<f4", _as_stored),
    1: (1, "<f2", _as_stored),
    2: (BLOCK, [_SCALE, _HALVES], _q4_0),
    3: (BLOCK, [_SCALE, _LEAST, _HALVES], _q4_1),
    6: (BLOCK, [_SCALE, _HIGH, _HALVES], _q5_0),
    7: (BLOCK, [_SCALE, _LEAST, _HIGH, _HALVES], _q5_1),
    8: (BLOCK, [_SCALE, _WHOLE], _q8_0),
}
