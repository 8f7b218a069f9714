"""One of our model folders in the formats of other programs, for `bench_peers.py`.

A tool for development, never imported by the program.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.checkpoint.ggml import openai_name
from whisper_npu.features import mel_filters

if TYPE_CHECKING:
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


def write_openai(folder: Path, path: Path) -> None:
    """A checkpoint of openai/whisper, in float32."""
    import torch

    checkpoint = Checkpoint(folder)
    state = {name: torch.from_numpy(x) for name, x in openai_tensors(checkpoint).items()}
    torch.save({"dims": vars(checkpoint.dims), "model_state_dict": state}, path)


def write_ctranslate2(folder: Path, out: Path) -> None:
    """A folder of faster-whisper, int8, as its converter would quantise it."""
    from ctranslate2.specs import WhisperSpec

    checkpoint = Checkpoint(folder)
    dims, tensors = checkpoint.dims, openai_tensors(checkpoint)
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)

    def linear(to: Any, *names: str) -> None:
        weights = [tensors[f"{name}.weight"] for name in names]
        biases = [
            tensors.get(f"{name}.bias", np.zeros(len(weight), np.float32))
            for name, weight in zip(names, weights, strict=True)
        ]
        to.weight, to.bias = np.concatenate(weights), np.concatenate(biases)

    def norm(to: Any, name: str) -> None:
        to.gamma, to.beta = tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    def layer(to: Any, name: str, *, cross: bool) -> None:
        own = [f"{name}.attn.{part}" for part in ("query", "key", "value")]
        norm(to.self_attention.layer_norm, f"{name}.attn_ln")
        linear(to.self_attention.linear[0], *own)
        linear(to.self_attention.linear[1], f"{name}.attn.out")
        if cross:
            norm(to.attention.layer_norm, f"{name}.cross_attn_ln")
            linear(to.attention.linear[0], f"{name}.cross_attn.query")
            linear(to.attention.linear[1], f"{name}.cross_attn.key", f"{name}.cross_attn.value")
            linear(to.attention.linear[2], f"{name}.cross_attn.out")
        norm(to.ffn.layer_norm, f"{name}.mlp_ln")
        linear(to.ffn.linear_0, f"{name}.mlp.0")
        linear(to.ffn.linear_1, f"{name}.mlp.2")

    encoder, decoder = spec.encoder, spec.decoder
    linear(encoder.conv1, "encoder.conv1")
    linear(encoder.conv2, "encoder.conv2")
    for side, part, cross in ((encoder, "encoder", False), (decoder, "decoder", True)):
        side.position_encodings.encodings = tensors[f"{part}.positional_embedding"]
        for i, to in enumerate(side.layer):
            layer(to, f"{part}.blocks.{i}", cross=cross)
    norm(encoder.layer_norm, "encoder.ln_post")
    norm(decoder.layer_norm, "decoder.ln")
    decoder.embeddings.weight = tensors["decoder.token_embedding.weight"]
    decoder.projection.weight = decoder.embeddings.weight
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    names = dict(tokens["model"]["vocab"]) | {t["content"]: t["id"] for t in tokens["added_tokens"]}
    spec.register_vocabulary(sorted(names, key=names.__getitem__))
    spec.config.lang_ids = [names["<|en|>"]]
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], [names["<|endoftext|>"]]
    spec.config.alignment_heads = [[0, 0]]
    spec.validate()
    spec.optimize(quantization="int8")
    out.mkdir(parents=True, exist_ok=True)
    spec.save(str(out))
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copy(folder / name, out / name)


def write_ggml(folder: Path, path: Path, kind: str) -> None:
    """A model of whisper.cpp: f16, q8_0 or q5_1, as its converter and its quantiser have it."""
    checkpoint = Checkpoint(folder)
    dims = checkpoint.dims
    file_type = {"f16": 1, "q8_0": 2007, "q5_1": 2009}[kind]
    filters = np.asarray(mel_filters(dims.n_mels), np.float32)
    with path.open("wb") as file:
        sizes = vars(dims).values()  # in the order of our dataclass
        n_mels, *audio = list(sizes)[:5]
        n_vocab, *text = list(sizes)[5:]
        file.write(struct.pack("<12i", 0x67676D6C, n_vocab, *audio, *text, n_mels, file_type))
        file.write(struct.pack("<2i", *filters.shape))
        filters.tofile(file)
        words = _ranked_words(dims.n_vocab)
        file.write(struct.pack("<i", len(words)))
        for word in words:
            file.write(struct.pack("<i", len(word)) + word)
        for name, tensor in openai_tensors(checkpoint).items():
            _write_tensor(file, name, tensor, kind)


def _write_tensor(file: BinaryIO, name: str, tensor: Array, kind: str) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]
    exact = tensor.ndim == 1 or name.endswith(".bias") or "positional" in name
    number, data = 1, tensor.astype(np.float16).tobytes()
    if exact:
        number, data = 0, tensor.tobytes()
    elif kind != "f16" and tensor.ndim == 2:
        number, data = _QUANTISERS[kind](tensor.reshape(-1, 32))
    encoded = name.encode()
    file.write(struct.pack("<3i", tensor.ndim, len(encoded), number))
    file.write(struct.pack(f"<{tensor.ndim}i", *tensor.shape[::-1]) + encoded + data)


def _q8_0(blocks: Array) -> tuple[int, bytes]:
    """Blocks of 32: a scale, and signed bytes."""
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    record = np.zeros(len(blocks), [("scale", "<f2"), ("values", "i1", 32)])
    record["scale"] = scale[:, 0]
    record["values"] = np.rint(blocks / np.where(scale > 0, scale, 1))
    return 8, record.tobytes()


def _q5_1(blocks: Array) -> tuple[int, bytes]:
    """Blocks of 32: a scale, a least value, the fifth bits, and two values to a byte."""
    least = blocks.min(1, keepdims=True)
    scale = (blocks.max(1, keepdims=True) - least) / 31
    values = np.rint((blocks - least) / np.where(scale > 0, scale, 1)).astype(np.uint8)
    record = np.zeros(
        len(blocks), [("scale", "<f2"), ("least", "<f2"), ("high", "u1", 4), ("low", "u1", 16)]
    )
    record["scale"], record["least"] = scale[:, 0], least[:, 0]
    record["high"] = np.packbits(values >> 4, axis=1, bitorder="little")
    record["low"] = values[:, :16] & 15 | (values[:, 16:] & 15) << 4
    return 7, record.tobytes()


_QUANTISERS = {"q8_0": _q8_0, "q5_1": _q5_1}


def _ranked_words(n_vocab: int) -> list[bytes]:
    """The byte strings of the vocabulary without special tokens."""
    spec = importlib.util.find_spec("whisper")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install openai-whisper: its vocabularies are needed")
    name = "gpt2" if n_vocab == 51864 else "multilingual"
    path = Path(spec.submodule_search_locations[0]) / "assets" / f"{name}.tiktoken"
    return [base64.b64decode(line.split()[0]) for line in path.read_bytes().splitlines() if line]


def main() -> None:
    """peer_formats.py FOLDER OUT: the name of OUT says which format."""
    folder, out = map(Path, sys.argv[1:])
    if out.suffix == ".pt":
        write_openai(folder, out)
    elif out.suffix == ".bin":
        write_ggml(folder, out, out.stem)
    else:
        write_ctranslate2(folder, out)


if __name__ == "__main__":
    main()
