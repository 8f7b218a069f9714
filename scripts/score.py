#!/usr/bin/env python3
"""How many words are wrong, how fast, in how much memory: ours, and other programs. Markdown, JSON.

    scripts/score ../shared/data/real_speech base=FOLDER tiny.en=FOLDER --work WORK
    scripts/score ... --faster-whisper PYTHON --whisper-cpp PYTHON --llamafile PYTHON
    scripts/score ... --again 'cpu int8'     after a change; the others are not run again
    scripts/score ... --write docs/accuracy.md

The folder of recordings has a manifest.jsonl with file, lang, kind, seconds and text. WORK keeps
what was heard, and goes on where it was interrupted. PYTHON is an interpreter with that program
(the last: pywhispercpp built with GGML_LLAMAFILE=ON, which stock builds leave off); their model
formats are made here. The emulated NPU takes its time: it hears every n-th recording of each kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from whisper_npu.comparison.accuracy import Errors, difference  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OURS = {  # name -> device, chip that is emulated
    "cpu f32": ("cpu-f32", None),
    "cpu f16": ("cpu-f16", None),
    "cpu int8": ("cpu-int8", None),
    "npu fp16, rk3588": ("npu-fp16", "rk3588"),
    "npu int8, rk3588": ("npu-int8", "rk3588"),
    "npu int8, rk3566": ("npu-int8", "rk3566"),
}
EXACT = "cpu f32"


@dataclass(frozen=True)
class Recording:
    """A row of the manifest."""

    file: str
    lang: str
    kind: str
    seconds: float
    text: str


@dataclass(frozen=True)
class Entrant:
    """A program with its settings, and the format that it reads."""

    name: str
    program: str  # in programs.py
    settings: dict[str, Any]
    python: str = sys.executable
    format: str = ""  # file name for peer_formats.py; empty: the folder itself

    @property
    def emulated(self) -> bool:
        return bool(self.settings.get("emulate"))

    @property
    def journal(self) -> str:
        """File of what it heard."""
        return f"{self.name.replace(',', '').replace(' ', '-')}.jsonl"


@dataclass
class Scores:
    """What the entrants heard in the recordings with one model."""

    model: str
    recordings: list[Recording]
    heard: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # entrant, file

    def of(self, entrant: str) -> list[Recording]:
        """The recordings that an entrant heard."""
        return [
            r
            for r in self.recordings
            if all(r.file in self.heard[name] for name in (entrant, EXACT))
        ]

    def text(self, entrant: str, recording: Recording) -> str:
        text: str = self.heard[entrant][recording.file]["text"]
        return text

    def wrong(self, entrant: str, recordings: Iterable[Recording]) -> Errors:
        """Errors against what was said."""
        return sum(
            (_difference(r.text, self.text(entrant, r), r.lang).words for r in recordings),
            Errors(),
        )

    def differing(self, entrant: str) -> Errors:
        """Errors against what float32 heard."""
        return sum(
            (
                _difference(self.text(EXACT, r), self.text(entrant, r), r.lang).words
                for r in self.of(entrant)
            ),
            Errors(),
        )

    def record(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            "model": self.model,
            "entrants": {
                name: {
                    "wrong": self.wrong(name, self.of(name)).record(),
                    "differing": self.differing(name).record(),
                    "seconds": self._sum(name, "seconds"),
                    "processor": self._sum(name, "processor"),
                    "audio": sum(r.seconds for r in self.of(name)),
                    "peak": max(row["peak"] for row in rows.values()),
                    "texts": {file: row["text"] for file, row in rows.items()},
                }
                for name, rows in self.heard.items()
            },
        }

    def _sum(self, entrant: str, what: str) -> float:
        return sum(row[what] for row in self.heard[entrant].values())


@cache
def _difference(reference: str, hypothesis: str, language: str) -> Any:
    return difference(reference, hypothesis, language)


# running


def entrants(options: argparse.Namespace, language: str) -> list[Entrant]:
    """Everyone who takes part."""
    common = {"beams": options.beams, "threads": options.threads}
    found = [
        Entrant(name, "ours", {**common, "device": device, "emulate": chip})
        for name, (device, chip) in OURS.items()
    ]
    if options.faster_whisper:
        for name, more in (("", {}), (", batches of 8", {"batch": 8})):
            settings = {**common, "compute_type": "int8", **more}
            found.append(
                Entrant(
                    f"faster-whisper int8{name}", "faster-whisper", settings,
                    options.faster_whisper, "ctranslate2",
                )
            )  # fmt: skip
    for name, python in (
        ("whisper.cpp q8_0, stock", options.whisper_cpp),
        ("whisper.cpp q8_0, llamafile", options.llamafile),
    ):
        if python:
            settings = {**common, "language": language}
            found.append(Entrant(name, "whisper.cpp", settings, python, "q8_0.bin"))
    return found


def heard(journal: Path) -> dict[str, dict[str, Any]]:
    """File -> what an entrant has heard in it so far."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
    return dict(map(json.loads, lines))


