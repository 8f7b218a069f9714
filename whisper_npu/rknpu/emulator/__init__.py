"""A stand-in for librknnrt.so, in C with the same interface: chip -> path of the library.

Built with the package; from a checkout without a build it is compiled once into the cache folder.
Whatever runs on it calls itself emulated: `librknnrt.Library.is_emulated` looks at the symbols,
not at how the library was found.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from whisper_npu import cache
from whisper_npu.errors import DeviceError, OptionError

CHIPS = {"rk3588": 3588, "rk3566": 3566}
MANNERS = "WHISPER_NPU_EMULATOR"  # of the environment: how it behaves, docs/npu.md has the words
_HERE = Path(__file__).parent
_SOURCES = ("runtime.c", "memory.c", "controls.c", "arithmetic.c")


def library(chip: str) -> Path:
    """The emulator of one chip. Raises OptionError for one it cannot play, DeviceError."""
    if chip not in CHIPS:
        raise OptionError(f"no emulator for {chip!r}: use {' or '.join(CHIPS)}")
    name = f"librknnrt-{chip}.so"
    return _HERE / name if (_HERE / name).is_file() else _compiled(chip, name)


def _compiled(chip: str, name: str) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise DeviceError("the emulator was not built with this package and there is no C compiler")
    sources = sorted(_HERE.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = cache.folder() / f"emulator-{digest}"
    built = folder / name
    if built.is_file():
        return built
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _compile(compiler, chip, Path(scratch) / name)
            (Path(scratch) / name).rename(built)
    except OSError as error:
        raise DeviceError(f"the emulator cannot be built in {folder}: {error}") from error
    return built


def _compile(compiler: str, chip: str, out: Path) -> None:
    command = [
        compiler, "-O3", "-shared", "-fPIC", "-fvisibility=hidden", f"-DCHIP={CHIPS[chip]}",
        *(str(_HERE / source) for source in _SOURCES), "-o", str(out), "-lpthread",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeviceError(f"the emulator does not compile: {done.stderr.strip()[-300:]}")
