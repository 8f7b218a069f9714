"""The command line and the library are two documents of the same options."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from whisper_npu import speech
from whisper_npu.cli.transcribe import numbers, token_ids, transcribe
from whisper_npu.errors import OptionError
from whisper_npu.options import TranscribeOptions
from whisper_npu.timing import APPENDED, PREPENDED
from whisper_npu.writers import SubtitleOptions

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_help_shows_the_defaults_of_the_library() -> None:
    parameters = inspect.signature(transcribe).parameters
    shown: dict[str, Callable[[Any], Any]] = {
        "clip_timestamps": numbers,
        "suppress_tokens": token_ids,
        "prepend_punctuations": lambda _: PREPENDED,
        "append_punctuations": lambda _: APPENDED,
    }
    for field in [*fields(TranscribeOptions), *fields(SubtitleOptions)]:
        if field.name == "temperatures":  # made of --temperature and its increment
            continue
        default = parameters[field.name].default
        if field.name in shown:
            default = shown[field.name](default)
        assert default == field.default, field.name


def test_without_the_detector_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speech, "find_spec", lambda _: None)
    with pytest.raises(OptionError, match="pip install"):
        TranscribeOptions(vad=True)
