"""A model's encoder and cross-attention projections -> one image in the NPU's order.

    tiles   B of every layer, each from a page boundary: copied as they are into NPU memory
    floats  biases, and the scales of int8, whose weights are rotated as their inputs are

Where what lies follows from the model's sizes, the chip and the precision. The factor
1 / sqrt(head width) is folded into the queries. Convolutions stay float16 in int8 models: they are
4 % of the work and the first thing that touches the signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu import weights_cache
from whisper_npu.errors import DeviceError, OptionError
from whisper_npu.kernels import reference
from whisper_npu.model import ATTENTION, Conv, Linear, Whisper, forget
from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.soc import SOCS
from whisper_npu.rknpu.trials import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.rknpu.soc import Precision, Soc

    Float = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

PAGE = 4096
VERSION = 3  # of the order of the image


@dataclass(frozen=True, eq=False)
class Entry:
    """Where one layer lies in the image."""

    layer: Linear | Conv
    precision: Precision
    factor: float  # what the layer is multiplied by
    k: int  # inputs, padded
    offset: int  # of the tiles, bytes
    floats: int  # of the bias, and for int8 the scales behind it, bytes from the first float

    @property
    def n(self) -> int:
        return self.layer.n_out

    @property
    def tile_bytes(self) -> int:
        return self.n * self.k * (1 if self.precision == "int8" else 2)

    @property
    def float_bytes(self) -> int:
        return self.n * 4 * (2 if self.precision == "int8" else 1)

    def bias(self, floats: Bytes) -> Float:
        """(N,) float32, from the floats of the image."""
        return floats[self.floats : self.floats + 4 * self.n].view(np.float32)

    def channel_scale(self, floats: Bytes) -> Float | None:
        """(N,) float32: what an int8 weight of each output stands for; None for float16."""
        start = self.floats + 4 * self.n
        if self.precision != "int8":
            return None
        return floats[start : start + 4 * self.n].view(np.float32)

    def weight(self) -> Float:
        """(N, K) float32, the taps of a convolution side by side, tap * K + k."""
        weight = self.layer.weight
        if isinstance(self.layer, Conv):
            weight = weight.transpose(0, 2, 1).reshape(self.n, -1)
        return weight * np.float32(self.factor)


class Image:
    """The layout for one model, chip and precision. Raises DeviceError for odd widths."""

    def __init__(self, model: Whisper, soc: Soc, precision: Precision) -> None:
        self.soc = soc
        self.precision = precision
        self.n_positions = model.dims.n_audio_ctx
        self.n_heads = model.dims.n_audio_head
        self.head_width = model.dims.n_audio_state // self.n_heads
        _check_widths(model, soc)
        kinds = [(x, "fp16" if isinstance(x, Conv) else precision, f) for x, f in _layers(model)]
        self.entries: dict[str, Entry] = {}
        offset, floats = 0, 0
        for layer, kind, factor in kinds:
            taps = 3 if isinstance(layer, Conv) else 1
            k = soc.orders[kind].padded_k(taps * layer.n_in)
            entry = Entry(layer, kind, factor, k, offset, floats)
            self.entries[layer.name] = entry
            offset += -(-entry.tile_bytes // PAGE) * PAGE
            floats += entry.float_bytes
        self.tile_bytes = offset  # what is copied to the NPU
        self.float_bytes = floats

    def bounds(self, entry: Entry, n_cores: int) -> list[tuple[int, int]]:
        """The outputs of each core: as equal as whole tiles, and for attention heads, allow."""
        n_parts = n_cores if self.soc.k_segment is None or entry.k <= self.soc.k_segment else 1
        align = self.soc.orders[entry.precision].align_n
        layer = entry.layer
        if (
            isinstance(layer, Linear)
            and layer.role in ("query", "key", "value")
            and not layer.cross
        ):
            align = lcm(align, self.head_width)
        ends = [entry.n // align * i // n_parts * align for i in range(n_parts)] + [entry.n]
        return [(a, b) for a, b in pairwise(ends) if a < b]

    def cases(self, n_cores: int, *, to_fp16: bool = True) -> dict[str, list[Case]]:
        """What the NPU multiplies for each layer, and for `ATTENTION`.

        to_fp16  attention's scores leave the NPU as float16
        """
        found = {
            name: [
                Case(self._rows(entry), entry.k, last - first, entry.precision)
                for first, last in self.bounds(entry, n_cores)
            ]
            for name, entry in self.entries.items()
        }
        d, n_keys = self.head_width, self.soc.orders["fp16"].padded_k(self.n_positions)
        scores = Case(self.n_positions, d, n_keys, to_fp16=to_fp16)
        found[ATTENTION] = [scores, Case(self.n_positions, n_keys, d, operand="weights")]
        return found

    def _rows(self, entry: Entry) -> int:
        """M of a layer: the first convolution gives all frames, two to a position."""
        layer = entry.layer
        return self.n_positions * (2 if isinstance(layer, Conv) and layer.stride == 1 else 1)

    def arrays(self) -> Iterator[tuple[str, Bytes]]:
        """Convert the checkpoint's weights: "tiles", then "floats"."""
        tiles = np.zeros(self.tile_bytes, np.uint8)
        floats = np.zeros(self.float_bytes, np.uint8)
        for entry in self.entries.values():
            tiled = self._tiled(entry, floats).view(np.uint8)
            tiles[entry.offset : entry.offset + tiled.size] = tiled
            entry.bias(floats)[:] = entry.layer.bias * np.float32(entry.factor)
            forget(entry.layer)  # a small board has no memory for all of them
        yield "tiles", tiles
        yield "floats", floats

    def _tiled(self, entry: Entry, floats: Bytes) -> NDArray[Any]:
        """One layer's weight in the order of B; an int8 one leaves its scales in floats."""
        weight, scale = entry.weight(), entry.channel_scale(floats)
        if scale is None:
            values: NDArray[Any] = weight.clip(-65504, 65504).astype(np.float16)
        else:
            weight, scale[:] = quantise_rows(reference.rotated(weight))
            values = weight.astype(np.int8)
        order, shape = self.soc.orders[entry.precision], (entry.n, entry.k)
        return tiling.tile_weight(values, order.b, shape, self.soc.k_segment)


