"""How sound is transcribed while it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  the command line reads annotations when it runs
from typing import NamedTuple

from whisper_npu.errors import OptionError
from whisper_npu.languages import language_code
from whisper_npu.options.batch import folder, output_format_option, require_plain
from whisper_npu.options.option import OUTPUT, PROMPTS, SPEECH, check, option
from whisper_npu.options.speech import require_detector
from whisper_npu.options.transcription import (
    AUTO,
    AUTO_EACH,
    task_option,
    vad_threshold_option,
)

SOUND = "Sound"  # heading in --help
ATTENTION, AGREEMENT = "attention", "agreement"  # policies


class Pace(NamedTuple):
    """How soon words come, and how sure they are then: all in seconds."""

    step: float  # between two looks at what was said
    margin: float  # sound at the end that is too new for final words
    pause: float  # silence that ends an utterance


PACES = {
    "low": Pace(0.6, 0.3, 0.4),
    "normal": Pace(1.0, 0.5, 0.6),
    "high": Pace(2.0, 0.8, 1.0),
}


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is transcribed. Raises OptionError."""

    task: str = task_option()
    language: str = option(
        AUTO,
        "Language that is spoken, as a code or an English name: de or German. auto: detect it at "
        "the first words.",
        SPEECH,
        short="-l",
    )
    latency: str = option(
        "normal",
        "How long words may take: low shows them soonest and is wrong more often, high waits to "
        "hear more.",
        SPEECH,
        choices=tuple(PACES),
    )
    policy: str = option(
        AUTO,
        "When a word is final: attention, when the model has stopped looking at the newest sound; "
        "agreement, when it was heard twice; auto: what suits the model.",
        SPEECH,
        choices=(AUTO, ATTENTION, AGREEMENT),
    )
    vad_threshold: float = vad_threshold_option()
    initial_prompt: str | None = option(
        None, "Text that comes before the first words, such as names or a spelling.", PROMPTS
    )
    condition_on_previous_text: bool = option(
        True,
        "Let the model see what was said before. Without it the text is less coherent, and "
        "mistakes are not repeated.",
        PROMPTS,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.is_language_given:
            language_code(self.language)
        require_detector()

    @property
    def is_language_given(self) -> bool:
        """Whether it need not be detected; in a stream, auto-each is auto."""
        return self.language not in (AUTO, AUTO_EACH)

    @property
    def pace(self) -> Pace:
        """What `latency` stands for."""
        return PACES[self.latency]


@dataclass(frozen=True)
class ListenOptions:
    """What `listen` hears, and where the words go. Raises OptionError."""

    input: str | None = option(
        None,
        "Microphone to listen to: a number or a name that --list-inputs shows; without this "
        "option, the usual one.",
        SOUND,
        metavar="NAME",
    )
    list_inputs: bool = option(False, "Print what can be listened to, and end.", SOUND)
    rate: int = option(
        16000,
        "Samples a second of what comes on standard input.",
        SOUND,
        least=1000,
        most=1_000_000,
    )
    simulate: Path | None = option(
        None, "Play this recording as if it were spoken now.", SOUND, metavar="FILE"
    )
    speed: float = option(
        1.0, "With --simulate, how many times as fast as it was spoken.", SOUND, least=0.01
    )
    output_dir: Path | None = option(
        None,
        "Folder in which the transcript is kept as well: its files are written anew while it "
        "grows, and at the end.",
        OUTPUT,
        short="-o",
        read=folder,
        metavar="FOLDER",
    )
    output_format: tuple[str, ...] = output_format_option()
    output_name: str | None = option(
        None,
        "Name of the files to write, without extension; without this option, the time at which it "
        "began.",
        OUTPUT,
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        check(self)
        require_plain(self.output_name)
        if self.speed != 1 and self.simulate is None:
            raise OptionError("speed needs simulate", "speed", "simulate")
        if self.simulate is not None and self.input is not None:
            raise OptionError("simulate and input exclude each other", "simulate", "input")
