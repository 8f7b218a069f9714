"""A Hugging Face folder -> the same model in the formats of other programs, by our own writers.

Written from the formats' definitions, the other way round than the readers: from tensors of
OpenAI's names to what CTranslate2's converter stores. ggml files are written by `ggml_file`.
"""

from __future__ import annotations

import json
import shutil
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from ggml_file import openai_tensors, write_ggml
from safetensors.numpy import save_file

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.checkpoint.huggingface import CONFIG_KEYS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

GGML = ("f32", "f16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1")
CTRANSLATE2 = ("float32", "float16", "bfloat16", "int8", "int8_float16", "int16")


def write(folder: Path, out: Path, kind: str) -> Path:
    """A ggml file or a CTranslate2 folder, by the name of its kind of weights."""
    if kind in GGML:
        path = out / f"ggml-{kind}.bin"
        write_ggml(folder, path, kind)
        return path
    return write_ctranslate2(folder, out / kind, kind)


def write_huggingface(model: Path, out: Path) -> Path:
    """A Hugging Face folder of a model in another format, with the vocabulary as it is."""
    out.mkdir(parents=True)
    checkpoint = Checkpoint(model)
    named = {name: x for name in checkpoint.names if (x := checkpoint.read(name)).any()}
    save_file(
        {name: np.ascontiguousarray(x) for name, x in named.items()}, out / "model.safetensors"
    )
    config = {theirs: getattr(checkpoint.dims, ours) for ours, theirs in CONFIG_KEYS.items()}
    (out / "config.json").write_text(json.dumps(config))
    (out / "tokenizer.json").write_text(checkpoint.vocabulary.read(), "utf-8")
    return out


def write_ctranslate2(folder: Path, out: Path, kind: str) -> Path:
    """A folder as CTranslate2's converter writes it."""
    out.mkdir(parents=True)
    checkpoint = Checkpoint(folder)
    with (out / "model.bin").open("wb") as file:
        variables = _variables(openai_tensors(checkpoint))
        stored = [entry for name, x in variables.items() for entry in _stored(name, x, kind)]
        heads = np.int16(checkpoint.dims.n_text_head)
        stored += [("encoder/num_heads", 2, heads), ("decoder/num_heads", 2, heads)]
        file.write(struct.pack("<I", 6) + _text("WhisperSpec") + struct.pack("<2I", 3, len(stored)))
        for variable, number, x in stored:
            shape = struct.pack(f"<B{x.ndim}I", x.ndim, *x.shape)
            file.write(_text(variable) + shape + struct.pack("<BI", number, x.nbytes) + x.tobytes())
        alias = _text("decoder/projection/weight") + _text("decoder/embeddings/weight")
        file.write(struct.pack("<I", 1) + alias)
    tokens = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    config = {
        "alignment_heads": checkpoint.alignment_heads,
        "lang_ids": [token["id"] for token in tokens if token["content"] == "<|en|>"],
        "suppress_ids": [1, 2],
        "suppress_ids_begin": [220],
    }
    (out / "config.json").write_text(json.dumps(config))
    shutil.copy(folder / "tokenizer.json", out)
    return out


def _text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def _variables(tensors: dict[str, Array]) -> dict[str, Array]:
    """Variables of CTranslate2's names, in float32."""
    found: dict[str, Array] = {}

    def linear(to: str, *names: str) -> None:
        weights = [tensors[f"{name}.weight"] for name in names]
        biases = [
            tensors.get(f"{name}.bias", np.zeros(len(weight), np.float32))
            for name, weight in zip(names, weights, strict=True)
        ]
        found[f"{to}/weight"], found[f"{to}/bias"] = np.concatenate(weights), np.concatenate(biases)

    def norm(to: str, name: str) -> None:
        found[f"{to}/gamma"], found[f"{to}/beta"] = (
            tensors[f"{name}.weight"],
            tensors[f"{name}.bias"],
        )

    for side, last in (("encoder", "ln_post"), ("decoder", "ln")):
        found[f"{side}/position_encodings/encodings"] = tensors[f"{side}.positional_embedding"]
        norm(f"{side}/layer_norm", f"{side}.{last}")
        blocks = {name.split(".")[2] for name in tensors if name.startswith(f"{side}.blocks")}
        for i in sorted(blocks):
            to, name = f"{side}/layer_{i}", f"{side}.blocks.{i}"
            norm(f"{to}/self_attention/layer_norm", f"{name}.attn_ln")
            own = [f"{name}.attn.{part}" for part in ("query", "key", "value")]
            linear(f"{to}/self_attention/linear_0", *own)
            linear(f"{to}/self_attention/linear_1", f"{name}.attn.out")
            if side == "decoder":
                norm(f"{to}/attention/layer_norm", f"{name}.cross_attn_ln")
                linear(f"{to}/attention/linear_0", f"{name}.cross_attn.query")
                both = [f"{name}.cross_attn.{part}" for part in ("key", "value")]
                linear(f"{to}/attention/linear_1", *both)
                linear(f"{to}/attention/linear_2", f"{name}.cross_attn.out")
            norm(f"{to}/ffn/layer_norm", f"{name}.mlp_ln")
            linear(f"{to}/ffn/linear_0", f"{name}.mlp.0")
            linear(f"{to}/ffn/linear_1", f"{name}.mlp.2")
    for number in (1, 2):
        linear(f"encoder/conv{number}", f"encoder.conv{number}")
    found["decoder/embeddings/weight"] = tensors["decoder.token_embedding.weight"]
    return found


def _stored(name: str, x: Array, kind: str) -> list[tuple[str, int, Array]]:
    """A variable as it is written: name, number of its type, values; integers with their scale."""
    is_matrix = name.endswith("/weight") and x.ndim == 2
    if kind.startswith("int") and is_matrix:
        if kind == "int16":
            scale = np.float32(1023 / np.abs(x).max())
            return [(name, 2, np.rint(x * scale).astype("<i2")), (f"{name}_scale", 0, scale)]
        scale = 127 / np.abs(x).max(axis=1)
        values = np.rint(x * scale[:, None]).astype("i1")
        return [(name, 1, values), (f"{name}_scale", 0, scale.astype("<f4"))]
    if kind == "bfloat16":
        return [(name, 5, (np.ascontiguousarray(x, "<f4").view("<u4") >> 16).astype("<u2"))]
    if kind.endswith("float16"):
        return [(name, 4, x.astype("<f2"))]
    return [(name, 0, x.astype("<f4"))]
