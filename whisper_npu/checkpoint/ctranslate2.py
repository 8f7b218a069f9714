"""CTranslate2's folders, which faster-whisper reads: model.bin and config.json, with
tokenizer.json, vocabulary.json or vocabulary.txt.

model.bin, little-endian: version, name and revision of the specification, the variables, then
second names for some of them. Weights of float32, float16 and bfloat16, or integers with a scale:
one for each row (int8) or one for all (int16). Source: CTranslate2, `model_spec.py` (writer) and
`models/model.cc` (reader).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.checkpoint import layout
from whisper_npu.checkpoint.contents import (
    Contents,
    Dimensions,
    Facts,
    Tensor,
    Vocabulary,
    heads,
    ids,
    read_json,
)
from whisper_npu.checkpoint.mapped import Mapped, first_bytes
from whisper_npu.checkpoint.vocabulary import END, bytes_of, from_file, tokenizer_json
from whisper_npu.errors import ModelError
from whisper_npu.held import HeldFile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

WEIGHTS = "model.bin"
VERSIONS = range(2, 7)  # of the file; older ones have no second names
_KINDS = ("<f4", "<i1", "<i2", "<i4", "<f2", "<u2")  # the last is bfloat16
_BFLOAT16 = 5

# a part of a layer in Hugging Face's names -> the variable that holds it, which of how many rows
_PARTS = {
    "self_attn.q_proj": ("self_attention/linear_0", 0, 3),
    "self_attn.k_proj": ("self_attention/linear_0", 1, 3),
    "self_attn.v_proj": ("self_attention/linear_0", 2, 3),
    "self_attn.out_proj": ("self_attention/linear_1", 0, 1),
    "self_attn_layer_norm": ("self_attention/layer_norm", 0, 1),
    "encoder_attn.q_proj": ("attention/linear_0", 0, 1),
    "encoder_attn.k_proj": ("attention/linear_1", 0, 2),
    "encoder_attn.v_proj": ("attention/linear_1", 1, 2),
    "encoder_attn.out_proj": ("attention/linear_2", 0, 1),
    "encoder_attn_layer_norm": ("attention/layer_norm", 0, 1),
    "fc1": ("ffn/linear_0", 0, 1),
    "fc2": ("ffn/linear_1", 0, 1),
    "final_layer_norm": ("ffn/layer_norm", 0, 1),
}


@dataclass(frozen=True)
class _Variable:
    shape: tuple[int, ...]
    kind: int  # index into _KINDS
    start: int  # byte in the file


def is_weights(path: Path) -> bool:
    """Whether a file begins as CTranslate2's models do."""
    start = first_bytes(path, 6)
    return len(start) == 6 and int.from_bytes(start[:4], "little") in VERSIONS and start[5] == 0


def read(folder: Path) -> Contents:
    """What a folder holds. Raises ModelError naming the part that is missing or damaged."""
    config = folder / "config.json"
    settings = read_json(config)
    path = folder / WEIGHTS
    stored = _Stored(path)
    dims = stored.dimensions()
    facts = Facts(
        source=config.name,
        alignment_heads=heads(settings.get("alignment_heads"), config),
        ids=ids(*map(settings.get, ("lang_ids", "suppress_ids", "suppress_ids_begin"))),
    )
    return Contents(
        format="ctranslate2",
        dims=dims,
        tensors=stored.tensors(dims),
        vocabulary=_vocabulary(folder),
        facts=facts,
        weights=(stored.file,),
        config=HeldFile(config),
        settings=tuple(sorted([*folder.glob("*.json"), *folder.glob("vocabulary.txt")])),
    )


