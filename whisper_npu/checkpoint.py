"""A Hugging Face Whisper folder -> dimensions + named tensors, memory-mapped.

Reads config.json, generation_config.json and model.safetensors (single or sharded), float32 or
float16. Never a pickle. It does not know what the tensors are for: that is `model`.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float32]


@dataclass(frozen=True)
class Dimensions:
    """The sizes that tell one Whisper from another."""

    n_mels: int
    n_audio_ctx: int  # positions after the strided convolution: 1500 for 30 s
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int


# our name -> the key in config.json
_CONFIG_KEYS = {
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


class Checkpoint:
    """An opened model folder. Raises ModelError naming the part that is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"no model folder at {folder}")
        self.config = self._json("config.json")
        self.dims = self._dimensions()
        self._shards = self._find_shards()

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelError(f"{path} is missing: not a complete Whisper model folder") from error
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{path} cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise ModelError(f"{path} is damaged: expected a JSON object")
        return value

    def _dimensions(self) -> Dimensions:
        values = {}
        for ours, theirs in _CONFIG_KEYS.items():
            value = self.config.get(theirs)
            if type(value) is not int or not 0 < value < 1 << 20:
                raise ModelError(
                    f"{self.folder / 'config.json'}: {theirs} is {reprlib.repr(value)}, "
                    "not a plausible size; is this a Whisper model?"
                )
            values[ours] = value
        dims = Dimensions(**values)
        if dims.n_audio_state % dims.n_audio_head or dims.n_text_state % dims.n_text_head:
            raise ModelError(f"{self.folder / 'config.json'}: d_model is not a multiple of heads")
        return dims

    @cached_property
    def generation(self) -> dict[str, Any]:
        """generation_config.json, or empty: old exports have none."""
        if not (self.folder / "generation_config.json").exists():
            return {}
        return self._json("generation_config.json")

    @cached_property
    def is_multilingual(self) -> bool:
        """Whether prompts name a language and a task."""
        stated = self.generation.get("is_multilingual")
        return stated if isinstance(stated, bool) else self.dims.n_vocab >= 51865

    @cached_property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of the cross-attention heads that follow time; default: the upper half."""
        heads = self.generation.get("alignment_heads")
        if heads is None:
            layers, n_heads = self.dims.n_text_layer, self.dims.n_text_head
            return tuple((i, h) for i in range(layers // 2, layers) for h in range(n_heads))
        try:
            pairs = tuple((int(layer), int(head)) for layer, head in heads)
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"{self.folder}/generation_config.json: alignment_heads") from error
        if not all(
            0 <= i < self.dims.n_text_layer and 0 <= h < self.dims.n_text_head for i, h in pairs
        ):
            raise ModelError(f"{self.folder}/generation_config.json: alignment_heads out of range")
        return pairs

    def _find_shards(self) -> dict[str, Any]:
        """Tensor name -> the open file that holds it."""
        index = self.folder / "model.safetensors.index.json"
        if index.exists():
            files = self._json(index.name).get("weight_map")
            if not isinstance(files, dict) or not files:
                raise ModelError(f"{index} is damaged: no weight_map")
        else:
            files = None
        names = (
            sorted({Path(str(f)).name for f in files.values()}) if files else ["model.safetensors"]
        )
        shards: dict[str, Any] = {}
        for name in names:
            path = self.folder / name
            if not path.is_file():
                raise ModelError(f"{path} is missing: not a complete Whisper model folder")
            try:
                shard: Any = safe_open(path, framework="numpy")
                shards.update(dict.fromkeys(shard.keys(), shard))
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path} is damaged: {error}; download it again") from error
        return shards

    def __contains__(self, name: str) -> bool:
        return name in self._shards

    @property
    def names(self) -> tuple[str, ...]:
        """All tensor names."""
        return tuple(self._shards)

    def read(self, name: str) -> NDArray[Any]:
        """One tensor as stored, float32 or float16. Raises ModelError naming it."""
        shard = self._shards.get(name)
        if shard is None:
            raise ModelError(f"{self.folder}: the weights have no tensor {name}")
        try:
            value: NDArray[Any] = shard.get_tensor(name)
        except (SafetensorError, TypeError) as error:
            raise ModelError(f"{self.folder}: tensor {name} cannot be read: {error}") from error
        if value.dtype not in (np.float32, np.float16):
            raise ModelError(
                f"{self.folder}: tensor {name} is {value.dtype}, not float32 or float16"
            )
        return value

    def tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """One tensor of the shape that config.json promises. Raises ModelError."""
        value = self.read(name)
        if value.shape != shape:
            raise ModelError(
                f"{self.folder}: tensor {name} has shape {value.shape}, config.json says {shape}"
            )
        return value
