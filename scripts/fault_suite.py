"""What a batch survives: kills, full and read-only disks, meddling, company, damage, crowds.

    python scripts/fault_suite.py MODEL [--only kill,disk,...] [--kills 50]

Runs the real command as a process, on recordings made here. Prints one row of a table per fault;
exit code 1 when anything was lost. Mounting the small disks needs root. The model may be any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from faults import JOURNAL, kill_and_resume, make_texts, outputs, start_scripted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUICK = ["--temperature-increment-on-fallback", "none", "--sample-len", "6", "--language", "en"]
QUICK += ["--without-timestamps", "--device", "cpu", "-f", "txt,json"]


class Suite:
    """A model, a place to work, and what went wrong."""

    def __init__(self, model: Path, place: Path, kills: int, real_kills: int) -> None:
        self.model = model
        self.place = place
        self.kills = kills
        self.real_kills = real_kills
        self.random = random.Random(1)
        self.n_lost = 0
        os.environ["WHISPER_NPU_CACHE"] = str(place / "cache")
        os.environ["XDG_CONFIG_HOME"] = str(place / "config")

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "whisper_npu", "transcribe", "-m", str(self.model)]
        return subprocess.Popen(
            [*command, *QUICK, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )

    def run(self, *arguments: object) -> tuple[int, str]:
        process = self.start(*arguments)
        _, talk = process.communicate()
        if "Traceback" in talk:
            print(talk, file=sys.stderr)
            self.n_lost += 1
        return process.returncode, talk

    def fresh(self, name: str) -> Path:
        folder = self.place / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def check(self, fault: str, told: str, *, good: bool) -> None:
        print(f"| {fault} | {told} | {'ok' if good else 'LOST'} |", flush=True)
        self.n_lost += not good


def journal(folder: Path) -> list[dict[str, object]]:
    lines = (folder / JOURNAL / "journal.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "recording" in record]


def make_recordings(folder: Path, n: int, seconds: tuple[float, float] = (0.5, 70)) -> Path:
    """Noise that comes and goes; every sixth recording has several windows."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        length = seconds[1] if i % 6 == 5 else rng.uniform(seconds[0], min(2.0, seconds[1]))
        samples = rng.standard_normal(int(length * 16000)) * np.sin(
            np.arange(int(length * 16000)) / 3e4
        )
        soundfile.write(folder / f"r{i:05}.wav", 0.2 * samples, 16000)
    return folder


def kill(suite: Suite) -> None:
    """Kill -9 at random moments of a 40-file batch, then resume."""
    texts = make_texts(suite.place / "texts", 40)
    kill_one(suite, "a scripted model", lambda out: start_scripted(texts, out), suite.kills)
    recordings = make_recordings(suite.place / "forty", 40)
    kill_one(suite, "the command", lambda out: suite.start(recordings, "-o", out), suite.real_kills)


def kill_one(
    suite: Suite, what: str, start: Callable[[Path], subprocess.Popen[str]], n_kills: int
) -> None:
    started = time.monotonic()
    start(suite.fresh("whole")).communicate()
    seconds = time.monotonic() - started
    expected = outputs(suite.place / "whole")
    counts = kill_and_resume(
        start, lambda: suite.fresh("killed"), expected, seconds, n_kills, suite.random
    )
    told = (
        f"{counts.kills} kills, {counts.in_work} of them with recordings in work, over "
        f"{counts.batches} batches of {len(expected) // 2} recordings ({seconds:.0f} s "
        f"uninterrupted): {counts.halves} half files, {counts.differences} different results, "
        f"{counts.leftovers} leftovers"
    )
    good = not counts.halves + counts.differences + counts.leftovers
    suite.check(f"kill -9, then resume: {what}", told, good=good and len(expected) == 80)


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk(suite: Suite) -> None:
    """A disk that fills up, and one that cannot be written."""
    recordings = make_recordings(suite.place / "twelve", 12)
    whole = suite.fresh("whole12")
    suite.run(recordings, "-o", whole)
    expected = outputs(whole)
    with small_disk(suite.place / "small", "size=96k") as small:
        ballast = small / "ballast"
        ballast.write_bytes(bytes(40 << 10))
        code, talk = suite.run(recordings, "-o", small)
        found = outputs(small)
        found.pop("ballast", None)
        halves = [name for name, content in found.items() if content != expected.get(name)]
        told = f"exit {code}, {len(found)} of {len(expected)} files, {len(halves)} of them half"
        suite.check(
            "disk full",
            told,
            good=code == 8 and not halves and "no space is left on the disk at" in talk,
        )
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        code, _ = suite.run(recordings, "-o", small)
        same = outputs(small) == expected
        suite.check(
            "the same, after making room", f"exit {code}, equal: {same}", good=same and not code
        )
    with small_disk(suite.place / "sealed", "size=1m,ro") as sealed:
        started = time.monotonic()
        code, talk = suite.run(recordings, "-o", sealed)
        lines = len(talk.splitlines())
        told = f"exit {code} after {time.monotonic() - started:.1f} s, {lines} line(s)"
        suite.check("read-only output", told, good=code == 8 and "is read-only" in talk)


