"""Spoilt models of every format, by the hundred thousand: a ModelError each, or one that opens.

    python scripts/fuzz_models.py [--inputs 100000] [--seed 0]

Each input is one spoilt file of a small model. Batches of inputs run in processes of their own with
little memory and 5 s of the processor an input, so that a crash, a hang or a blow-up is seen and
counted.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_model import open_everything, spoil, write_all

from whisper_npu.errors import ModelError

PER_PROCESS = 2000
MEMORY = 4 << 30  # bytes of address space
HANG = 5.0  # seconds of the processor


def run(models: list[Path], seeds: range) -> Counter[str]:
    """Inputs in this process."""
    files = {model: sorted(model.iterdir()) if model.is_dir() else [model] for model in models}
    pristine = {path: path.read_bytes() for paths in files.values() for path in paths}
    counts: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        model = rng.choice(models)
        path = rng.choice(files[model])
        path.unlink()  # never written over while it is mapped
        path.write_bytes(spoil(pristine[path], path.name, rng))
        signal.setitimer(signal.ITIMER_PROF, HANG)  # kills this process
        try:
            open_everything(model)
            counts["opened"] += 1
        except ModelError:
            counts["refused"] += 1
        except BaseException:  # noqa: BLE001  what is being looked for
            counts["other errors"] += 1
            print(
                f"seed {seed}, {model.name} {path.name}:\n{traceback.format_exc()[-1500:]}",
                file=sys.stderr,
            )
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.unlink()
        path.write_bytes(pristine[path])
    return counts


def in_a_process(seeds: range) -> tuple[Counter[str], int, float]:
    """Counts, the signal that ended the process (0: none), and its peak memory in MB."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        with tempfile.TemporaryDirectory() as folder:
            counts = run(write_all(Path(folder)), seeds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        os.write(writer, repr((dict(counts), peak)).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    if os.WIFSIGNALED(status) or not text:
        return Counter(), os.WTERMSIG(status) or -1, 0.0
    counts, peak = eval(text)  # noqa: S307  what our own child wrote
    return Counter(counts), 0, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    most = 0.0
    started = time.monotonic()
    last = arguments.seed + arguments.inputs
    for first in range(arguments.seed, last, PER_PROCESS):
        seeds = range(first, min(first + PER_PROCESS, last))
        counts, number, peak = in_a_process(seeds)
        total += counts
        most = max(most, peak)
        if number:
            name = "hang" if number == signal.SIGPROF else f"crash by signal {number}"
            ends[name] += 1
            print(f"{name} in seeds {seeds}", file=sys.stderr)
    seconds = time.monotonic() - started
    n_inputs = sum(total[key] for key in ("opened", "refused", "other errors"))
    print(f"{n_inputs} inputs in {seconds:.0f} s: {dict(total)}", end="; ")
    print(f"crashes and hangs: {dict(ends)}; peak {most:.0f} MB")
    sys.exit(bool(ends or total["other errors"]))


if __name__ == "__main__":
    main()
