"""Which models can translate into English, and which would only pretend to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from whisper_npu.checkpoint import Checkpoint


def require_translation(checkpoint: Checkpoint) -> None:
    """Raise OptionError for a model that was never taught to translate.

    It would answer in the language that is spoken, or invent.
    """
    able = "models without .en in their name, such as base, small or large-v3, can"
    if not checkpoint.is_multilingual:
        raise OptionError(f"this model knows only English and cannot translate: {able}")
    model = checkpoint.published
    if model and not model.translates:
        raise OptionError(f"{model.name} was not trained to translate: medium or large-v3 can")
