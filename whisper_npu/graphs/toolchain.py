"""The vendor's compiler and simulator, in an environment of their own and behind a pipe.

Our process never imports them: `export.py` and `compiler.py` run in the other Python, and arrays
travel as .npz files. The environment is made on first use from toolchain-requirements.txt.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu import cache
from whisper_npu.errors import DeviceError
from whisper_npu.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Float = NDArray[np.float32]
    Say = Callable[[str], None]

_HERE = Path(__file__).parent
REQUIREMENTS = _HERE / "toolchain-requirements.txt"
PYTHONS = ((3, 12), (3, 11), (3, 10))  # those the vendor has wheels for, of those we support


def environment(say: Say) -> Path:
    """The Python of the toolchain's environment, made (once, about 700 MB) when it is missing.

    say  hears each step; takes minutes on a slow line

    Raises DeviceError when no Python fits or a package cannot be installed.
    """
    key = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = cache.folder() / f"toolchain-{key}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return python
    base = _base_python()
    with locked(folder.with_suffix(".lock")):
        if not complete.exists():  # another process may have made it while we waited
            shutil.rmtree(folder, ignore_errors=True)
            say(f"making the vendor's environment in {folder} (once, about 700 MB)")
            _run([base, "-m", "venv", str(folder)], say, "is the disk full?")
            pip = [str(python), "-I", "-m", "pip", "install", "--disable-pip-version-check"]
            pip += ["--no-deps", "--only-binary", ":all:", "--progress-bar", "off"]
            _run([*pip, "-r", str(REQUIREMENTS)], say, "is there a connection, and 1 GB of disk?")
            complete.touch()
    return python


def _base_python() -> str:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise DeviceError(
            "the vendor's compiler runs on Linux, on x86_64 and aarch64; this is "
            f"{platform.system()} on {platform.machine()}"
        )
    names = [f"python{major}.{minor}" for major, minor in PYTHONS]
    own = [sys.executable] if sys.version_info[:2] in PYTHONS else []
    for name in own + names:
        found = shutil.which(name)
        if found and _makes_environments(found):
            return found
    raise DeviceError(
        f"the vendor's compiler needs one of {', '.join(names)}, with venv (python3-venv on "
        "Debian); or name a Python that has rknn-toolkit2 with --toolchain-python"
    )


def _makes_environments(python: str) -> bool:
    """Not a launcher without a Python behind it, nor one that Debian has stripped."""
    done = subprocess.run(
        [python, "-c", "import ensurepip, venv"], capture_output=True, check=False
    )
    return done.returncode == 0


def _run(command: list[str], say: Say, hint: str) -> None:
    """Run to the end, each package's line to `say`; the end of the output in the error."""
    tail = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        for line in process.stdout:
            if line.startswith(("Collecting", "Installing")):
                say(line.partition(" (from")[0].strip()[:100])
            tail = line.strip() or tail
    if process.returncode:
        raise DeviceError(f"{' '.join(command[:4])} ... failed: {tail}; {hint}")


class Toolchain:
    """A running compiler; one model at a time. Raises DeviceError from every call.

    python  of the toolchain's environment
    log     file to which all that the vendor prints is added

    `peak_bytes` is the most memory that its process has used so far.
    """

    def __init__(self, python: Path, log: Path) -> None:
        self.log = log.absolute()
        self.peak_bytes = 0
        self._python = str(python)
        self._folder = tempfile.TemporaryDirectory(prefix="whisper-npu-")
        self.scratch = Path(self._folder.name)  # the vendor leaves files where it runs
        command = [self._python, "-I", str(_HERE / "compiler.py"), str(self.log)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self.scratch,
                # the vendor leaves 60 to 150 MB a build in the temporary folder
                env={**os.environ, "TMPDIR": str(self.scratch)},
            )
        except OSError as error:
            self._folder.cleanup()
            raise DeviceError(f"{python} cannot be started: {error.strerror}") from error
        try:
            self.version = str(self._ask("version")["version"])
        except DeviceError as error:
            self.close()
            raise DeviceError(f"{python} has no rknn-toolkit2: {error}") from error

    def close(self) -> None:
        """End the other process and remove its files."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def export(self, tensors: Mapping[str, NDArray[Any]], job: Mapping[str, Any]) -> Path:
        """Write an ONNX file; `job` as export.py wants it, without its paths."""
        stored, onnx, path = (self.scratch / n for n in ("tensors.npz", "x.onnx", "job.json"))
        np.savez(stored, **dict(tensors))  # type: ignore[arg-type]
        path.write_text(json.dumps({**job, "tensors": str(stored), "onnx": str(onnx)}))
        command = [self._python, "-I", str(_HERE / "export.py"), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise DeviceError(f"the model cannot be written as ONNX: {reason}")
        return onnx

    def build(
        self,
        onnx: Path,
        target: str,
        *,
        calibration: list[list[Float]] | None = None,
        rknn: Path | None = None,
    ) -> float:
        """Compile; int8 when there is calibration, a list of the inputs of one run each.

        rknn    where the compiled file goes; None: it is only simulated
        return  seconds that it took
        """
        dataset = self._dataset(calibration) if calibration else None
        built = self._ask(
            "build",
            onnx=str(onnx),
            target=target,
            dataset=dataset,
            rknn=str(rknn.absolute()) if rknn else None,
        )
        return float(built["seconds"])

    def _dataset(self, calibration: list[list[Float]]) -> str:
        lines = []
        for i, inputs in enumerate(calibration):
            names = [f"calibration_{i}_{j}.npy" for j in range(len(inputs))]
            for name, array in zip(names, inputs, strict=True):
                np.save(self.scratch / name, array)
            lines.append(" ".join(names))  # relative to the text file's folder
        path = self.scratch / "dataset.txt"
        path.write_text("\n".join(lines))
        return str(path)

    def simulate(self, inputs: list[Float]) -> list[Float]:
        """Run the model built last, in the vendor's simulator: float16 for any chip."""
        given, back = self.scratch / "inputs.npz", self.scratch / "outputs.npz"
        np.savez(given, *inputs)
        self._ask("simulate", inputs=str(given), outputs=str(back))
        with np.load(back) as stored:
            return [stored[name] for name in stored.files]

    def _ask(self, call: str, **arguments: Any) -> dict[str, Any]:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None  # noqa: S101  both are pipes
        assert pipe_out is not None  # noqa: S101
        line = ""
        try:
            pipe_in.write(json.dumps({"call": call, **arguments}) + "\n")
            pipe_in.flush()
            line = pipe_out.readline()
        except BrokenPipeError:
            pass  # it has ended: no answer
        if not line:
            code = self._process.wait()
            raise DeviceError(
                f"the vendor's compiler ended during {call} (code {code}; -9 is a lack of memory); "
                f"see {self.log}"
            )
        answer: dict[str, Any] = json.loads(line)
        self.peak_bytes = answer.get("peak_rss", self.peak_bytes)
        if "error" in answer:
            raise DeviceError(f"the vendor's compiler: {call}: {answer['error']}; see {self.log}")
        return answer
