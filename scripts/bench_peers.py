#!/usr/bin/env python3
"""How fast are we beside faster-whisper, openai-whisper and whisper.cpp? A Markdown table.

    scripts/bench_peers.py WORK [--sizes tiny,base,small] [--ours PYTHON] [--whisper-cpp PYTHON]

WORK keeps random checkpoints in everyone's format (the time of a layer does not depend on what its
weights say) and the results. Every program runs in a process of its own on the same cores, and they
take turns within a round, so that what else the machine does falls on all of them; ratios are taken
within a round. PYTHON is an interpreter with pywhispercpp, best built for this machine; without it
whisper.cpp is left out; that of --ours has our dependencies alone. Needs openai-whisper,
faster-whisper and g++.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
FEW, MANY = 8, 40  # tokens: a token's time is from the difference
CLIP, CLIP_TOKENS = 11, 28  # seconds; tokens in it
HOUR_TOKENS = 76  # in each window of 30 s: as many a second
OURS, BASELINE = "ours", "faster-whisper int8"
PAUSE = 0.5  # seconds: the threads of who was measured before have stopped to wait by then


@dataclass(frozen=True)
class Entrant:
    """A program with a model in its format."""

    name: str  # as printed
    peer: str  # in peers.py
    model: Path
    python: str = sys.executable


@dataclass
class Results:
    """Samples by entrant and measure, one for each round."""

    size: str
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    limits: list[dict[str, float]] = field(default_factory=list)  # of the machine, in each round

    def add(self, entrant: str, measure: str, value: float) -> None:
        self.samples.setdefault(entrant, {}).setdefault(measure, []).append(value)
        print(f"{self.size} {entrant}: {measure} {value:.4g}", file=sys.stderr, flush=True)

    def of(self, entrant: str, measure: str) -> list[float]:
        return self.samples.get(entrant, {}).get(measure, [])


def entrants(size: str, work: Path, ours: str, whisper_cpp: str | None) -> list[Entrant]:
    """Everyone who takes part; models that are not there are made."""
    # in processes of their own: a child's peak memory begins with its parent's
    folder = work / size / "huggingface"
    if not (folder / "tokenizer.json").exists():
        _python(str(ROOT / "scripts/random_checkpoint.py"), size, str(folder))
    found = [
        Entrant(OURS, "ours", folder, ours),
        Entrant(BASELINE, "faster-whisper", work / size / "ctranslate2"),
        Entrant("openai-whisper f32", "openai-whisper", work / size / "openai.pt"),
    ]
    if whisper_cpp:
        found += [
            Entrant(f"whisper.cpp {kind}", "whisper.cpp", work / size / f"{kind}.bin", whisper_cpp)
            for kind in ("f16", "q8_0", "q5_1")
        ]
    for entrant in found:
        if not entrant.model.exists():
            _python(str(ROOT / "scripts/peer_formats.py"), str(folder), str(entrant.model))
    return found


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, env=_environment())


def _environment() -> dict[str, str]:
    # bytecode is kept, as that of installed programs is
    ours = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "HF_HUB_OFFLINE": "1"}
    return os.environ | ours


class Worker:
    """An entrant's process that answers requests of peers.py."""

    def __init__(self, entrant: Entrant, threads: int) -> None:
        self.name = entrant.name
        self.peer = entrant.peer
        script = str(ROOT / "scripts/peers.py")
        command = [entrant.python, script, "serve", entrant.peer, str(entrant.model), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=_environment(),
        )  # fmt: skip

    def seconds(self, *request: Any) -> float:
        """The time that a request took."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise SystemExit(f"{self.name} has no pipes")
        print(json.dumps(request), file=stdin, flush=True)
        answer = stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended while it was measured: {request}")
        seconds, n_tokens = json.loads(answer)
        if request[1:] and n_tokens != request[1]:
            raise SystemExit(f"{self.name} decoded {n_tokens} tokens: {request}")
        return seconds

    def token(self, request: str, beams: int) -> float:
        """Seconds for one more token of all beams: median of three."""
        return median(
            (self.seconds(request, MANY, beams) - self.seconds(request, FEW, beams)) / (MANY - FEW)
            for _ in range(3)
        )

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()


def parts(results: Results, found: list[Entrant], threads: int, rounds: int) -> None:
    """Encoder and decoder, in turns, once without being measured."""
    workers = [Worker(entrant, threads) for entrant in found]
    try:
        for worker in workers:
            worker.seconds("encode")
            worker.token("decode", 5)
        for _ in range(rounds):
            for worker in workers:
                time.sleep(PAUSE)
                results.add(worker.name, "encoder", worker.seconds("encode"))
                results.add(worker.name, "token", worker.token("decode", 1))
                results.add(worker.name, "token, beam 5", worker.token("decode", 5))
                if worker.peer == "ours":
                    results.add(worker.name, "step", worker.token("steps", 1))
                    results.add(worker.name, "step, 5 rows", worker.token("steps", 5))
                    results.limits.append(limits(threads))
    finally:
        for worker in workers:
            worker.close()


def whole(results: Results, found: list[Entrant], threads: int, rounds: int, measure: str) -> None:
    """A process from its start to its end: time, and peak of resident memory."""
    seconds, tokens = (CLIP, CLIP_TOKENS) if measure == "clip" else (3600, HOUR_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.wav"
        _write_noise(clip, seconds)
        for _ in range(rounds):
            for entrant in found:
                spent, memory = _run(_command(entrant, threads, clip, tokens))
                results.add(entrant.name, measure, spent)
                results.add(entrant.name, f"{measure}, MB", memory)


def _command(entrant: Entrant, threads: int, clip: Path, tokens: int) -> list[str]:
    if entrant.peer == "ours":
        options = (
            f"-m {entrant.model} --device cpu --threads {threads} --language en "
            f"--sample-len {tokens} --temperature-increment-on-fallback none "
            "--without-timestamps --no-condition-on-previous-text --no-speech-threshold none"
        )
        command = [entrant.python, "-m", "whisper_npu", "transcribe", str(clip)]
        return [*command, *options.split()]
    script = str(ROOT / "scripts/peers.py")
    arguments = [entrant.peer, str(entrant.model), str(threads), str(clip), str(tokens)]
    return [entrant.python, script, "once", *arguments]


def _run(command: list[str]) -> tuple[float, float]:
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment()
    )
    message = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {message.decode()[-2000:]}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1000


def _write_noise(path: Path, seconds: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        second = bytes(byte % 16 if i % 2 else byte for i, byte in enumerate(os.urandom(32000)))
        for _ in range(seconds):
            file.writeframes(second)


def limits(threads: int) -> dict[str, float]:
    """GOP/s of the int8 and 16-bit products and GB/s of reading, now: `limits.cpp`."""
    command = [_limits_program(), str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout)
    return found


@cache
def _limits_program() -> str:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    isa = "neon" if " asimddp " in flags else "avx512" if "avx512_bf16" in flags else "avx2"
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    program = f"{folder}/limits"
    subprocess.run(
        ["g++", "-O3", "-std=c++17", "-march=native", "-pthread", f"-DISA={isa}",
         f"-DISA_{isa.upper()}", f"-I{ROOT}/whisper_npu/kernels",
         str(ROOT / "scripts/limits.cpp"), "-o", program],
        check=True,
    )  # fmt: skip
    return program


MEASURES = {  # heading, unit, factor
    "encoder": ("encoder", "ms", 1e3),
    "token": ("token", "ms", 1e3),
    "token, beam 5": ("token, 5 beams", "ms", 1e3),
    "clip": ("11 s clip", "s", 1),
    "clip, MB": ("its peak", "MB", 1),
    "hour": ("one hour", "s", 1),
    "hour, MB": ("its peak", "MB", 1),
}


def table(results: Results) -> str:
    """Medians, and in brackets how many times as much as ours: median and range over rounds."""
    shown = [m for m in MEASURES if results.of(OURS, m)]
    headings = [f"{MEASURES[measure][0]}, {MEASURES[measure][1]}" for measure in shown]
    lines = [
        " | ".join([f"| {results.size}", *headings, ""]).rstrip(),
        "|---" * (len(shown) + 1) + "|",
    ]
    for entrant in results.samples:
        cells = [_cell(results, entrant, measure) for measure in shown]
        lines.append(" | ".join([f"| {entrant}", *cells, ""]).rstrip())
    return "\n".join(lines)


def _cell(results: Results, entrant: str, measure: str) -> str:
    values, ours = results.of(entrant, measure), results.of(OURS, measure)
    if not values:
        return ""
    value = median(values) * MEASURES[measure][2]
    text = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    if entrant == OURS:
        return f"**{text}**"
    ratios = [theirs / own for theirs, own in zip(values, ours, strict=False)]
    return f"{text} ({median(ratios):.2g}x; {min(ratios):.2g} to {max(ratios):.2g})"


def achieved(results: Results) -> str:
    """Our encoder and decoder step against what the machine could do in the same round."""
    from random_checkpoint import SIZES

    from whisper_npu.bench import decoder_weights, encoder_operations

    dims = SIZES[results.size]
    n, d = dims.n_audio_ctx, dims.n_audio_state
    attention = 4 * n * n * d * dims.n_audio_layer
    stem = 2 * (2 * n * 3 * dims.n_mels * d + n * 3 * d * d)
    linear = encoder_operations(dims) - attention - stem
    read = decoder_weights(dims) + dims.n_text_layer * 2 * n * d  # keys and values of one byte
    encoder, step = results.of(OURS, "encoder"), results.of(OURS, "step")
    # attention and the stem are products of 16-bit numbers, the rest of int8
    arithmetic = median(
        (linear / limit["int8"] + (attention + stem) / limit["f16"]) / 1e9 / seconds
        for limit, seconds in zip(results.limits, encoder, strict=True)
    )
    memory = median(
        read / limit["read"] / 1e9 / seconds
        for limit, seconds in zip(results.limits, step, strict=True)
    )
    rows = median(
        five / one for five, one in zip(results.of(OURS, "step, 5 rows"), step, strict=True)
    )
    return (
        f"| {results.size} | {encoder_operations(dims) / median(encoder) / 1e9:.0f} GOP/s "
        f"| {100 * arithmetic:.0f} % | {1e3 * median(step):.2f} ms "
        f"| {read / median(step) / 1e9:.1f} GB/s | {100 * memory:.0f} % | {rows:.2f} |"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", default="tiny,base,small")
    parser.add_argument("--whisper-cpp", metavar="PYTHON")
    parser.add_argument("--ours", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--measure", default="parts,clip", help="of parts, clip and hour (one round)"
    )
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["WHISPER_NPU_CACHE"] = str(options.work / "cache")
    sys.path.insert(0, str(ROOT))
    everything = []
    for size in options.sizes.split(","):
        results = Results(size)
        found = entrants(size, options.work, options.ours, options.whisper_cpp)
        if "parts" in options.measure:
            parts(results, found, options.threads, options.rounds)
        if "clip" in options.measure:
            whole(results, found, options.threads, options.rounds, "clip")
        if "hour" in options.measure:
            whole(results, found, options.threads, 1, "hour")
        everything.append(results)
        (options.work / f"{size}.json").write_text(json.dumps(results.samples, indent=1))
    print("\n\n".join(map(table, everything)))
    if "parts" in options.measure:
        print("\n| | encoder with K/V | of the arithmetic peak | decoder step | reads "
              "| of what memory gives | 5 rows / 1 row |")  # fmt: skip
        print("|---" * 7 + "|")
        print("\n".join(map(achieved, everything)))


if __name__ == "__main__":
    main()
