"""How one window is decoded at one temperature."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DecodingOptions:
    """How one window is decoded; made and checked by `TranscribeOptions.at`."""

    task: str = "transcribe"
    language: str | None = None  # None: English-only model
    temperature: float = 0.0
    best_of: int | None = None  # samples to choose from, above temperature 0
    beam_size: int | None = None  # at temperature 0; None: greedy
    patience: float | None = None  # beam search ends with beam_size * patience hypotheses
    length_penalty: float | None = None  # alpha of Wu et al. 2016; None: mean log-probability
    sample_len: int | None = None  # most tokens to sample; None: half the context
    prompt: tuple[int, ...] = ()  # what was said before
    prefix: tuple[int, ...] = ()  # what this window begins with
    suppress_tokens: tuple[int, ...] = (-1,)  # -1: all that is not speech
    suppress_blank: bool = True
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0  # seconds; None or 0: no limit
