"""Every error a user can meet, with its exit code.

WhisperNpuError        1
├── OptionError        2  options that contradict each other
├── AudioError         4  a recording that cannot be read (a batch that read some others: 3)
├── ModelError         5  a model folder missing, damaged, or not to be had offline
│   └── HubUnreachable 5  nobody answers where models are downloaded from
├── DeviceError        6  a device that cannot be opened
│   └── DeviceFault    6  a device that failed during a call
├── ToleranceError     7  a comparison out of tolerance
├── OutputError        8  a transcript or cache that cannot be written
│   └── DiskError      8  nor anything else on that disk: full, read-only, failing
└── Interrupted      130  by Ctrl-C; 143 by SIGTERM; 141 when nobody reads our output any more

A message says what failed, on what, and what to do. `cli.main` prints it as one line.
"""

from __future__ import annotations


class WhisperNpuError(Exception):
    """Anything this program refuses or fails to do; shown to the user without a traceback."""

    exit_code = 1


class OptionError(WhisperNpuError):
    """Options that contradict each other, found before any model is loaded.

    options  names of those meant, as they stand in the message
    """

    exit_code = 2

    def __init__(self, message: str, *options: str) -> None:
        super().__init__(message)
        self.options = options


class AudioError(WhisperNpuError):
    """One recording cannot be read; a batch goes on with the next."""

    exit_code = 4


class ModelError(WhisperNpuError):
    """The model cannot be used: missing, damaged, or offline. Stops a batch."""

    exit_code = 5


class HubUnreachable(ModelError):
    """Nobody answers where models are downloaded from; another source may do."""


class DeviceError(WhisperNpuError):
    """The device asked for cannot be opened. Stops a batch."""

    exit_code = 6


class DeviceFault(DeviceError):
    """A call to an open device failed: which call, with what code."""


class ToleranceError(WhisperNpuError):
    """Two devices differ by more than was allowed."""

    exit_code = 7


class OutputError(WhisperNpuError):
    """A result cannot be written: no permission, a name that is taken or too long."""

    exit_code = 8


class DiskError(OutputError):
    """Nothing can be written on that disk: it is full, read-only, or fails. Stops a batch."""


class Interrupted(WhisperNpuError):
    """A signal ended the work; what was finished is kept."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal
