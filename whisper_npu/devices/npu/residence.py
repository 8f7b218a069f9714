"""Where the weights stand while a window is encoded: all in NPU memory, or one layer at a time.

A chip without IOMMU has some 12 MB for everything: then each layer is copied there when its turn
comes, in every window, which costs the time of reading the weights once more.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from whisper_npu.errors import DeviceFault
from whisper_npu.messages import warn_once

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from whisper_npu.devices.npu.weights import Entry, Image
    from whisper_npu.rknpu.cores import Cores
    from whisper_npu.rknpu.librknnrt import Memory

_log = logging.getLogger(__name__)


class Residence:
    """The tiles of an image as operands. Raises DeviceFault where the largest layer has no room.

    tiles  (image.tile_bytes,)  uint8
    """

    def __init__(self, cores: Cores, image: Image, tiles: NDArray[np.uint8]) -> None:
        self._cores = cores
        self._tiles = tiles
        self._largest = max(entry.tile_bytes for entry in image.entries.values())
        self._views: dict[tuple[int, int], Memory] = {}
        self._all = True
        try:
            self.memory = cores.memory(tiles.size)
        except DeviceFault:
            self._leave()
        else:
            self._write(tiles)

    def give_way(self) -> None:
        """Make room for activations, if there is any to make. Not while a core works."""
        if not self._all:
            return
        for view in self._views.values():
            view.close()
        self._views.clear()
        self.memory.close()
        self._leave()

    def _leave(self) -> None:
        warn_once(
            _log, "the NPU has too little memory for all weights: they are copied each window"
        )
        self._all = False
        self.memory = self._cores.memory(self._largest)

    def _write(self, tiles: NDArray[np.uint8]) -> None:
        self.memory.array[: tiles.size] = tiles
        self.memory.sync_to_device()

    def fetch(self, entry: Entry) -> None:
        """Before the first product of a layer."""
        if not self._all:
            self._write(self._tiles[entry.offset : entry.offset + entry.tile_bytes])

    def part(self, entry: Entry, first: int, last: int) -> Memory:
        """B of some outputs of the layer that was fetched: tiles lie output by output."""
        column = entry.tile_bytes // entry.n
        start = entry.offset if self._all else 0
        place = start + first * column, (last - first) * column
        if place not in self._views:
            self._views[place] = self._cores.view(self.memory, *place)
        return self._views[place]
