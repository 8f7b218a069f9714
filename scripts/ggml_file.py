"""One of our model folders as a file of whisper.cpp, quantised where it is wanted.

A tool for development, never imported by the program.
"""

from __future__ import annotations

import json
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.checkpoint.ggml import openai_name
from whisper_npu.checkpoint.vocabulary import END, bytes_of
from whisper_npu.features import mel_filters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]


def openai_tensors(checkpoint: Checkpoint) -> dict[str, Array]:
    """Every tensor, float32, under the name that openai/whisper has for it."""
    tensors = {}
    for name in checkpoint.names:
        if name == "proj_out.weight":
            continue  # tied to the embedding
        tensors[openai_name(name)] = checkpoint.read(name).astype(np.float32)
    return tensors


def write_ggml(folder: Path, path: Path, kind: str) -> None:
    """A model of whisper.cpp, as its converter and its quantiser have it.

    kind  f32, f16, q8_0, q5_0, q5_1, q4_0 or q4_1
    """
    checkpoint = Checkpoint(folder)
    dims = checkpoint.dims
    file_type = {"f32": 0, "f16": 1}.get(kind) or _QUANTISERS.get(kind, (0,))[0]
    filters = np.asarray(mel_filters(dims.n_mels), np.float32)
    with path.open("wb") as file:
        sizes = vars(dims).values()  # in the order of our dataclass
        n_mels, *audio = list(sizes)[:5]
        n_vocab, *text = list(sizes)[5:]
        file.write(struct.pack("<12i", 0x67676D6C, n_vocab, *audio, *text, n_mels, file_type))
        file.write(struct.pack("<2i", *filters.shape))
        filters.tofile(file)
        words = _words(folder)
        file.write(struct.pack("<i", len(words)))
        for word in words:
            file.write(struct.pack("<i", len(word)) + word)
        for name, tensor in openai_tensors(checkpoint).items():
            _write_tensor(file, name, tensor, kind)


def _write_tensor(file: BinaryIO, name: str, tensor: Array, kind: str) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]
    exact = tensor.ndim == 1 or name.endswith(".bias") or "positional" in name or kind == "f32"
    number, data = 1, tensor.astype(np.float16).tobytes()
    if exact:
        number, data = 0, tensor.tobytes()
    elif kind in _QUANTISERS and tensor.ndim == 2:
        _, number, quantise = _QUANTISERS[kind]
        data = quantise(tensor.reshape(-1, 32))
    encoded = name.encode()
    file.write(struct.pack("<3i", tensor.ndim, len(encoded), number))
    file.write(struct.pack(f"<{tensor.ndim}i", *tensor.shape[::-1]) + encoded + data)


def _q8_0(blocks: Array) -> bytes:
    """Blocks of 32: a scale, and signed bytes."""
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    record = np.zeros(len(blocks), [("scale", "<f2"), ("values", "i1", 32)])
    record["scale"] = scale[:, 0]
    record["values"] = np.rint(blocks / _divisible(scale))
    return record.tobytes()


def _around_zero(blocks: Array, bits: int) -> bytes:
    """Blocks of 32: a scale by which the largest becomes the least value that there is."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    half = 1 << (bits - 1)
    scale = -largest / half
    values = np.clip(np.rint(blocks / _divisible(scale)) + half, 0, 2 * half - 1)
    return _packed({"scale": scale}, values.astype(np.uint8), bits)


def _above_least(blocks: Array, bits: int) -> bytes:
    """Blocks of 32: a scale, and a least value."""
    least = blocks.min(1, keepdims=True)
    scale = (blocks.max(1, keepdims=True) - least) / ((1 << bits) - 1)
    values = np.rint((blocks - least) / _divisible(scale)).astype(np.uint8)
    return _packed({"scale": scale, "least": least}, values, bits)


def _divisible(scale: Array) -> Array:
    return np.where(scale != 0, scale, 1)


def _packed(floats: dict[str, Array], values: Array, bits: int) -> bytes:
    """The floats of each block, the fifth bits where there are some, two values to a byte."""
    fifth = [("high", "u1", 4)] if bits == 5 else []
    fields = [*((name, "<f2") for name in floats), *fifth, ("low", "u1", 16)]
    record = np.zeros(len(values), fields)
    for name, value in floats.items():
        record[name] = value[:, 0]
    if fifth:
        record["high"] = np.packbits(values >> 4, axis=1, bitorder="little")
    record["low"] = values[:, :16] & 15 | (values[:, 16:] & 15) << 4
    return record.tobytes()


# kind -> number of the file's type, of a tensor's type, and what makes blocks of floats
_QUANTISERS: dict[str, tuple[int, int, Callable[[Array], bytes]]] = {
    "q4_0": (2002, 2, partial(_around_zero, bits=4)),
    "q4_1": (2003, 3, partial(_above_least, bits=4)),
    "q5_0": (2008, 6, partial(_around_zero, bits=5)),
    "q5_1": (2009, 7, partial(_above_least, bits=5)),
    "q8_0": (2007, 8, _q8_0),
}


def _words(folder: Path) -> list[bytes]:
    """What each token of text stands for, by id."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    eot = next(token["id"] for token in content["added_tokens"] if token["content"] == END)
    names = {token: name for name, token in content["model"]["vocab"].items() if token < eot}
    return [bytes_of(names[token]) for token in range(eot)]
