"""The device taken when none is asked for: the NPU while it works, else the CPU, and why, once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from whisper_npu.devices.cpu import open_cpu
from whisper_npu.errors import DeviceError, DeviceFault

if TYPE_CHECKING:
    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.device import Device, DeviceInfo, Float, Observer, Session
    from whisper_npu.options import DeviceOptions

_log = logging.getLogger(__name__)


class _Encoded(NamedTuple):
    """A window, and who can decode it."""

    device: Device
    value: Any


class AutoDevice:
    """A `Device` that never fails for want of an NPU."""

    def __init__(self, checkpoint: Checkpoint, options: DeviceOptions) -> None:
        self._checkpoint = checkpoint
        self._options = options
        self._opened: list[Device] = []
        self._door = threading.Lock()
        try:
            self._device = self._open_npu(options)
        except DeviceError as error:
            # once: the other workers meet the same
            _log.log(
                logging.DEBUG if options.share[0] else logging.WARNING, "using the CPU: %s", error
            )
            self._device = self._open_cpu()

    def _open_npu(self, options: DeviceOptions) -> Device:
        from whisper_npu.devices.npu_path import open_npu

        self._opened.append(open_npu(self._checkpoint, options))
        return self._opened[-1]

    def _open_cpu(self) -> Device:
        options = self._options
        self._opened.append(
            open_cpu(
                self._checkpoint,
                precision=options.precision,
                threads=options.threads,
                short_windows=options.short_windows,
            )
        )
        return self._opened[-1]

    @property
    def info(self) -> DeviceInfo:
        """What the device in use is."""
        return self._device.info

    def encode(self, mel: Float, *, observe: Observer | None = None) -> _Encoded:
        """On the NPU; when that fails, this window and all later ones on the CPU."""
        device = self._device
        try:
            return _Encoded(device, device.encode(mel, observe=observe))
        except DeviceFault as fault:
            with self._door:  # another thread may have met the same
                if self._device is device:
                    _log.warning("the NPU failed, going on with the CPU: %s", fault)
                    self._device = self._open_cpu()
        return _Encoded(self._device, self._device.encode(mel, observe=observe))

    def session(self, encoded: _Encoded, *, beams: int = 1, align: bool = False) -> Session:
        return encoded.device.session(encoded.value, beams=beams, align=align)

    def close(self) -> None:
        for device in self._opened:
            device.close()
