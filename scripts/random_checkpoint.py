#!/usr/bin/env python3
"""A Hugging Face Whisper folder with random weights, of any published size.

Equality with another implementation does not need trained weights, only the true shapes and
vocabularies. The vocabularies are read from the `openai-whisper` package (`pip install --no-deps
openai-whisper` is enough).

    scripts/random_checkpoint.py tiny out/tiny
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from whisper_npu.checkpoint import Dimensions
from whisper_npu.checkpoint.huggingface import CONFIG_KEYS
from whisper_npu.checkpoint.vocabulary import special_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _size(width: int, heads: int, layers: int, text_layers: int | None = None) -> Dimensions:
    return Dimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=width,
        n_audio_head=heads,
        n_audio_layer=layers,
        n_vocab=51865,
        n_text_ctx=448,
        n_text_state=width,
        n_text_head=heads,
        n_text_layer=text_layers or layers,
    )


SIZES = {
    "micro": _size(64, 2, 2),  # not published: for quick tests
    "tiny": _size(384, 6, 4),
    "base": _size(512, 8, 6),
    "small": _size(768, 12, 12),
    "medium": _size(1024, 16, 24),
    "large-v2": _size(1280, 20, 32),
    "large-v3": replace(_size(1280, 20, 32), n_mels=128, n_vocab=51866),
    "large-v3-turbo": replace(_size(1280, 20, 32, 4), n_mels=128, n_vocab=51866),
}


def sinusoids(length: int, width: int) -> NDArray[np.float32]:
    """(length, width) float32: the encoder's fixed positions."""
    scales = np.exp(-np.log(10000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(length)[:, None] * scales[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def random_tensors(dims: Dimensions, seed: int) -> dict[str, NDArray[np.float32]]:  # noqa: C901  one function a layer
    """Every tensor of a checkpoint, scaled so that activations stay of order one."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}

    def normal(name: str, *shape: int, scale: float) -> None:
        tensors[name] = (rng.standard_normal(shape, np.float32) * scale).astype(np.float32)

    def linear(name: str, n_out: int, n_in: int, *, bias: bool = True) -> None:
        normal(f"{name}.weight", n_out, n_in, scale=n_in**-0.5)
        if bias:
            normal(f"{name}.bias", n_out, scale=0.02)

    def norm(name: str, width: int) -> None:
        tensors[f"{name}.weight"] = (1 + 0.1 * rng.standard_normal(width)).astype(np.float32)
        normal(f"{name}.bias", width, scale=0.02)

    def attention(name: str, width: int) -> None:
        for part in "qkv":
            linear(f"{name}.{part}_proj", width, width, bias=part != "k")
        linear(f"{name}.out_proj", width, width)
        norm(f"{name}_layer_norm", width)

    def layer(name: str, width: int, *, cross: bool) -> None:
        attention(f"{name}.self_attn", width)
        if cross:
            attention(f"{name}.encoder_attn", width)
        linear(f"{name}.fc1", 4 * width, width)
        linear(f"{name}.fc2", width, 4 * width)
        norm(f"{name}.final_layer_norm", width)

    width = dims.n_audio_state
    for i, n_in in enumerate((dims.n_mels, width), start=1):
        normal(f"model.encoder.conv{i}.weight", width, n_in, 3, scale=(3 * n_in) ** -0.5)
        normal(f"model.encoder.conv{i}.bias", width, scale=0.02)
    tensors["model.encoder.embed_positions.weight"] = sinusoids(dims.n_audio_ctx, width)
    for i in range(dims.n_audio_layer):
        layer(f"model.encoder.layers.{i}", width, cross=False)
    norm("model.encoder.layer_norm", width)
    normal("model.decoder.embed_tokens.weight", dims.n_vocab, width, scale=width**-0.5)
    normal("model.decoder.embed_positions.weight", dims.n_text_ctx, width, scale=0.02)
    for i in range(dims.n_text_layer):
        layer(f"model.decoder.layers.{i}", width, cross=True)
    norm("model.decoder.layer_norm", width)
    return tensors


@lru_cache(maxsize=2)
def _byte_pairs(name: str) -> tuple[dict[bytes, int], list[tuple[bytes, bytes]]]:
    """Token -> rank, and the merge that makes each token of two or more bytes."""
    spec = importlib.util.find_spec("whisper")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps openai-whisper: its vocabularies are needed")
    path = Path(spec.submodule_search_locations[0]) / "assets" / f"{name}.tiktoken"
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:  # merge the lowest-ranked pair until two parts remain
            pairs = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
            i = pairs.index(min(pairs))
            if pairs[i] >= rank:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return ranks, merges


def _printable() -> dict[int, str]:
    """GPT-2's names for bytes: printable ones stand for themselves."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in names)
    return names | {byte: chr(256 + i) for i, byte in enumerate(others)}


def published_tokenizer(n_vocab: int) -> Tokenizer:
    """The vocabulary of 51864 (English), 51865 or 51866 tokens."""
    ranks, merges = _byte_pairs("gpt2" if n_vocab == 51864 else "multilingual")
    names = _printable()

    def text(token: bytes) -> str:
        return "".join(names[byte] for byte in token)

    vocabulary = {text(token): rank for token, rank in ranks.items()}
    bpe = models.BPE(vocabulary, [(text(a), text(b)) for a, b in merges])
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = special_tokens(100 if n_vocab == 51866 else 99)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    return tokenizer


def write(folder: Path, dims: Dimensions, *, seed: int = 0, half: bool = False) -> Path:
    """Write a complete model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {CONFIG_KEYS[k]: v for k, v in asdict(dims).items()}
    config |= {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_ffn_dim": 4 * dims.n_text_state,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    generation = {"is_multilingual": dims.n_vocab >= 51865}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1))
    preprocessor = {"feature_size": dims.n_mels, "hop_length": 160, "n_fft": 400}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1))
    tensors = random_tensors(dims, seed)
    if half:
        tensors = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    published_tokenizer(dims.n_vocab).save(str(folder / "tokenizer.json"))
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--english", action="store_true", help="the vocabulary of the .en models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", action="store_true", help="float16 weights")
    options = parser.parse_args()
    dims = SIZES[options.size]
    if options.english:
        dims = replace(dims, n_vocab=51864)
    write(options.folder, dims, seed=options.seed, half=options.half)


if __name__ == "__main__":
    main()
