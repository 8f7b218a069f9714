"""Model files -> dimensions, named tensors and vocabulary, whatever the format; memory-mapped.

One reader a format gives `Contents`; `Checkpoint` asks the one that fits, and believes nothing
before it was checked. Nothing here knows what the tensors are for: that is `model`.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from whisper_npu import cache
from whisper_npu.catalogue import of_weights
from whisper_npu.checkpoint import consistency, ctranslate2, ggml, huggingface
from whisper_npu.checkpoint.contents import Dimensions
from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.catalogue import KnownModel
    from whisper_npu.checkpoint.contents import Contents, Heads, Vocabulary
    from whisper_npu.held import HeldFile

__all__ = ["Checkpoint", "Dimensions"]

T = TypeVar("T")

_PICKLES = (b"PK\x03\x04", b"\x80\x02")  # torch.save, now and long ago
_PIECE = 1 << 18  # values looked at in one go: they stay in the processor's cache
_INSTEAD = "use a Hugging Face folder, a CTranslate2 folder, or whisper.cpp's ggml file"


class Checkpoint:
    """An opened model: a Hugging Face folder, a CTranslate2 folder, or a ggml file.

    path  as it was given; its content decides which format it is

    Raises ModelError naming the part that is missing, damaged, or of another model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contents = _read(path)
        self.dims = self._contents.dims
        config = [self._contents.config] if self._contents.config else []
        self._key = [*config, *self._contents.weights]  # what decides all that is derived
        self._held = [*self._key, self._contents.vocabulary.file]
        consistency.check(self._contents, path)

    @property
    def format(self) -> str:
        """huggingface, ctranslate2 or ggml."""
        return self._contents.format

    @property
    def name(self) -> str:
        """The published model's name where it is one, else that of the folder or file."""
        if self.published:
            return self.published.name
        if self.path.parent.name == "snapshots":  # in the hub's cache, a commit
            owner_and_name = self.path.parent.parent.name.removeprefix("models--")
            return owner_and_name.replace("--", "/", 1)
        return self.path.absolute().name

    @cached_property
    def published(self) -> KnownModel | None:
        """What the catalogue knows of these weights, wherever they lie."""
        found = (of_weights(cache.digest(file)) for file in self.weights)
        return next((model for model in found if model), None)

    @property
    def weights(self) -> tuple[HeldFile, ...]:
        """The files that hold the tensors."""
        return self._contents.weights

    @property
    def settings(self) -> tuple[Path, ...]:
        """The small files beside them, vocabulary and configuration."""
        return self._contents.settings

    @property
    def n_bytes(self) -> int:
        """How large the weights are in float16, in however many bits they are stored."""
        return 2 * sum(math.prod(tensor.shape) for tensor in self._contents.tensors.values())

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of configuration and weights: the key of all that is derived from them."""
        return cache.fingerprint(self._key)

    def hold(self, file: HeldFile) -> None:
        """One more file that this model runs on: it was made from the others."""
        self._held.append(file)

    def require_unchanged(self) -> None:
        """Raise ModelError when somebody has written into a file that this model runs on."""
        for file in self._held:
            file.require_unchanged()

    def while_unchanged(self, work: Iterable[T]) -> list[T]:
        """All that the work gives, if none of these files is written into before its end.

        Raises ModelError, also before the work begins: what was cut off must not be read.
        """
        self.require_unchanged()
        given = [*work]
        self.require_unchanged()
        return given

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens, and the file that holds them."""
        return self._contents.vocabulary

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special token -> its id, as far as the configuration states them."""
        return dict(self._contents.facts.tokens)

    @cached_property
    def is_multilingual(self) -> bool:
        """Whether prompts name a language and a task."""
        return consistency.is_multilingual(self._contents)

    @cached_property
    def alignment_heads(self) -> Heads:
        """(layer, head) of the cross-attention heads that follow time."""
        return consistency.alignment_heads(self._contents)

    def __contains__(self, name: str) -> bool:
        return name in self._contents.tensors

    @property
    def names(self) -> tuple[str, ...]:
        """All tensor names, as `layout.shapes` has them."""
        return tuple(self._contents.tensors)

    def read(self, name: str) -> NDArray[Any]:
        """One tensor as stored, float32 or float16; dequantised where it is of fewer bits.

        Raises ModelError naming the tensor that is missing or has values that are no numbers.
        """
        tensor = self._contents.tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.path}: the weights have no tensor {name}")
        with np.errstate(all="ignore"):  # damaged scales overflow, and are found right here
            value = tensor.read()
        if not _is_finite(value):
            raise ModelError(
                f"{self.path}: tensor {name} has infinite values or NaN: it is damaged"
            )
        return value

    def tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """One tensor of the shape that is expected. Raises ModelError."""
        value = self.read(name)
        if value.shape != shape:
            raise ModelError(
                f"{self.path}: tensor {name} has shape {value.shape}, expected is {shape}"
            )
        return value


def _is_finite(value: NDArray[Any]) -> bool:
    """Told by the exponent's bits, all set in what is no number: several times as fast."""
    bits, exponent = {2: (np.uint16, 0x7C00), 4: (np.uint32, 0x7F800000)}[value.itemsize]
    flat = value.reshape(-1).view(bits)
    pieces = (flat[i : i + _PIECE] for i in range(0, len(flat), _PIECE))
    return all(bool(((piece & exponent) != exponent).all()) for piece in pieces)


def format_of(path: Path) -> str | None:
    """huggingface, ctranslate2 or ggml, by content; None: no model that can be opened."""
    if path.is_dir():
        if (path / "model.safetensors").is_file() or (path / huggingface.INDEX).is_file():
            return "huggingface"
        return "ctranslate2" if ctranslate2.is_weights(path / ctranslate2.WEIGHTS) else None
    return "ggml" if path.is_file() and ggml.is_model(path) else None


_READERS = {"huggingface": huggingface.read, "ctranslate2": ctranslate2.read, "ggml": ggml.read}


def _read(path: Path) -> Contents:
    try:
        reader = _READERS.get(format_of(path) or "")
        if reader:
            return reader(path)
        raise ModelError(_why_no_folder(path) if path.is_dir() else _why_no_file(path))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _why_no_folder(path: Path) -> str:
    if not (path / "config.json").is_file():
        return f"{path / 'config.json'} is missing: not a complete Whisper model folder"
    if (path / "pytorch_model.bin").is_file():
        return f"{path} has only pickled weights, which are never opened: {_INSTEAD}"
    return f"{path / huggingface.WEIGHTS} is missing: not a complete Whisper model folder"


def _why_no_file(path: Path) -> str:
    if not path.exists():
        return f"there is no model at {path}"
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLES):
        return f"{path} is a pickled checkpoint, which is never opened: {_INSTEAD}"
    if path.name in (huggingface.WEIGHTS, ctranslate2.WEIGHTS):
        return f"{path} is a part of a model: use the folder {path.parent}"
    if start == b"GGUF":
        return f"{path} is in the format of llama.cpp, not of whisper.cpp: {_INSTEAD}"
    return f"{path} is not a Whisper model: {_INSTEAD}"
