"""The smallest complete model folder, and ways to spoil one. Also run by scripts/fuzz_models.py."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import foreign_models
import numpy as np
import tokenizers
from safetensors.numpy import save_file

from whisper_npu.checkpoint import Checkpoint, Dimensions
from whisper_npu.checkpoint.huggingface import CONFIG_KEYS
from whisper_npu.checkpoint.layout import shapes
from whisper_npu.checkpoint.vocabulary import special_tokens
from whisper_npu.tokenizer import Tokenizer

if TYPE_CHECKING:
    import random
    from pathlib import Path

WIDTH = 32  # the narrowest that whisper.cpp quantises
SIZES = dict.fromkeys([field.name for field in fields(Dimensions)], 4) | {
    "n_audio_state": WIDTH,
    "n_text_state": WIDTH,
    "n_audio_layer": 1,
    "n_text_layer": 2,
}
HEADER = 400  # bytes of a binary file that say more than others
EXTREMES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 1e308, float("nan"), 0.5),
    *("", "x" * 3000, "\ud800", "../../x", [], {}, [[]], [[0, 0]], [["a", 2]], {"a": {"b": []}}),
]


def write(folder: Path) -> Path:
    """A folder that opens."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    letters = {letter: i for i, letter in enumerate(alphabet)}
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(letters, []))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.add_special_tokens(special_tokens(99))
    bpe.save(str(folder / "tokenizer.json"))
    dims = Dimensions(**SIZES | {"n_vocab": bpe.get_vocab_size()})
    config = {theirs: getattr(dims, ours) for ours, theirs in CONFIG_KEYS.items()}
    (folder / "config.json").write_text(json.dumps(config))
    generation = {"is_multilingual": True, "alignment_heads": [[1, 2], [1, 0]]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes(dims).items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_all(place: Path) -> list[Path]:
    """The same model as a Hugging Face folder, CTranslate2 folders and files of whisper.cpp."""
    original = write(place / "huggingface")
    kinds = ("float16", "int8", "f16", "q8_0", "q5_1")
    return [original, *(foreign_models.write(original, place, kind) for kind in kinds)]


def open_everything(path: Path) -> None:
    """Read all that is ever read of a model. Raises ModelError."""
    checkpoint = Checkpoint(path)
    _ = checkpoint.alignment_heads
    for name, shape in shapes(checkpoint.dims).items():
        checkpoint.tensor(name, shape)
    tokenizer = Tokenizer(checkpoint)
    for language in tokenizer.language_tokens:
        tokenizer.sot_sequence(language, "transcribe")
    tokenizer.encode(" some text <|en|> \u00e9")
    tokenizer.decode(range(tokenizer.eot))
    tokenizer.suppressed((-1,))
    _ = tokenizer.blank


def spoil(content: bytes, name: str, rng: random.Random) -> bytes:
    """One input: the content of a file with one to eight changes."""
    kind = rng.randrange(3)
    if kind and name.endswith(".bin"):
        return spoil_header(content, rng)
    if kind == 0 or not name.endswith((".json", ".safetensors")):
        return spoil_bytes(content, rng)
    if name.endswith(".json"):
        return spoil_json(content, rng) if kind == 1 else spoil_bytes(spoil_json(content, rng), rng)
    length = int.from_bytes(content[:8], "little")
    if kind == 1:
        header = spoil_json(content[8 : 8 + length], rng)
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    lie = rng.choice([0, 1, length - 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1])
    return (lie % 2**64).to_bytes(8, "little") + content[8:]


def spoil_bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.choice([1, 8, 1000])]
            case 2:
                data[at:at] = rng.choice([b'"', b"{", b"[" * 5000, b"\0", b"\xff", b"1e999", b","])
            case 3:
                data[at:at] = data[max(0, at - rng.randrange(200)) : at]
            case _ if rng.random() < 0.3:
                del data[at:]
    return bytes(data)


def spoil_header(content: bytes, rng: random.Random) -> bytes:
    """Numbers at the beginning of a binary file, or somewhere in it, become others; or it ends."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(HEADER if rng.random() < 0.7 else len(data))
        number = rng.choice(
            [0, 1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)]
        )
        data[at : at + 4] = number.to_bytes(4, "little")
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)


def spoil_json(content: bytes, rng: random.Random) -> bytes:
    """Other values of other kinds at some places."""
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        holder = value
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(holder[key], (dict, list)) and rng.random() < 0.7:
                holder = holder[key]
                continue
            if rng.random() < 0.2:
                del holder[key]
            else:
                holder[key] = deepcopy(rng.choice(EXTREMES))
            break
    return json.dumps(value).encode("utf-8", "surrogatepass")