def cached(image: Image, checkpoint: Checkpoint) -> dict[str, Bytes]:
    """The arrays of an image, memory-mapped; converted and kept when they are not there yet."""
    order = f"npu-{image.soc.name}-{image.precision}"
    return weights_cache.open_weights(checkpoint, order, VERSION, image.arrays)


def build(checkpoint: Checkpoint, chip: str, precision: str) -> int:
    """Convert and keep a model's weights for a chip, which need not be this machine's.

    return  bytes of the image
    Raises OptionError, ModelError, DeviceError for a model that does not fit.
    """
    if chip not in SOCS:
        raise OptionError(f"no chip {chip!r}: use {', '.join(SOCS)}")
    image = Image(Whisper(checkpoint), SOCS[chip], precision_named(precision))
    return sum(array.nbytes for array in cached(image, checkpoint).values())


def precision_named(name: str) -> Precision:
    """What an option says. Raises OptionError."""
    known: dict[str, Precision] = {"auto": "fp16", "fp16": "fp16", "int8": "int8"}
    if name not in known:
        raise OptionError(f"npu_precision: {name!r} is not one of fp16, int8", "npu_precision")
    return known[name]


def quantise_rows(weight: Float) -> tuple[Float, Float]:
    """One symmetric scale per row.

    weight  (N, K)  float32
    return  (N, K)  float32  whole numbers in [-127, 127]
            (N,)    float32  weight = whole * scale
    """
    peak = np.abs(weight).max(axis=1)
    scale = np.where(peak > 0, peak / np.float32(127), np.float32(1)).astype(np.float32)
    return np.rint(weight / scale[:, None]), scale


def _layers(model: Whisper) -> list[tuple[Linear | Conv, float]]:
    """Everything the NPU multiplies by, in the order of use, with its factor."""
    head_width = model.dims.n_audio_state // model.dims.n_audio_head
    layers: list[tuple[Linear | Conv, float]] = [(model.conv1, 1.0), (model.conv2, 1.0)]
    for layer in model.encoder_layers:
        heads = layer.attention
        layers.append((heads.query, head_width**-0.5))
        layers += [(x, 1.0) for x in (heads.key, heads.value, heads.out, layer.fc1, layer.fc2)]
    for layer in model.decoder_layers:
        if layer.cross is not None:
            layers += [(layer.cross.key, 1.0), (layer.cross.value, 1.0)]
    return layers


def _check_widths(model: Whisper, soc: Soc) -> None:
    dims = model.dims
    head_width = dims.n_audio_state // dims.n_audio_head
    order = soc.orders["fp16"]
    if dims.n_audio_state % 32 or dims.n_mels % 8 or dims.n_audio_state != dims.n_text_state:
        raise DeviceError(
            f"a model of width {dims.n_audio_state} with {dims.n_mels} mels does not fit the "
            "NPU's tiles; use --device cpu"
        )
    if head_width % order.align_k or head_width % order.align_n:
        raise DeviceError(
            f"attention heads of width {head_width} do not fit the NPU's tiles; use --device cpu"
        )