class _Stored:
    """The variables of model.bin."""

    def __init__(self, path: Path) -> None:
        self._file = file = Mapped(path)
        self.file = file.file
        (version,) = file.numbers("I", "its version")
        if version not in VERSIONS:
            raise ModelError(f"{path} is CTranslate2's version {version}; known are 2 to 6")
        specification, _ = self._text("the name of its kind"), file.numbers("I", "its revision")
        if specification != "WhisperSpec":
            raise ModelError(f"{path} holds a {specification!r}, not Whisper")
        (n_variables,) = file.numbers("I", "the number of its variables")
        self._variables: dict[str, _Variable] = {}
        for _ in range(n_variables):
            name, variable = self._variable()
            self._variables[name] = variable
        if version >= 3:
            (n_names,) = file.numbers("I", "the number of second names")
            for _ in range(n_names):
                name, target = self._text("a second name"), self._text("a second name")
                if target not in self._variables:
                    raise ModelError(f"{path} is damaged: {name} stands for {target}, not in it")
                self._variables[name] = self._variables[target]
        self._used: set[str] = {"decoder/projection/weight"}  # the embedding once more

    def _text(self, what: str) -> str:
        (length,) = self._file.numbers("H", what)
        return self._file.text(length, what).rstrip(b"\0").decode("utf-8", "replace")

    def _variable(self) -> tuple[str, _Variable]:
        file = self._file
        name = self._text("the name of a variable")
        (rank,) = file.numbers("B", name)
        shape = file.numbers(f"{rank}I", name)
        kind, n_bytes = file.numbers("BI", name)
        if kind >= len(_KINDS):
            raise ModelError(f"{file.path}: {name} is of type {kind}, which is not known here")
        if math.prod(shape) * np.dtype(_KINDS[kind]).itemsize != n_bytes:
            raise ModelError(f"{file.path} is damaged: {name} of {shape} has {n_bytes} bytes")
        return name, _Variable(shape, kind, file.skip(n_bytes, name))

    def _find(self, name: str, rank: int) -> _Variable:
        if name not in self._variables:
            raise ModelError(f"{self._file.path}: the weights have no variable {name}")
        variable = self._variables[name]
        if len(variable.shape) != rank or not all(variable.shape):
            raise ModelError(f"{self._file.path}: {name} has shape {variable.shape}")
        return variable

    def dimensions(self) -> Dimensions:
        """Sizes, from the shapes of the variables."""
        width, n_mels, _ = self._find("encoder/conv1/weight", 3).shape
        n_audio_ctx, _ = self._find("encoder/position_encodings/encodings", 2).shape
        n_vocab, text_width = self._find("decoder/embeddings/weight", 2).shape
        n_text_ctx, _ = self._find("decoder/position_encodings/encodings", 2).shape
        values = {
            "n_mels": n_mels,
            "n_audio_ctx": n_audio_ctx,
            "n_audio_state": width,
            "n_audio_head": self._n_heads("encoder", width),
            "n_audio_layer": self._n_layers("encoder"),
            "n_vocab": n_vocab,
            "n_text_ctx": n_text_ctx,
            "n_text_state": text_width,
            "n_text_head": self._n_heads("decoder", width),
            "n_text_layer": self._n_layers("decoder"),
        }
        return Dimensions.checked(values, self._file.path, {})

    def _n_layers(self, side: str) -> int:
        found = (re.match(rf"{side}/layer_(\d{{1,4}})/", name) for name in self._variables)
        return max((int(match[1]) + 1 for match in found if match), default=0)

    def _n_heads(self, side: str, width: int) -> int:
        """As it is stored; files of older converters do not say, and all have heads of 64."""
        name = f"{side}/num_heads"
        return int(self._values(self._find(name, 0))) if name in self._variables else width // 64

    def _values(self, variable: _Variable) -> NDArray[Any]:
        return self._file.array(variable.start, _KINDS[variable.kind], variable.shape)

    def tensors(self, dims: Dimensions) -> dict[str, Tensor]:
        """Every tensor under Hugging Face's name; variables of no layer under their own."""
        found = {name: self._tensor(name, shape) for name, shape in layout.shapes(dims).items()}
        for name, variable in self._variables.items():
            if name not in self._used and variable.shape:
                found[name] = Tensor(variable.shape, partial(self._values, variable))
        return found

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        stored, part, of = _stored_as(name)
        variable = self._find(stored, len(shape))
        scale_name = f"{stored}_scale"
        self._used |= {stored, scale_name}
        scale = self._variables.get(scale_name)
        rows, rest = divmod(variable.shape[0], of)
        if rest:
            raise ModelError(f"{self._file.path}: {stored} has shape {variable.shape}")
        if scale and math.prod(scale.shape) not in (1, variable.shape[0]):
            raise ModelError(f"{self._file.path}: {scale_name} has shape {scale.shape}")
        return Tensor(
            (rows, *variable.shape[1:]),
            partial(self._read, stored, variable, scale, part * rows, rows),
        )

    def _read(
        self, name: str, variable: _Variable, scale: _Variable | None, first: int, n_rows: int
    ) -> NDArray[Any]:
        """Rows of a variable as floats."""
        values = self._values(variable)[first : first + n_rows]
        if variable.kind == _BFLOAT16:  # the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        if values.dtype.kind == "f":
            return values
        if scale is None or _KINDS[scale.kind] != "<f4":
            raise ModelError(f"{self._file.path}: {name} has integers and no scale for them")
        scales = self._values(scale).reshape(-1)
        scales = scales[first : first + n_rows] if len(scales) > 1 else scales
        if not np.all(np.isfinite(scales) & (scales != 0)):
            raise ModelError(f"{self._file.path} is damaged: {name}_scale is zero or not a number")
        return values.astype(np.float32) / scales.reshape(-1, *(1,) * (values.ndim - 1))


def _stored_as(name: str) -> tuple[str, int, int]:
    """Where a tensor of Hugging Face's is: the variable, and which part of how many of its rows."""
    side, rest = name.removeprefix("model.").split(".", 1)
    owner, kind = rest.rsplit(".", 1)
    if owner == "embed_positions":
        return f"{side}/position_encodings/encodings", 0, 1
    if owner == "embed_tokens":
        return f"{side}/embeddings/weight", 0, 1
    part, of = 0, 1
    if owner.startswith("layers."):
        _, number, inner = owner.split(".", 2)
        inner, part, of = _PARTS[inner]
        owner = f"layer_{number}/{inner}"
    if owner.endswith("layer_norm"):
        kind = {"weight": "gamma", "bias": "beta"}[kind]
    return f"{side}/{owner}/{kind}", part, of


def _vocabulary(folder: Path) -> Vocabulary:
    path = folder / "tokenizer.json"
    if path.is_file():
        file = HeldFile(path)
        return Vocabulary(file, partial(from_file, file))
    for name in ("vocabulary.json", "vocabulary.txt"):
        if (folder / name).is_file():
            file = HeldFile(folder / name)
            return Vocabulary(file, partial(_from_list, file))
    raise ModelError(f"{path} is missing: not a complete Whisper model folder")


def _from_list(file: HeldFile) -> str:
    """The tokens in the order of their ids, as JSON or a line each."""
    path, text = file.path, file.text()
    tokens = json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ModelError(f"{path} is damaged: expected a list of tokens")
    if END not in tokens:
        raise ModelError(f"{path} has no token {END}: not a Whisper vocabulary")
    end = tokens.index(END)
    return tokenizer_json([bytes_of(token) for token in tokens[:end]], tokens[end:])
