"""What the golden files of decoding hold: models, recordings, option sets. Shared by the script
that makes them from openai/whisper and the tests that compare with them; needs neither.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from random_checkpoint import SIZES, write
from safetensors.numpy import load_file, save_file
from sounds import made

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

GREEDY = TranscribeOptions(temperature=(0.0,), temperature_increment_on_fallback=None)
OPTIONS = {
    "fallback": TranscribeOptions(seed=1),  # what openai/whisper's function does unasked
    "beams": TranscribeOptions(beam_size=5),  # and its command
    "strict": TranscribeOptions(  # fails often: each decision to try again counts
        temperature=(0.0, 0.4, 0.8),
        best_of=3,
        logprob_threshold=-0.3,
        compression_ratio_threshold=1.2,
        no_speech_threshold=0.3,
        seed=2,
    ),
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
    "clipped": replace(GREEDY, language="en", clip_timestamps=(0.4, 1.6, 2.0)),
    "free": replace(GREEDY, suppress_tokens=(0,), suppress_blank=False, max_initial_timestamp=None),
    "short": replace(GREEDY, sample_len=12, beam_size=2),
    "translated": replace(GREEDY, task="translate", beam_size=5),
}
"""A clip has its language said: we hear it in the first clip, openai/whisper before it."""

WRITTEN_FORMATS = ("txt", "srt", "vtt", "tsv", "json")
FIRST = "fallback"  # all recordings are heard with it; the other option sets hear SOME


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
REAL = ("tiny.en", "base")
MADE = [n for n in (*RANDOM, *REAL) if (DATA / f"golden_{n}.json.gz").is_file()]
SOME = {  # recordings that every option set hears
    "tiny.en": (
        "real_speech/jfk.flac",
        "real_speech/cv-en-22058267.flac",
        "real_speech/kgs-en-digits.flac",
        "real_speech/ls-other-1998-15444-0004.flac",
        "real_speech/so762-012920110.flac",
        "real_speech/f5-nature.flac",
        "real_speech/ami-es2011a-40s.flac",
        "real_speech/pv-diarization.flac",
        "real_speech/osr-us-0034.flac",
        "real_speech/ls-other-2033-joined.flac",
        "made/tune-8",
        "made/silence-5",
    ),
    "base": (
        "real_speech/jfk.flac",
        "real_speech/pv-cheetah-test_it_norm.flac",
        "real_speech/pv-leopard-test_es.flac",
        "real_speech/css10-fr-lesmis_0153.flac",
        "real_speech/cv-ja-24511055.flac",
        "real_speech/aishell-BAC009S0724W0121.flac",
        "real_speech/pv-leopard-test_ko.flac",
        "real_speech/ds-ru.flac",
        "real_speech/auditok-de.flac",
        "real_speech/softcatala-gossos-ca.flac",
        "real_speech/ls-other-3331-joined.flac",
        "made/tune-8",
        "made/silence-5",
    ),
}


TIPPED = {("tiny.en", "real_speech/so762-096350012.flac")}
"""Left out: a token drawn at temperature 1 lies between two, and rounding decides which."""
NOT_SPEECH = [
    "made/silence-35", "made/white-10", "made/pink-10", "made/brown-10", "made/hum-10",
    "made/chord-10", "made/tune-8", "made/band-20", "made/silence-5",
]  # fmt: skip


def recordings(name: str) -> list[str]:
    """What a model hears. Random weights hear noise as well as speech."""
    if name in RANDOM:
        return ["made/bursts-2", "made/bursts-31"]
    lines = (SHARED / "real_speech" / "manifest.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    speech = [f"real_speech/{row['file']}" for row in rows if row["lang"] == "en" or name == "base"]
    degraded = [f"public_samples/digits_{kind}.wav" for kind in DEGRADED]
    found = [*speech, *degraded, *NOT_SPEECH]
    return [recording for recording in found if (name, recording) not in TIPPED]


DEGRADED = ("8k", "clipped", "quiet_-46dB", "white_10dB", "white_0dB")


def options(name: str, recording: str, seconds: float) -> dict[str, TranscribeOptions]:
    """The option sets with which a model hears a recording. Random weights never stop: 16 tokens
    do.
    """
    chosen = {
        key: option
        for key, option in OPTIONS.items()
        if option.clip_timestamps[-1] < seconds
        and (key == FIRST or name in RANDOM or recording in SOME[name])
        and (key != "translated" or not name.endswith(".en"))
    }
    if name in RANDOM:
        chosen.pop("free", None)  # special tokens would be sampled: text in openai/whisper
        chosen = {
            key: replace(option, sample_len=option.sample_len or 16, no_speech_threshold=None)
            for key, option in chosen.items()
        }
    return chosen


def samples_of(recording: str) -> Float:
    """Samples of a recording: made here, or a file below ../shared/data."""
    if recording.startswith("made/"):
        return made(recording.removeprefix("made/"))
    with open_audio(SHARED / recording) as audio:
        return np.concatenate([np.empty(0, np.float32), *audio.blocks])


def fingerprint(checkpoint: Checkpoint) -> str:
    """Tells weights apart, whatever the format they are stored in."""
    tensor = checkpoint.read("model.decoder.layers.0.fc1.weight").astype(np.float32)
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()[:16]


def is_here(recording: str) -> bool:
    """Whether a recording can be read on this machine."""
    return recording.startswith("made/") or (SHARED / recording).is_file()


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
