"""A Whisper program over recordings, in a process of its own; for `score.py`.

    programs.py PROGRAM MODEL SETTINGS

SETTINGS is a JSON object; each line of stdin is the path of a recording, each line of stdout a JSON
object: its text, the seconds and the processor seconds that it took, and the most memory that the
process has had so far. A tool for development, never imported by the program.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol


class Program(Protocol):
    """One program with a model loaded."""

    def transcribe(self, recording: str) -> str:
        """What is said in a recording."""
        ...


class Ours:
    """This project; settings: device, emulate, beams, threads."""

    def __init__(self, model: str, settings: dict[str, Any]) -> None:
        from dataclasses import replace

        import whisper_npu
        from whisper_npu.options.device import DeviceOptions

        device = DeviceOptions.named(settings["device"], settings.get("emulate"))
        device = replace(device, threads=settings["threads"])
        self._model = whisper_npu.load_model(model, device=device)
        self._options = whisper_npu.TranscribeOptions(
            beam_size=settings["beams"], skip_silence=True
        )

    def transcribe(self, recording: str) -> str:
        return self._model.transcribe(recording, self._options).text


class FasterWhisper:
    """SYSTRAN/faster-whisper; settings: compute_type, beams, threads, batch."""

    def __init__(self, model: str, settings: dict[str, Any]) -> None:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        loaded = WhisperModel(
            model, device="cpu", compute_type=settings["compute_type"],
            cpu_threads=settings["threads"],
        )  # fmt: skip
        self._options = {"beam_size": settings["beams"]}
        self._model: Any = loaded
        if "batch" in settings:
            self._model = BatchedInferencePipeline(loaded)
            self._options["batch_size"] = settings["batch"]

    def transcribe(self, recording: str) -> str:
        segments, _ = self._model.transcribe(recording, **self._options)
        return "".join(segment.text for segment in segments)


class WhisperCpp:
    """ggml-org/whisper.cpp through pywhispercpp; settings: beams, threads, language."""

    def __init__(self, model: str, settings: dict[str, Any]) -> None:
        from pywhispercpp.model import Model

        self._model = Model(
            model,
            params_sampling_strategy=1,  # beams, as its command does
            beam_search={"beam_size": settings["beams"], "patience": -1.0},
            n_threads=settings["threads"],
            language=settings["language"],
            print_progress=False,
            redirect_whispercpp_logs_to=None,
        )

    def transcribe(self, recording: str) -> str:
        import soundfile

        samples, rate = soundfile.read(recording, dtype="float32")
        if rate != 16000 or samples.ndim > 1:
            raise SystemExit(f"{recording}: whisper.cpp takes one channel at 16 kHz")
        return "".join(segment.text for segment in self._model.transcribe(samples))


PROGRAMS: dict[str, Any] = {
    "ours": Ours,
    "faster-whisper": FasterWhisper,
    "whisper.cpp": WhisperCpp,
}


def peak_bytes() -> int:
    """The most memory this process has had, without what its parent had."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main() -> None:
    """Command line."""
    name, model, settings = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr
    program: Program = PROGRAMS[name](model, json.loads(settings))
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        text = program.transcribe(line.rstrip("\n"))
        row = {
            "text": text,
            "seconds": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
            "peak": peak_bytes(),
        }
        print(json.dumps(row), file=answers, flush=True)


if __name__ == "__main__":
    main()
