"""Hugging Face's folders: config.json, generation_config.json, model.safetensors (single or
sharded), float32 or float16, and tokenizer.json. Never a pickle.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

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
from whisper_npu.checkpoint.vocabulary import from_file
from whisper_npu.errors import ModelError
from whisper_npu.held import HeldFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

# our name -> the key in config.json
CONFIG_KEYS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}


def read(folder: Path) -> Contents:
    """What a folder holds. Raises ModelError naming the part that is missing or damaged."""
    path = folder / "config.json"
    config = read_json(path)
    dims = Dimensions.checked(
        {ours: config.get(theirs) for ours, theirs in CONFIG_KEYS.items()}, path, CONFIG_KEYS
    )
    vocabulary = folder / "tokenizer.json"
    if not vocabulary.is_file():
        raise ModelError(f"{vocabulary} is missing: not a complete Whisper model folder")
    files = tuple(map(HeldFile, _weight_files(folder)))
    tokens = HeldFile(vocabulary)
    return Contents(
        format="huggingface",
        dims=dims,
        tensors={name: tensor for file in files for name, tensor in _tensors(file)},
        vocabulary=Vocabulary(tokens, partial(from_file, tokens)),
        facts=_facts(folder / "generation_config.json"),
        weights=files,
        config=HeldFile(path),
        settings=tuple(sorted(folder.glob("*.json"))),
    )


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index, names = folder / INDEX, [WEIGHTS]
    if index.exists():
        files = read_json(index).get("weight_map")
        if not isinstance(files, dict) or not files:
            raise ModelError(f"{index} is damaged: no weight_map")
        names = sorted({Path(str(file)).name for file in files.values()})
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name} is missing: not a complete Whisper model folder")
    return tuple(folder / name for name in names)


def _tensors(held: HeldFile) -> list[tuple[str, Tensor]]:
    path = held.path
    try:
        file: Any = safe_open(held.name_while_open, framework="numpy")
        return [
            (
                name,
                Tensor(tuple(file.get_slice(name).get_shape()), partial(_read, path, file, name)),
            )
            for name in file.keys()  # noqa: SIM118  it is not iterable
        ]
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged: {error}; download it again") from error


def _read(path: Path, file: Any, name: str) -> NDArray[Any]:
    try:
        value: NDArray[Any] = file.get_tensor(name)
    except (SafetensorError, TypeError) as error:
        raise ModelError(f"{path}: tensor {name} cannot be read: {error}") from error
    if value.dtype not in (np.float32, np.float16):
        raise ModelError(f"{path}: tensor {name} is {value.dtype}, not float32 or float16")
    return value


def _facts(path: Path) -> Facts:
    """What generation_config.json says; old exports have none."""
    if not path.exists():
        return Facts()
    generation = read_json(path)
    multilingual = generation.get("is_multilingual")
    named = {
        "<|endoftext|>": generation.get("eos_token_id"),
        "<|startoftranscript|>": generation.get("decoder_start_token_id"),
        "<|notimestamps|>": generation.get("no_timestamps_token_id"),
    }
    languages = generation.get("lang_to_id")
    named |= languages if isinstance(languages, dict) else {}
    return Facts(
        source=path.name,
        is_multilingual=multilingual if isinstance(multilingual, bool) else None,
        alignment_heads=heads(generation.get("alignment_heads"), path),
        tokens={name: token for name, token in named.items() if type(token) is int},
        ids=ids(generation.get("suppress_tokens"), generation.get("begin_suppress_tokens")),
    )
