"""A model's encoder and cross-attention projections -> one image in the NPU's order.

    image = B tiles of every layer, each from a page boundary | scales and biases, float32

Where what lies follows from the model's sizes, the chip and the precision, so the image needs no
table of contents: it can be copied as it is into NPU memory. The factor 1 / sqrt(head width) is
folded into the queries. Convolutions stay float16 in int8 models: they are 4 % of the work and
the first thing that touches the signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.errors import DeviceError
from whisper_npu.model import Conv, Linear
from whisper_npu.rknpu import tiling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_npu.model import Whisper
    from whisper_npu.rknpu.soc import Precision, Soc

    Float = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

PAGE = 4096


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

    def arrays(self, image: Bytes) -> tuple[Bytes, Bytes]:
        """The tiles and the floats of an image."""
        return image[: self.tile_bytes], image[self.tile_bytes :]

    @property
    def n_bytes(self) -> int:
        return self.tile_bytes + self.float_bytes

    def fill(self, image: Bytes) -> None:
        """Convert the checkpoint's weights.

        image  (n_bytes,)  uint8  zeros, written
        """
        tiles, floats = self.arrays(image)
        for entry in self.entries.values():
            weight = entry.weight()
            if entry.precision == "int8":
                weight, scale = quantise_rows(weight)
                entry.channel_scale(floats)[:] = scale  # type: ignore[index]  # int8 has one
                values: NDArray[Any] = weight.astype(np.int8)
            else:
                values = weight.clip(-65504, 65504).astype(np.float16)
            order, shape = self.soc.orders[entry.precision], (entry.n, entry.k)
            tiled = tiling.tile_weight(values, order.b, shape, self.soc.k_segment).view(np.uint8)
            tiles[entry.offset : entry.offset + tiled.size] = tiled
            entry.bias(floats)[:] = entry.layer.bias * np.float32(entry.factor)


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
