"""What the golden files of decoding hold: models, recordings, option sets. Shared by the script
that makes them from openai/whisper and the tests that compare with them; needs neither.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from random_checkpoint import SIZES, write
from safetensors.numpy import load_file, save_file

from whisper_npu.audio import open_audio
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.options import SubtitleOptions, TranscribeOptions
from whisper_npu.tokenizer import Tokenizer
from whisper_npu.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float32]

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
DATA = Path(__file__).parent / "data"
DEMO = ROOT / "models" / "demo"

GREEDY = TranscribeOptions(temperature=(0.0,), temperature_increment_on_fallback=None)
OPTIONS = {
    "greedy": GREEDY,
    "fallback": TranscribeOptions(seed=1),
    "strict": TranscribeOptions(  # fails often: each decision to try again counts
        temperature=(0.0, 0.4, 0.8),
        best_of=3,
        logprob_threshold=-0.3,
        compression_ratio_threshold=1.2,
        no_speech_threshold=0.3,
        seed=2,
    ),
    "beam": replace(GREEDY, beam_size=5),
    "patient": replace(GREEDY, beam_size=3, patience=2.0, length_penalty=0.6),
    "sampling": TranscribeOptions(
        temperature=(0.7,),
        temperature_increment_on_fallback=None,
        best_of=5,
        compression_ratio_threshold=None,
        seed=3,
    ),
    "words": replace(GREEDY, word_timestamps=True),
    "wary": replace(
        GREEDY,
        word_timestamps=True,
        hallucination_silence_threshold=0.5,
        no_speech_threshold=None,
        beam_size=2,
    ),
    "prompt": replace(GREEDY, initial_prompt="one two three", carry_initial_prompt=True),
    "unconditioned": replace(
        GREEDY, initial_prompt="one two three", condition_on_previous_text=False
    ),
    "untimed": replace(GREEDY, without_timestamps=True),
    "clipped": replace(GREEDY, clip_timestamps=(0.4, 1.6, 2.0)),
    "free": replace(GREEDY, suppress_tokens=(0,), suppress_blank=False, max_initial_timestamp=None),
    "short": replace(GREEDY, sample_len=12, beam_size=2),
}


def lively(folder: Path, n_vocab: int, seed: int) -> Path:
    """A small model of random weights that listens, and says short things in several segments.

    Plain random weights attend to everything and never end; here cross-attention is sharp, and
    timestamps, the end and silence have their say.
    """
    write(folder, replace(SIZES["micro"], n_vocab=n_vocab), seed=seed)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if "encoder_attn." in name and name.endswith(("q_proj.weight", "out_proj.weight")):
            tensors[name] *= 4
    tokenizer = Tokenizer(Checkpoint(folder))
    embedding = tensors["model.decoder.embed_tokens.weight"]
    embedding[tokenizer.timestamp_begin :] *= 0.9
    embedding[[tokenizer.eot, tokenizer.no_speech]] *= 4
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


RANDOM = {"random.en": (51864, 4), "random": (51865, 4)}
"""Name -> size of the vocabulary, seed."""


def synthetic(name: str) -> Float:
    """Recordings that need no file: bursts of noise with pauses, and tones."""
    rng = np.random.default_rng(len(name) + sum(map(ord, name)))
    n = 16000 * int(name.rsplit("-", 1)[1])
    t = np.arange(n) / 16000
    loud = np.sin(2 * np.pi * t * rng.uniform(0.2, 0.8)) > rng.uniform(-0.5, 0.5)
    tone = np.sin(2 * np.pi * t * rng.uniform(100, 900))
    noise = rng.standard_normal(n)
    samples: Float = (loud * (0.1 * tone + 0.05 * noise)).astype(np.float32)
    return samples


SYNTHETIC = [f"synthetic-{i}-{n}" for i, n in enumerate((2, 5, 31, 42))]
MODELS = [*RANDOM, "demo"]
MADE = [name for name in MODELS if (DATA / f"golden_{name}.json.gz").is_file()]


def model_folder(name: str, scratch: Path) -> Path:
    """Where a model is; random ones are made in `scratch`."""
    if name == "demo":
        return DEMO
    return lively(scratch / name, *RANDOM[name])


def recordings(name: str) -> list[str]:
    """Random weights hear noise as well as speech; the demo model hears all there is."""
    return SYNTHETIC + shared_recordings() if name == "demo" else [SYNTHETIC[0], SYNTHETIC[2]]


def options(name: str, seconds: float) -> dict[str, TranscribeOptions]:
    """Option sets that make sense for a recording. Random weights never stop: 16 tokens do."""
    chosen = {
        key: option for key, option in OPTIONS.items() if option.clip_timestamps[-1] < seconds
    }
    if name == "random":  # we hear the language in the first clip, openai/whisper before it
        chosen.pop("clipped", None)
    if name in RANDOM:
        chosen = {
            key: replace(option, sample_len=option.sample_len or 16, no_speech_threshold=None)
            for key, option in chosen.items()
        }
    return chosen


def shared_recordings() -> list[str]:
    """Real recordings, as paths below ../shared/data: short ones, and some of several windows."""
    lines = (SHARED / "public_samples" / "manifest.jsonl").read_text("utf-8").splitlines()
    return [
        f"public_samples/{entry['file']}"
        for entry in map(json.loads, lines)
        if entry["expect"] in ("ok", "empty", "degraded", "empty or short")
        and not entry["file"].endswith((".m4a", ".webm", ".mp4"))
    ]


def samples_of(recording: str) -> Float:
    """Samples of a recording: synthetic, or a file below ../shared/data."""
    if recording.startswith("synthetic-"):
        return synthetic(recording)
    with open_audio(SHARED / recording) as audio:
        return np.concatenate([np.empty(0, np.float32), *audio.blocks])


def is_here(recording: str) -> bool:
    """Whether a recording can be read on this machine."""
    return recording.startswith("synthetic-") or (SHARED / recording).is_file()


def spoken(seed: int, *, words: bool) -> Transcript:
    """A transcript of nonsense in several scripts, with pauses."""
    rng = np.random.default_rng(seed)
    vocabulary = " one two, three. four-five 'six' 七八 девять ten! a\tb -> ...".split(" ")[1:]
    segments, now = [], float(rng.uniform(0, 4000))
    for i in range(int(rng.integers(1, 7))):
        found = []
        for text in rng.choice(vocabulary, int(rng.integers(1, 12))):
            now += float(rng.choice([0.0, 0.0, 0.3, 3.5]))
            end = now + float(rng.uniform(0.05, 0.9))
            found.append(Word(f" {text}", round(now, 2), round(end, 2), float(rng.uniform())))
            now = end
        segment = Segment(
            i, 100 * i, found[0].start, found[-1].end, "".join(w.text for w in found),
            tuple(range(i)), 0.2, -0.5, 1.1, 0.01, tuple(found) if words else None,
        )  # fmt: skip
        segments.append(segment)
    text = "".join(segment.text for segment in segments)
    return Transcript(text, tuple(segments), "en", None, now)


WRITTEN = [  # transcript, how it is laid out
    *((spoken(seed, words=False), SubtitleOptions()) for seed in range(4)),
    *((spoken(seed, words=True), SubtitleOptions()) for seed in range(4)),
    *((spoken(seed, words=True), SubtitleOptions(highlight_words=True)) for seed in range(4)),
    *((spoken(seed, words=True), SubtitleOptions(max_words_per_line=3)) for seed in range(4)),
    *((spoken(seed, words=True), SubtitleOptions(max_line_width=18)) for seed in range(4)),
    *(
        (spoken(seed, words=True), SubtitleOptions(max_line_width=18, max_line_count=2))
        for seed in range(8)
    ),
    (
        spoken(9, words=True),
        SubtitleOptions(highlight_words=True, max_line_width=12, max_line_count=1),
    ),
    (Transcript("", (), "en", None, 1.0), SubtitleOptions()),
]
