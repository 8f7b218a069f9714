#!/usr/bin/env python3
"""How late, how steady and how right are the words of a stream? A line of JSON for each recording.

    scripts/bench_live.py RECORDINGS... -m MODEL [--latency normal] [--manifest manifest.jsonl]

A recording is fed in pieces of 0.1 s on a virtual clock: a piece arrives when it has been spoken,
and its work takes the processor time that was measured, as if one core did all of it; so what else
the machine does matters little. The end of a word is where the offline transcript has it (word
times, greedy, whole windows). Needs whisper-normalizer and jiwer.

latency       seconds from the end of a word to its event, with the computation; `heard`: without
offline       words wrong of the offline transcript (greedy) against the manifest; live: of the
              final words; both in percent
taken_back    final words that are not in the segments any more
changed       tentative words shown that did not become final, for each final word
core          processor time over the length of the recording
"""

from __future__ import annotations

import argparse
import json
import time
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import whisper_npu
from whisper_npu.audio import open_audio
from whisper_npu.comparison.accuracy import difference
from whisper_npu.live.events import Final, SegmentDone, Tentative
from whisper_npu.options.live import StreamOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisper_npu.comparison.accuracy import Errors
    from whisper_npu.transcribe import Model
    from whisper_npu.transcript import Word

PIECE = 1600  # samples


def plain(text: str) -> str:
    """As words are matched: letters alone, in one case."""
    return "".join(c for c in text.casefold() if c.isalnum())


def live(model: Model, samples: Any, options: StreamOptions) -> dict[str, Any]:
    """Feed a recording on the virtual clock."""
    stream = model.stream(options)
    clock = spent = 0.0
    final: list[tuple[Word, float, float]] = []  # word, emission with and without computation
    shown: list[str] = []
    n_shown = n_kept = 0
    segments = []
    for i in [*range(0, len(samples), PIECE), None]:
        arrived = len(samples) / 16000 if i is None else min(i + PIECE, len(samples)) / 16000
        clock = max(clock, arrived)
        began = time.process_time()
        if i is None:
            events = stream.finish()
        else:
            events = stream.feed(samples[i : i + PIECE], behind=clock - arrived)
        took = time.process_time() - began
        spent += took
        clock += took
        for event in events:
            if isinstance(event, Final):
                final += [(word, clock, arrived) for word in event.words]
                words = [plain(word.text) for word in event.words if plain(word.text)]
                n_kept += sum(1 for a, b in zip(shown, words, strict=False) if a == b)
                shown = shown[len(words) :]
            elif isinstance(event, Tentative):
                words = [plain(word.text) for word in event.words if plain(word.text)]
                n_shown += max(0, len(words) - len(shown)) + sum(
                    1 for a, b in zip(shown, words, strict=False) if a != b
                )
                shown = words
            elif isinstance(event, SegmentDone):
                segments.append(event.segment.text)
    return {
        "final": final, "spent": spent, "segments": segments, "n_shown": n_shown, "n_kept": n_kept,
    }  # fmt: skip


def lateness(
    final: Sequence[tuple[Word, float, float]], offline: Sequence[Word]
) -> tuple[list[float], list[float]]:
    """Seconds from the ends of the words that both have to their events."""
    ours = [item for item in final if plain(item[0].text)]
    theirs = [word for word in offline if plain(word.text)]
    matcher = SequenceMatcher(
        None, [plain(w.text) for w, _, _ in ours], [plain(w.text) for w in theirs], autojunk=False
    )
    computed, heard = [], []
    for block in matcher.get_matching_blocks():
        for k in range(block.size):
            _, with_work, without = ours[block.a + k]
            end = theirs[block.b + k].end
            computed.append(with_work - end)
            heard.append(without - end)
    return computed, heard


def n_words(errors: Errors) -> int:
    """Of the reference."""
    return errors.hits + errors.substitutions + errors.deletions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--device", default="cpu-int8")
    parser.add_argument("--emulate")
    parser.add_argument("--latency", default="normal")
    parser.add_argument("--policy", default="auto")
    parser.add_argument("--language", default="en")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of offline transcripts, made once")
    asked = parser.parse_args()
    said = {}
    if asked.manifest:
        for row in map(json.loads, asked.manifest.read_text().splitlines()):
            said[row["file"]] = row["text"]
    options = StreamOptions(language=asked.language, latency=asked.latency, policy=asked.policy)
    device = whisper_npu.DeviceOptions.named(asked.device, asked.emulate)
    everything: list[float] = []
    rows = []
    with whisper_npu.load_model(asked.model, device=device) as model:
        for path in asked.recordings:
            with open_audio(path) as audio:
                samples = np.concatenate(list(audio.blocks))
            text, words = offline(model, samples, asked.language, path, asked.keep)
            found = live(model, samples, options)
            computed, heard = lateness(found["final"], words)
            everything += computed
            ours = "".join(word.text for word, _, _ in found["final"])
            row = {
                "file": path.name,
                "seconds": round(len(samples) / 16000, 1),
                "latency": round(float(np.mean(computed)), 2),
                "latency_95": round(float(np.quantile(computed, 0.95)), 2),
                "heard": round(float(np.mean(heard)), 2),
                "heard_95": round(float(np.quantile(heard, 0.95)), 2),
                "matched": len(computed),
                "n": len([1 for w, _, _ in found["final"] if plain(w.text)]),
                "taken_back": plain(ours) != plain("".join(found["segments"])),
                "changed": round(1 - found["n_kept"] / max(1, found["n_shown"]), 3),
                "core": round(found["spent"] / (len(samples) / 16000), 3),
                "apart": round(100 * difference(text, ours, asked.language).words.rate, 1),
            }
            if path.name in said:
                for name, one in (("offline", text), ("live", ours)):
                    compared = difference(said[path.name], one, asked.language).words
                    row[name] = round(100 * compared.rate, 1)
                    row[f"{name}_wrong"] = compared.rate * n_words(compared)
                    row["words"] = n_words(compared)
            rows.append(row)
            print(json.dumps(row), flush=True)
    seconds = sum(row["seconds"] for row in rows)
    total = {
        "latency": round(float(np.mean(everything)), 2),
        "latency_95": round(float(np.quantile(everything, 0.95)), 2),
        "core": round(sum(row["core"] * row["seconds"] for row in rows) / seconds, 3),
    }
    if all("words" in row for row in rows):
        n = sum(row["words"] for row in rows)
        for name in ("offline", "live"):
            total[name] = round(100 * sum(row[f"{name}_wrong"] for row in rows) / n, 2)
    print(json.dumps({"all": total}))


def offline(
    model: Model, samples: Any, language: str, path: Path, keep: Path | None
) -> tuple[str, list[Word]]:
    """Text and words of the recording as a whole."""
    from whisper_npu.transcript import Word as Placed

    kept = keep / f"{path.stem}.json" if keep else None
    if kept and kept.exists():
        text, words = json.loads(kept.read_text())
        return text, [Placed(*word) for word in words]
    options = whisper_npu.TranscribeOptions(language=language, word_timestamps=True)
    found = model.transcribe(samples, options)
    words = [word for segment in found.segments for word in segment.words or ()]
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        rows = [(w.text, w.start, w.end, w.probability) for w in words]
        kept.write_text(json.dumps((found.text, rows)))
    return found.text, words


if __name__ == "__main__":
    main()