def meddle(suite: Suite) -> None:
    """Inputs deleted, growing and replaced while the batch runs."""
    recordings = make_recordings(suite.place / "meddled", 24)
    spare = make_recordings(suite.place / "spare", 30)
    before, after = suite.fresh("before"), suite.fresh("after")
    suite.run(recordings, "-o", before)
    out = suite.fresh("meddled-out")
    process = suite.start(recordings, "-o", out)
    names = sorted(path.name for path in recordings.iterdir())
    done: Counter[str] = Counter()
    while process.poll() is None:
        time.sleep(suite.random.uniform(0.05, 0.3))
        path = recordings / suite.random.choice(names)
        what = suite.random.choice(["deleted", "grown", "replaced"])
        if what == "deleted":
            path.unlink(missing_ok=True)
        elif what == "grown" and path.exists():
            with path.open("ab") as file:
                file.write(bytes(32000))
        else:
            what = "replaced"
            new = recordings / ".new"
            shutil.copy(spare / suite.random.choice(names), new)
            new.replace(path)
        done[what] += 1
    _, talk = process.communicate()
    first = process.returncode
    code, _ = suite.run(recordings, "-o", out, "--retry-failed")
    suite.run(recordings, "-o", after)
    wanted = outputs(after)
    got = outputs(out)
    same = all(got.get(name) == content for name, content in wanted.items())
    told = ", ".join(f"{n} {what}" for what, n in sorted(done.items()))
    told += f" during the run: exit {first}, no traceback; a second run equals a fresh one: {same}"
    good = same and code == 0 and first in (0, 3, 4) and "Traceback" not in talk
    suite.check("inputs deleted, growing, replaced", told, good=good)


def company(suite: Suite) -> None:
    """Two processes on one output folder."""
    recordings = make_recordings(suite.place / "twelve", 12)
    whole = suite.fresh("whole12")
    suite.run(recordings, "-o", whole)
    out = suite.fresh("shared")
    both = [suite.start(recordings, "-o", out) for _ in range(2)]
    for process in both:
        process.communicate()
    times = Counter(str(record["recording"]) for record in journal(out))
    same = outputs(out) == outputs(whole)
    told = f"{len(times)} recordings, each done {sorted(set(times.values()))} times, equal: {same}"
    suite.check("2 processes, one folder", told, good=same and set(times.values()) == {1})


def damage(suite: Suite) -> None:
    """Damage to everything this program keeps for itself."""
    recordings = make_recordings(suite.place / "twelve", 12)
    whole = suite.fresh("whole12")
    suite.run(recordings, "-o", whole)
    expected = outputs(whole)
    cache = [path for path in (suite.place / "cache").rglob("*") if path.is_file()]
    wrong = 0
    for how in ("flipped", "truncated", "emptied"):
        for path in cache:
            if path.exists():
                spoil(path, how, suite.random)
        out = suite.fresh("damaged")
        code, _ = suite.run(recordings, "-o", out)
        wrong += code not in (0, 5) or (code == 0 and outputs(out) != expected)
    told = f"{len(cache)} cache files flipped, truncated, emptied: {wrong} wrong results"
    suite.check("damaged cache", told, good=not wrong)
    wrong = 0
    for how in ("flipped", "truncated", "emptied") * 3:
        spoil(out / JOURNAL / "journal.jsonl", how, suite.random)
        code, _ = suite.run(recordings, "-o", out)
        wrong += code != 0 or outputs(out) != expected
    suite.check("damaged journal", f"9 times: {wrong} wrong results", good=not wrong)


