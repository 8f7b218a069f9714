"""A transcript -> txt srt vtt tsv json csv lrc html: the bytes, and files that are never half.

Names and bytes are openai/whisper's (csv and lrc: whisper.cpp's), less its faults: emptied
segments make no cue, `-->` in a text cannot end a cue's times, NaN is null.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from whisper_npu.cache import replacing
from whisper_npu.cues import lay_out
from whisper_npu.messages import printable
from whisper_npu.options.subtitles import SubtitleOptions
from whisper_npu.pages.transcript import audio_source, page
from whisper_npu.records import segment_record
from whisper_npu.transcript import Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from whisper_npu.cues import Cue
    from whisper_npu.transcript import Segment, Transcript

LONG_PAUSE = 3.0  # seconds, after which a subtitle of counted lines ends


def timecode(seconds: float, *, hours: bool = True, decimal: str = ".") -> str:
    """HH:MM:SS.mmm; without `hours` they are shown only when there are any."""
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    n_hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    front = f"{n_hours:02d}:" if hours or n_hours else ""
    return f"{front}{minutes:02d}:{whole:02d}{decimal}{milliseconds:03d}"


def spoken(transcript: Transcript) -> list[Segment]:
    """The segments that say something."""
    return [segment for segment in transcript.segments if segment.text.strip()]


def emulated(transcript: Transcript) -> str:
    """The device, if it is no real one: said wherever a format has a place for it."""
    return "" if transcript.origin == "measured" else transcript.device


def txt(transcript: Transcript, _: SubtitleOptions) -> str:
    """One segment a line."""
    return "".join(f"{line(segment.text)}\n" for segment in spoken(transcript))


def line(text: str) -> str:
    """Text that stays on one line."""
    return " ".join(text.strip().splitlines())


def srt(transcript: Transcript, options: SubtitleOptions) -> str:
    """SubRip."""
    return "".join(
        f"{i}\n{timecode(start, decimal=',')} --> {timecode(end, decimal=',')}\n{text}\n\n"
        for i, (start, end, text) in enumerate(cues(transcript, options), 1)
    )


def vtt(transcript: Transcript, options: SubtitleOptions) -> str:
    """WebVTT."""
    device = emulated(transcript)
    note = f"NOTE {device}\n\n" if device else ""
    return f"WEBVTT\n\n{note}" + "".join(
        f"{timecode(start, hours=False)} --> {timecode(end, hours=False)}\n{text}\n\n"
        for start, end, text in cues(transcript, options)
    )


def tsv(transcript: Transcript, _: SubtitleOptions) -> str:
    """Milliseconds and text between tabs."""
    rows = [
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t"
        f"{line(segment.text).replace(chr(9), ' ')}\n"
        for segment in spoken(transcript)
    ]
    return "start\tend\ttext\n" + "".join(rows)


def csv_(transcript: Transcript, _: SubtitleOptions) -> str:
    """Milliseconds and quoted text between commas."""
    out = io.StringIO()
    out.write("start,end,text\n")
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    for segment in spoken(transcript):
        writer.writerow(
            (round(1000 * segment.start), round(1000 * segment.end), segment.text.strip())
        )
    return out.getvalue()


def lrc(transcript: Transcript, _: SubtitleOptions) -> str:
    """Lyrics: when each line begins."""
    device = emulated(transcript)
    lines = [f"[by:whisper-npu, {device}]\n" if device else "[by:whisper-npu]\n"]
    for segment in spoken(transcript):
        hundredths = max(0, round(segment.start * 100))
        minutes, hundredths = divmod(hundredths, 6000)
        stamp = f"[{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}]"
        lines.append(f"{stamp}{line(segment.text)}\n")
    return "".join(lines)


def json_(transcript: Transcript, _: SubtitleOptions) -> str:
    """Everything, in openai/whisper's keys."""
    result = {
        "text": transcript.text,
        "segments": [segment_record(segment) for segment in transcript.segments],
        "language": transcript.language,
    }
    if device := emulated(transcript):
        result["device"] = device
    return json.dumps(result, allow_nan=False)


def html(transcript: Transcript, _: SubtitleOptions) -> str:
    """A page to read and listen along; the reader chooses the recording."""
    return page(transcript, "Transcript")


FORMATS: dict[str, Callable[[Transcript, SubtitleOptions], str]] = {
    "txt": txt,
    "srt": srt,
    "vtt": vtt,
    "tsv": tsv,
    "json": json_,
    "csv": csv_,
    "lrc": lrc,
    "html": html,
}


# subtitles


