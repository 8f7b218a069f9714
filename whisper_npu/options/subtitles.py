"""How words are laid out in subtitles."""

from __future__ import annotations

from dataclasses import dataclass

from whisper_npu.errors import OptionError
from whisper_npu.options.option import SUBTITLES, check, option


@dataclass(frozen=True)
class SubtitleOptions:
    """How words are laid out in srt and vtt; all but the defaults need word times."""

    highlight_words: bool = option(
        False, "Underline each word of a subtitle while it is spoken.", SUBTITLES
    )
    max_line_width: int | None = option(
        None, "Largest number of characters in a line of a subtitle.", SUBTITLES, least=1
    )
    max_line_count: int | None = option(
        None,
        "Largest number of lines in a subtitle; needs --max-line-width.",
        SUBTITLES,
        least=1,
    )
    max_words_per_line: int | None = option(
        None,
        "Largest number of words in a subtitle; cannot be used with --max-line-width.",
        SUBTITLES,
        least=1,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.max_line_count and not self.max_line_width:
            raise OptionError(
                "max_line_count needs max_line_width", "max_line_count", "max_line_width"
            )
        if self.max_words_per_line and self.max_line_width:
            raise OptionError(
                "max_words_per_line and max_line_width exclude each other",
                "max_words_per_line",
                "max_line_width",
            )

    @property
    def needs_words(self) -> bool:
        """Whether word times are needed."""
        return self != SubtitleOptions()