def spoil(path: Path, how: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "emptied":
        content.clear()
    else:
        for _ in range(min(len(content), 20)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def crowd(suite: Suite) -> None:
    """10,000 recordings in a folder."""
    folder = suite.place / "crowd"
    if not folder.exists():
        one = make_recordings(suite.place / "one", 1, (0.5, 0.5)) / "r00000.wav"
        folder.mkdir()
        content = one.read_bytes()
        for i in range(10_000):  # each its own content: the last samples tell them apart
            (folder / f"r{i:05}.wav").write_bytes(content[:-4] + i.to_bytes(4, "little"))
    out = suite.fresh("crowd-out")
    for told, n in (("1 recording", 1), ("10,000 recordings", 10_000)):
        out = suite.fresh("crowd-out")
        inputs = [folder] if n > 1 else [folder / "r00000.wav"]
        started = time.monotonic()
        process = suite.start(*inputs, "-o", out)
        while process.poll() is None and not list(out.glob("*.txt")):
            time.sleep(0.02)
        first = time.monotonic() - started
        status = Path(f"/proc/{process.pid}/status")
        memory = re.search(r"RssAnon:\s*(\d+)", status.read_text()) if status.exists() else None
        process.send_signal(signal.SIGTERM)
        process.communicate()
        kilobytes = int(memory[1]) if memory else 0
        suite.check(
            f"{told}: start",
            f"first transcript after {first:.1f} s, {kilobytes / 1000:.0f} MB of its own",
            good=True,
        )
    write_journal(out, folder)
    started = time.monotonic()
    code, talk = suite.run(folder, "-o", out)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    took = time.monotonic() - started
    told = f"exit {code} in {took:.1f} s, no process so far above {usage:.0f} MB"
    suite.check("10,000 recordings, all done before", told, good="10000 skipped" in talk)


def write_journal(out: Path, folder: Path) -> None:
    """As if all of a folder had been done: copies of the entry of one that was."""
    path = out / JOURNAL / "journal.jsonl"
    entry = journal(out)[0]
    with path.open("a") as file:
        for recording in folder.iterdir():
            status = recording.stat()
            names = [f"{recording.stem}.txt", f"{recording.stem}.json"]
            more = {"recording": recording.stem, "size": status.st_size, "outputs": names}
            file.write(json.dumps({**entry, **more, "mtime_ns": status.st_mtime_ns}) + "\n")
            for name in names:
                (out / name).touch()


def names(suite: Suite) -> None:
    """Names with newlines, emoji, bytes that are no text, and the longest there are."""
    source = make_recordings(suite.place / "one", 1, (0.5, 0.5)) / "r00000.wav"
    folder = suite.fresh("named")
    folder.mkdir()
    odd = [
        b"new\nline",
        "talk \U0001f3a4".encode(),
        b"not \xff\xfe utf8",
        b"-f",
        b"*",
        b"[a]",
        b"$(id)",
        b"x" * 246,
        b"\xe2\x80\xaertl",
        b" ",
    ]
    for name in odd:
        shutil.copy(source, os.fsencode(folder) + b"/" + name + b".wav")
    out = suite.fresh("named-out")
    code, talk = suite.run(folder, "-o", out, "--report", out / "report")
    made = {os.fsencode(path.name) for path in out.glob("*.txt")}
    report = json.loads((out / "report").read_text())
    good = (
        code == 0
        and made == {name + b".txt" for name in odd}
        and len(report["recordings"]) == len(odd)
    )
    code, talk = suite.run(folder, "-o", out)
    good = good and code == 0 and f"{len(odd)} skipped" in talk
    suite.check(
        "odd names", f"{len(made)} of {len(odd)} done, and recognised in a second run", good=good
    )


FAULTS: dict[str, Callable[[Suite], None]] = {
    "kill": kill,
    "disk": disk,
    "meddle": meddle,
    "company": company,
    "damage": damage,
    "crowd": crowd,
    "names": names,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", default=",".join(FAULTS))
    parser.add_argument("--kills", type=int, default=50, help="of a scripted model: quick")
    parser.add_argument("--real-kills", type=int, default=50, help="of the command")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        suite = Suite(
            arguments.model.absolute(), Path(place), arguments.kills, arguments.real_kills
        )
        print("| fault | what happened | |\n|---|---|---|")
        for fault in arguments.only.split(","):
            FAULTS[fault](suite)
    sys.exit(bool(suite.n_lost))


if __name__ == "__main__":
    main()
