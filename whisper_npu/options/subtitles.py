"""How words are laid out in subtitles."""

from __future__ import annotations

from dataclasses import dataclass, replace

from whisper_npu.cues import CueLimits, unlimited
from whisper_npu.errors import OptionError
from whisper_npu.options.option import SUBTITLES, check, option

WHISPER, BROADCAST = "whisper", "broadcast"  # styles


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

    max_cue_duration: float | None = option(
        None,
        "Show no subtitle for more than this many seconds: a longer one is divided, at the end of "
        "a sentence or at a pause if there is one.",
        SUBTITLES,
        least=1,
    )
    subtitle_style: str = option(
        WHISPER,
        "whisper: one subtitle for each segment, as the model divides speech; broadcast: "
        "subtitles end with sentences and pauses, last 0.8 to 7 seconds, have two lines of at "
        "most 42 characters, and leave time to read them.",
        SUBTITLES,
        choices=(WHISPER, BROADCAST),
    )

    def __post_init__(self) -> None:
        check(self)
        if self.max_line_count and not self.max_line_width and self.limits is None:
            raise OptionError(
                "max_line_count needs max_line_width", "max_line_count", "max_line_width"
            )
        if self.max_words_per_line and self.max_line_width:
            raise OptionError(
                "max_words_per_line and max_line_width exclude each other",
                "max_words_per_line",
                "max_line_width",
            )

        if self.limits:
            self._check_layout()

    def _check_layout(self) -> None:
        for name in ("highlight_words", "max_words_per_line"):
            if getattr(self, name):
                asked = "subtitle_style" if self.joins_segments else "max_cue_duration"
                raise OptionError(f"{name} and {asked} exclude each other", name, asked)

    @property
    def joins_segments(self) -> bool:
        """Whether a cue may hold words of several segments."""
        return self.subtitle_style == BROADCAST

    @property
    def limits(self) -> CueLimits | None:
        """Bounds within which cues are laid out anew; None: openai/whisper's cues."""
        if not self.joins_segments and self.max_cue_duration is None:
            return None
        bounds = CueLimits() if self.joins_segments else unlimited(self.max_cue_duration or 0)
        return replace(
            bounds,
            max_duration=self.max_cue_duration or bounds.max_duration,
            max_width=self.max_line_width or bounds.max_width,
            max_lines=self.max_line_count or bounds.max_lines,
        )

    @property
    def needs_words(self) -> bool:
        """Whether word times have to be asked for; cues that are laid out anew find their own."""
        return self.limits is None and self != SubtitleOptions()