def run(entrant: Entrant, folder: Path, work: Path, paths: list[Path]) -> None:
    """Let an entrant hear the recordings; what it has heard before is not heard again."""
    done = heard(work / entrant.journal)
    left = [path for path in paths if path.name not in done]
    if not left:
        return
    model = folder if not entrant.format else _format(folder, work / entrant.format)
    command = [
        entrant.python, str(ROOT / "scripts/programs.py"), entrant.program, str(model),
        json.dumps(entrant.settings),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with (
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process,
        (work / entrant.journal).open("a", encoding="utf-8") as file,
    ):
        for path in left:
            print(json.dumps([path.name, _ask(process, path)]), file=file, flush=True)
            print(f"{folder.name}, {entrant.name}: {path.name}", file=sys.stderr, flush=True)
        assert process.stdin is not None  # noqa: S101  a pipe
        process.stdin.close()


def _ask(process: subprocess.Popen[str], path: Path) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  pipes
    print(path, file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"{process.args} ended over {path}")
    row: dict[str, Any] = json.loads(answer)
    return row


def _format(folder: Path, path: Path) -> Path:
    """The model in another program's format, made once."""
    if not path.exists():
        maker = [sys.executable, str(ROOT / "scripts/peer_formats.py"), str(folder), str(path)]
        subprocess.run(maker, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return path


# tables


def summary(scores: Scores) -> str:
    """One row an entrant."""
    columns = (
        scores.model, "recordings", "words wrong", "f32 there", "words that differ from f32",
        "times real time", "processor s per minute", "peak MB",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in scores.heard:
        of = scores.of(name)
        seconds, rows = sum(r.seconds for r in of), scores.heard[name].values()
        emulated = name.startswith("npu")
        spent = sum(row["processor"] for row in rows) * 60 / seconds
        speed = seconds / sum(row["seconds"] for row in rows)
        peak = max(row["peak"] for row in rows) / 1e6
        cells = [
            f"{name} (emulated)" if emulated else name,
            f"{len(of)}",
            percent(scores.wrong(name, of)),
            percent(scores.wrong(EXACT, of)),
            "" if name == EXACT else percent(scores.differing(name)),
            *(("", "", "") if emulated else (f"{speed:.1f}", f"{spent:.1f}", f"{peak:.0f}")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def by(scores: Scores, what: str, key: Callable[[Recording], str]) -> str:
    """Words wrong: one row for each value of a key; blank where not all that float32 heard was."""
    names = [name for name in scores.heard if not name.startswith("npu")]
    lines = [f"| {scores.model}: {what} | words | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for value in dict.fromkeys(map(key, scores.recordings)):
        chosen = {name: [r for r in scores.of(name) if key(r) == value] for name in names}
        exact = chosen[EXACT]
        cells = [
            percent(scores.wrong(name, exact)) if chosen[name] == exact else "" for name in names
        ]
        if exact:
            lines.append(f"| {value} | {said(scores.wrong(EXACT, exact))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(scores: Scores) -> str:
    """Every word of int8 and of the NPU that is another one than float32's."""
    lines = [f"| {scores.model} | recording | f32 | instead |", "|---|---|---|---|"]
    for name in scores.heard:
        if name not in OURS or name == EXACT:
            continue
        for r in scores.of(name):
            found = _difference(scores.text(EXACT, r), scores.text(name, r), r.lang).chunks
            other = [chunk for chunk in found if not chunk.same]
            if other:
                theirs = "; ".join(chunk.reference or "-" for chunk in other)
                ours = "; ".join(chunk.hypothesis or "-" for chunk in other)
                lines.append(f"| {name} | {Path(r.file).stem} | {theirs} | {ours} |")
    return "\n".join(lines)


def said(errors: Errors) -> int:
    """Words of the reference."""
    return errors.hits + errors.substitutions + errors.deletions


def percent(errors: Errors) -> str:
    """Errors per word."""
    return f"{100 * errors.rate:.1f} %"


def page(all_scores: list[Scores]) -> str:
    """All tables."""
    parts = []
    for scores in all_scores:
        parts.append(summary(scores))
        parts.append(by(scores, "kind", lambda r: r.kind))
        if len({r.lang for r in scores.recordings}) > 1:
            parts.append(by(scores, "language", lambda r: r.lang))
        parts.append(differences(scores))
    return "\n\n".join(parts)


def write(path: Path, text: str) -> None:
    """Put the tables between the marks of a page."""
    begin, end = "<!-- score: begin -->", "<!-- score: end -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{path} has no {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


# command line


def recordings(folder: Path, model: str, n: int) -> list[Recording]:
    """The manifest, every n-th recording of each kind; English alone for a model of English."""
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    keys = ("file", "lang", "kind", "seconds", "text")
    rows = [Recording(*map(json.loads(line).get, keys)) for line in lines]
    english = model.endswith(".en")
    return thinned([row for row in rows if row.lang == "en" or not english], n)


def thinned(rows: list[Recording], n: int) -> list[Recording]:
    """Every n-th recording of each kind, the first one included."""
    chosen, seen = [], dict.fromkeys((row.kind for row in rows), 0)
    for row in rows:
        if seen[row.kind] % n == 0:
            chosen.append(row)
        seen[row.kind] += 1
    return chosen


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--work", type=Path, required=True)
    for name in ("--faster-whisper", "--whisper-cpp", "--llamafile"):
        parser.add_argument(name, metavar="PYTHON")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="run no others")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="forget and run")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="hear every n-th recording")
    parser.add_argument("--emulated-every", type=int, default=8)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    return parser.parse_args()


def main() -> None:
    """Command line."""
    options = parse()
    all_scores = []
    for model in options.models:
        name, _, folder = model.partition("=")
        work = options.work / name
        work.mkdir(parents=True, exist_ok=True)
        chosen = recordings(options.folder, name, options.every)
        few = thinned(chosen, options.emulated_every)
        scores = Scores(name, recordings(options.folder, name, 1))
        for entrant in entrants(options, "en" if name.endswith(".en") else "auto"):
            if entrant.name in options.again:
                (work / entrant.journal).unlink(missing_ok=True)
            if not options.only or entrant.name in options.only:
                paths = [options.folder / r.file for r in (few if entrant.emulated else chosen)]
                run(entrant, Path(folder), work, paths)
            if found := heard(work / entrant.journal):
                scores.heard[entrant.name] = found
        (work / "score.json").write_text(json.dumps(scores.record(), indent=1), encoding="utf-8")
        all_scores.append(scores)
    text = page(all_scores)
    print(text)
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
