#!/usr/bin/env python3
"""What each precision of the CPU does to the demo model's words, on speakers it never heard.

scripts/score_precisions.py            # prints a Markdown table
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from demo_speech import HELD_OUT, recorded
from score_demo import Recording, long_recordings, same_zero, word_errors

import whisper_npu
from whisper_npu.options import DeviceOptions

PRECISIONS = ("f32", "f16", "int8", "auto")
GREEDY = whisper_npu.TranscribeOptions(
    temperature=(0.0,), temperature_increment_on_fallback=None
)  # the same numbers, the same tokens


def recordings(data: Path, count: int) -> dict[str, list[Recording]]:
    """Sets by name: single utterances, and digits of one speaker over 10 s and 30 s."""
    held_out = [c for c in recorded(data) if c.speaker in HELD_OUT]
    an4 = [clip for clip in held_out if clip.source == "an4"]
    utterances = [Recording(c.samples / np.float32(32768), c.text.split()) for c in an4]
    return {
        "utterances": utterances,
        "10 s": long_recordings(an4, 10, count, 1),
        "30 s": long_recordings(an4, 30, count // 2, 2),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train_pack"))
    parser.add_argument("--count", type=int, default=18)
    options = parser.parse_args()
    sets = recordings(options.data, options.count)
    exact: dict[str, list[list[str]]] = {}
    print(f"| | {' | '.join(f'{name}: words wrong, tokens as f32' for name in sets)} |")
    print("|---" * (len(sets) + 1) + "|")
    for precision in PRECISIONS:
        device = DeviceOptions("cpu", precision=precision)
        cells = []
        with whisper_npu.load_model(options.model, device=device) as model:
            for name, chosen in sets.items():
                heard = [model.transcribe(recording.samples, GREEDY) for recording in chosen]
                tokens = [[str(t) for s in found.segments for t in s.tokens] for found in heard]
                expected = exact.setdefault(name, tokens)
                differing = sum(map(word_errors, expected, tokens))
                wrong = sum(
                    word_errors(same_zero(recording.words), same_zero(found.text.split()))
                    for recording, found in zip(chosen, heard, strict=True)
                )
                n_words = sum(len(recording.words) for recording in chosen)
                same = 100 - 100 * differing / sum(map(len, expected))
                cells.append(f"{100 * wrong / n_words:.1f} %, {same:.1f} %")
        print(f"| {precision} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
