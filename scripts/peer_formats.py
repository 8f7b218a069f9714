"""One of our model folders in the formats of other programs, for `bench_peers.py`.

A tool for development, never imported by the program.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ggml_file import openai_tensors, write_ggml

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.languages import LANGUAGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


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
    listed = sorted(names, key=names.__getitem__)
    timestamps = [f"<|{i * 0.02:.2f}|>" for i in range(dims.n_vocab - len(listed))]
    spec.register_vocabulary(listed + timestamps)  # older files do not name them
    spec.config.lang_ids = [names[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in names]
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], [names["<|endoftext|>"]]
    spec.config.alignment_heads = [
        [0, 0]
    ]  # faster-whisper needs some, and uses them for words only
    spec.validate()
    spec.optimize(quantization="int8")
    out.mkdir(parents=True, exist_ok=True)
    spec.save(str(out))
    for name in ("tokenizer.json", "preprocessor_config.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, out / name)


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