def cues(transcript: Transcript, options: SubtitleOptions) -> Iterator[Cue]:
    """What is shown from when to when."""
    segments = spoken(transcript)
    if limits := options.limits:
        groups = [segments] if options.joins_segments else [[segment] for segment in segments]
        for group in groups:
            for start, end, text in lay_out(plain_words(group), limits, transcript.duration):
                yield start, end, cue_text(text)
        return
    if not segments or segments[0].words is None:
        for segment in segments:
            yield segment.start, segment.end, cue_text(segment.text.strip())
        return
    for subtitle in subtitles(segments, options):
        if not any(word.text.strip() for word in subtitle):
            continue  # the text of the segment went elsewhere, or its words are blank
        if options.highlight_words:
            yield from karaoke(subtitle)
        else:
            yield subtitle[0].start, subtitle[-1].end, cue_text("".join(w.text for w in subtitle))


def plain_words(segments: Sequence[Segment]) -> list[Word]:
    """All words that show; a segment without word times is one."""
    words: list[Word] = []
    for segment in segments:
        timed = segment.words if segment.aligned is None else segment.aligned
        whole = (Word(segment.text, segment.start, segment.end, 1.0),)
        words += whole if timed is None else timed
    plain = [replace(word, text=re.sub(r"\s+", " ", word.text)) for word in words]
    return [word for word in plain if word.text.strip()]


def cue_text(text: str) -> str:
    """Text that cannot be taken for a cue's times, nor end the cue by an empty line."""
    return re.sub(r"\n\s*\n", "\n", text.replace("-->", "->"))


def karaoke(subtitle: Sequence[Word]) -> Iterator[Cue]:
    """The same text again and again, the word being spoken underlined."""
    plain = cue_text("".join(word.text for word in subtitle))
    last = subtitle[0].start
    for i, spoken_word in enumerate(subtitle):
        if round(1000 * spoken_word.start) > round(1000 * last):
            yield last, spoken_word.start, plain
        words = [
            re.sub(r"^(\s*)(.*)$", r"\1<u>\2</u>", word.text) if i == j else word.text
            for j, word in enumerate(subtitle)
        ]
        yield spoken_word.start, spoken_word.end, cue_text("".join(words))
        last = spoken_word.end


def subtitles(segments: Sequence[Segment], options: SubtitleOptions) -> Iterator[list[Word]]:
    """Words gathered into cues; a word that begins a line carries the line break."""
    keep_segments = options.max_line_count is None or options.max_line_width is None
    width = options.max_line_width or 1000
    subtitle: list[Word] = []
    line_length, n_lines = 0, 1
    last = next((word.start for segment in segments for word in segment.words or ()), 0.0)
    for word, begins_chunk in words_in_chunks(segments, options.max_words_per_line or 1000):
        pause = not keep_segments and word.start - last > LONG_PAUSE
        breaks = begins_chunk and bool(subtitle) and keep_segments
        last = word.start
        fits = line_length + len(word.text) <= width
        if line_length and fits and not pause and not breaks:
            subtitle.append(word)
            line_length += len(word.text)
            continue
        text = word.text.strip()
        counted = options.max_line_count is not None
        full = counted and (pause or n_lines >= (options.max_line_count or 0))
        if subtitle and (full or breaks):
            yield subtitle
            subtitle, n_lines = [], 1
        elif line_length:
            n_lines += 1
            text = "\n" + text
        line_length = len(text.strip())
        subtitle.append(replace(word, text=text))
    if subtitle:
        yield subtitle


def words_in_chunks(segments: Sequence[Segment], n: int) -> Iterator[tuple[Word, bool]]:
    """Each word, and whether it is the first of its segment or of every n in it."""
    for segment in segments:
        for i, word in enumerate(segment.words or ()):
            yield word, i % n == 0


# files


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises OutputError."""
    with replacing(path) as new:
        new.write_bytes(text.encode())


def write_all(  # noqa: PLR0913  what, where to and how
    transcript: Transcript,
    folder: Path,
    stem: str,
    names: Sequence[str],
    options: SubtitleOptions | None = None,
    *,
    recording: Path | None = None,
) -> list[Path]:
    """Write folder/stem.format for each format. Raises OutputError.

    recording  what was transcribed, for the page that plays it
    """
    paths = []
    for name in names:
        path = folder / f"{stem}.{name}"
        if name == "html" and recording is not None:
            text = page(transcript, printable(recording.name), audio_source(recording, path.parent))
        else:
            text = FORMATS[name](transcript, options or SubtitleOptions())
        write(path, text)
        paths.append(path)
    return paths
