"""What a model file or folder holds, whatever its format: what a reader gives to `Checkpoint`."""

from __future__ import annotations

import json
import reprlib
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from whisper_npu.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.held import HeldFile

    Heads = tuple[tuple[int, int], ...]  # (layer, head)


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

    @classmethod
    def checked(
        cls, values: Mapping[str, Any], where: Path, names: Mapping[str, str]
    ) -> Dimensions:
        """Sizes that a file states. Raises ModelError naming the one that cannot be.

        names  what the file calls each of them
        """
        for size in fields(cls):
            value = values.get(size.name)
            if type(value) is not int or not 0 < value < 1 << 20:
                raise ModelError(
                    f"{where}: {names.get(size.name, size.name)} is {reprlib.repr(value)}, "
                    "not a plausible size; is this a Whisper model?"
                )
        dims = cls(**values)
        for side in ("audio", "text"):
            width, heads = (values[f"n_{side}_{part}"] for part in ("state", "head"))
            if width % heads:
                width_name = names.get(f"n_{side}_state", f"n_{side}_state")
                raise ModelError(
                    f"{where}: {width_name} {width} is not a multiple of {heads} heads"
                )
        if dims.n_audio_state != dims.n_text_state:
            raise ModelError(f"{where}: encoder and decoder differ in width")
        return dims


@dataclass(frozen=True)
class Tensor:
    """One stored tensor.

    read  gives it in this shape, float32 or float16; raises ModelError
    """

    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Facts:
    """What a format says of a model beyond its sizes and weights; None: it does not say."""

    source: str = ""  # name of the file that says it
    is_multilingual: bool | None = None
    alignment_heads: Heads | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)  # special token -> its id
    ids: frozenset[int] = frozenset()  # other tokens that are mentioned


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model.

    file  that holds them
    read  gives them as the content of a tokenizer.json; raises ModelError, OSError, ValueError
    """

    file: HeldFile
    read: Callable[[], str]


@dataclass(frozen=True)
class Contents:
    """All that one file or folder holds. Tensors have the names of `layout.shapes`."""

    format: str
    dims: Dimensions
    tensors: Mapping[str, Tensor]
    vocabulary: Vocabulary
    facts: Facts
    weights: tuple[HeldFile, ...]  # the files that hold the tensors
    config: HeldFile | None = None
    settings: tuple[Path, ...] = ()  # the small files beside them


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder. Raises ModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: not a complete Whisper model folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: expected a JSON object")
    return value


def heads(value: Any, path: Path) -> Heads | None:
    """Pairs of layer and head as JSON has them. Raises ModelError."""
    if value is None:
        return None
    try:
        return tuple((int(layer), int(head)) for layer, head in value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: alignment_heads are not pairs of layer and head") from error


def ids(*values: Any) -> frozenset[int]:
    """The numbers in lists of tokens; what is no list or no number is passed over."""
    lists = [value for value in values if isinstance(value, list)]
    return frozenset(token for tokens in lists for token in tokens if type(token) is int)
