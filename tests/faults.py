"""Kill a batch at random moments, and see what is left. Also run by scripts/fault_suite.py.

As a program, `python faults.py IN OUT` is a batch of the recordings of `fake_speech`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

JOURNAL = ".whisper-npu"
Files = dict[str, bytes]


def outputs(folder: Path) -> Files:
    """All files of an output folder but the journal's, hidden leftovers included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and JOURNAL not in path.parts
    }


@dataclass
class Kills:
    """What was counted."""

    kills: int = 0
    batches: int = 0
    in_work: int = 0  # kills that hit recordings in work
    halves: int = 0  # files under their own names that were not whole
    differences: int = 0  # batches whose result was another in the end
    leftovers: int = 0  # files of the program that stayed behind


def kill_and_resume(
    start: Callable[[Path], subprocess.Popen[str]],
    out: Callable[[], Path],
    expected: Files,
    seconds: float,
    n_kills: int,
    rng: random.Random,
) -> Kills:
    """Start a batch, kill -9 it within so many seconds, and again, until it comes to its end."""
    counts = Kills()
    while counts.kills < n_kills:
        folder = out()
        counts.batches += 1
        while True:
            process = start(folder)
            patience = rng.uniform(0, seconds) if counts.kills < n_kills else None
            try:
                process.communicate(timeout=patience)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            counts.kills += 1
            parts = [path.name for path in (folder / JOURNAL).glob("*.jsonl")]
            counts.in_work += len(parts) > ("journal.jsonl" in parts)
            visible = {n: c for n, c in outputs(folder).items() if not n.startswith(".")}
            counts.halves += sum(expected.get(name) != content for name, content in visible.items())
        counts.differences += outputs(folder) != expected
        counts.leftovers += len(list((folder / JOURNAL).iterdir())) - 1
    return counts


def make_texts(folder: Path, n: int) -> Path:
    """Recordings for `fake_speech`: one to six windows each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        lines = (f"recording {i} window {j}\n" for j in range(1 + i % 6))
        (folder / f"r{i:02}.wav").write_text("".join(lines))
    return folder


def start_scripted(recordings: Path, out: Path) -> subprocess.Popen[str]:
    """This file as a process."""
    return subprocess.Popen(
        [sys.executable, __file__, str(recordings), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from fake_speech import Engine, transcribe

    slow = Engine(on_window=lambda _: time.sleep(0.02))
    inputs, out = [Path(sys.argv[1])], Path(sys.argv[2])
    _, batch = transcribe(inputs, out, engine=slow, n_workers=2, batch_size=2)
    sys.exit(batch.report.exit_code)
