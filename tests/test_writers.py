"""Files as openai/whisper writes them, and less its faults; whatever is written reads back."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import golden_cases as cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_npu.errors import OptionError, OutputError
from whisper_npu.options import SubtitleOptions
from whisper_npu.options.batch import formats
from whisper_npu.transcript import Segment, Transcript, Word
from whisper_npu.writers import FORMATS, cue_text, line, timecode, write, write_all

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = SubtitleOptions()


@pytest.mark.parametrize("name", ["txt", "srt", "vtt", "tsv", "json"])
def test_the_bytes_are_openai_whispers(name: str) -> None:
    golden = json.loads(gzip.decompress((cases.DATA / "golden_written.json.gz").read_bytes()))
    assert len(golden) == len(cases.WRITTEN)
    for files, (transcript, options) in zip(golden, cases.WRITTEN, strict=True):
        assert FORMATS[name](transcript, options) == files[name]


# whatever is written reads back

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)
texts |= st.sampled_from(["-->", "a --> b", ' " quoted, "', "\ttab\t", "1", "<b>&amp;", "a\n\nb"])


@st.composite
def transcripts(draw: st.DrawFn, *, words: bool = False) -> Transcript:
    """Segments in order, some of them empty."""
    times = sorted(draw(st.lists(st.integers(0, 10**8), min_size=2, max_size=12)))
    segments = []
    for i, (start, end) in enumerate(zip(times[::2], times[1::2], strict=False)):
        found = tuple(
            Word(f" {draw(texts)}", start / 1000, end / 1000, 0.5)
            for _ in range(draw(st.integers(1, 4)) if words else 0)
        )
        text = "".join(word.text for word in found) if words else draw(texts)
        segment = Segment(
            i, 0, start / 1000, end / 1000, text, (), 0.0, -1.0, 1.0, 0.0, found if words else None
        )
        segments.append(segment)
    return Transcript("x", tuple(segments), "en", None, 1.0)


def spoken(transcript: Transcript) -> list[tuple[int, int, str]]:
    """Milliseconds and text of the segments that say something."""
    return [
        (round(1000 * s.start), round(1000 * s.end), s.text.strip())
        for s in transcript.segments
        if s.text.strip()
    ]


def milliseconds(stamp: str) -> int:
    *hours, minutes, seconds, rest = re.split("[:.,]", stamp)
    return ((int(*hours or "0") * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest)


def cues(text: str) -> list[tuple[int, int, str]]:
    """A strict reader of srt and vtt: blocks between empty lines, times, then text."""
    found = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        at = next((i for i, one in enumerate(lines) if " --> " in one), None)
        if at is None:
            assert block in ("", "WEBVTT")
            continue
        assert sum("-->" in one for one in lines) == 1
        start, end = lines[at].split(" --> ")
        found.append((milliseconds(start), milliseconds(end), "\n".join(lines[at + 1 :])))
    return found


@given(transcript=transcripts())
@settings(max_examples=60, deadline=None)
def test_subtitles_read_back(transcript: Transcript) -> None:
    expected = [(a, b, cue_text(text)) for a, b, text in spoken(transcript)]
    assert cues(FORMATS["srt"](transcript, PLAIN)) == expected
    assert cues(FORMATS["vtt"](transcript, PLAIN)) == expected
    numbers = re.findall(r"(?m)^(\d+)\n\d\d:", FORMATS["srt"](transcript, PLAIN))
    assert [int(n) for n in numbers] == list(range(1, len(expected) + 1))


@given(
    transcript=transcripts(words=True),
    options=st.sampled_from(
        [
            PLAIN,
            SubtitleOptions(highlight_words=True),
            SubtitleOptions(max_line_width=10, max_line_count=2),
            SubtitleOptions(max_words_per_line=2),
        ]
    ),
)
@settings(max_examples=60, deadline=None)
def test_subtitles_of_words_read_back(transcript: Transcript, options: SubtitleOptions) -> None:
    for name in ("srt", "vtt"):
        found = cues(FORMATS[name](transcript, options))
        shown = "".join(text for _, _, text in found).replace("<u>", "").replace("</u>", "")
        said = "".join(w.text for s in transcript.segments if s.text.strip() for w in s.words or ())
        if not options.highlight_words:
            assert _letters(shown) == _letters(said)
        assert all(start <= end for start, end, _ in found)


STYLED = [
    SubtitleOptions(subtitle_style="broadcast"),
    SubtitleOptions(subtitle_style="broadcast", max_line_width=20, max_line_count=1),
    SubtitleOptions(max_cue_duration=3.0),
]


@given(transcript=transcripts(words=True), options=st.sampled_from(STYLED))
@settings(max_examples=60, deadline=None)
def test_styled_subtitles_read_back(transcript: Transcript, options: SubtitleOptions) -> None:
    transcript = replace(transcript, duration=1e5)
    aligned = tuple(replace(s, words=None, aligned=s.words) for s in transcript.segments)
    said = "".join(w.text for s in transcript.segments if s.text.strip() for w in s.words or ())
    for name in ("srt", "vtt"):
        written = FORMATS[name](transcript, options)
        assert written == FORMATS[name](replace(transcript, segments=aligned), options)
        found = cues(written)
        assert _letters("".join(text for _, _, text in found)) == _letters(said)
        longest = 1000 * (options.max_cue_duration or 7.0)
        assert all(end - start <= longest + 2 for start, end, _ in found)


@given(transcript=transcripts(words=True))
@settings(max_examples=30, deadline=None)
def test_words_for_pages_and_cues_change_no_other_format(transcript: Transcript) -> None:
    """Asked for a page as well, openai/whisper's formats remain byte for byte."""
    plain = tuple(replace(s, words=None) for s in transcript.segments)
    aligned = tuple(replace(s, words=None, aligned=s.words) for s in transcript.segments)
    for name in set(FORMATS) - {"html"}:
        assert FORMATS[name](replace(transcript, segments=aligned), PLAIN) == FORMATS[name](
            replace(transcript, segments=plain), PLAIN
        )


def test_a_cue_may_span_segments_only_in_a_style() -> None:
    words = ((Word(" one", 0, 0.5, 1), Word(" two", 0.5, 1, 1)), (Word(" three.", 1, 2, 1),))
    talk = transcript_of(*(segment("".join(w.text for w in w_), w_[0].start, w_) for w_ in words))
    talk = replace(talk, duration=10.0)
    assert [c[2] for c in cues(FORMATS["srt"](talk, STYLED[0]))] == ["one two three."]
    assert [c[2] for c in cues(FORMATS["srt"](talk, STYLED[2]))] == ["one two", "three."]


def test_a_segment_without_word_times_is_not_lost() -> None:
    talk = replace(transcript_of(segment(" all of it", 1.0)), duration=10.0)
    assert cues(FORMATS["srt"](talk, STYLED[0])) == [(1000, 2000, "all of it")]


def _letters(text: str) -> str:
    return "".join(text.replace("-->", "->").split())


@given(transcript=transcripts())
@settings(max_examples=60, deadline=None)
def test_tables_read_back(transcript: Transcript) -> None:
    expected = spoken(transcript)
    rows = list(csv.reader(io.StringIO(FORMATS["csv"](transcript, PLAIN))))
    assert rows[0] == ["start", "end", "text"]
    assert [(int(a), int(b), text) for a, b, text in rows[1:]] == expected
    lines = FORMATS["tsv"](transcript, PLAIN).split("\n")
    assert lines[0] == "start\tend\ttext"
    assert lines[-1] == ""
    found = [(int(a), int(b), text) for a, b, text in (one.split("\t") for one in lines[1:-1])]
    assert found == [(a, b, line(text).replace("\t", " ")) for a, b, text in expected]


@given(transcript=transcripts())
@settings(max_examples=60, deadline=None)
def test_lines_read_back(transcript: Transcript) -> None:
    expected = spoken(transcript)
    assert FORMATS["txt"](transcript, PLAIN).split("\n")[:-1] == [line(t) for _, _, t in expected]
    first, *lines = FORMATS["lrc"](transcript, PLAIN).split("\n")[:-1]
    assert first == "[by:whisper-npu]"
    for written, (start, _, text) in zip(lines, expected, strict=True):
        match = re.fullmatch(r"\[(\d\d+):(\d\d)\.(\d\d)\](.*)", written)
        assert match
        minutes, seconds, hundredths = (int(part) for part in match.groups()[:3])
        assert abs((minutes * 60 + seconds) * 1000 + hundredths * 10 - start) <= 5
        assert match[4] == line(text)


numbers = st.floats() | st.just(math.nan)


@given(transcript=transcripts(words=True), number=numbers)
@settings(max_examples=60, deadline=None)
def test_json_reads_back_and_has_no_nan(transcript: Transcript, number: float) -> None:
    odd = replace(transcript.segments[0], avg_logprob=number, temperature=number)
    transcript = replace(transcript, segments=(odd, *transcript.segments[1:]))
    read = json.loads(FORMATS["json"](transcript, PLAIN), parse_constant=pytest.fail)
    assert list(read) == ["text", "segments", "language"]
    for found, segment in zip(read["segments"], transcript.segments, strict=True):
        assert found["text"] == segment.text
        assert found["avg_logprob"] in (segment.avg_logprob, None)
        assert [w["word"] for w in found["words"]] == [w.text for w in segment.words or ()]


# faults of openai/whisper


def transcript_of(*segments: Segment) -> Transcript:
    return Transcript("", segments, "en", None, 1.0)


def segment(text: str, start: float = 0.0, words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(0, 0, start, start + 1, text, (), 0.0, 0.0, 0.0, 0.0, words)


def test_an_arrow_in_words_cannot_end_the_times_of_a_cue() -> None:
    """There "-->" is replaced in segments, but not in words."""
    words = (Word(" a", 0, 1, 1), Word(" -->", 1, 2, 1), Word(" b", 2, 3, 1))
    transcript = transcript_of(segment(" a --> b", words=words))
    for options in (PLAIN, SubtitleOptions(highlight_words=True)):
        for name in ("srt", "vtt"):
            text = FORMATS[name](transcript, options)
            assert text.count("-->") == len(re.findall(r"(?m)^[\d:,.]+ --> [\d:,.]+$", text))


def test_emptied_segments_have_no_cue() -> None:
    """There they make empty cues and lines."""
    transcript = transcript_of(segment(" one"), segment("", 1.0), segment(" two", 2.0))
    assert FORMATS["txt"](transcript, PLAIN) == "one\ntwo\n"
    assert [text for *_, text in cues(FORMATS["srt"](transcript, PLAIN))] == ["one", "two"]
    assert len(json.loads(FORMATS["json"](transcript, PLAIN))["segments"]) == 3


def test_an_emptied_first_segment_does_not_hide_that_there_are_words() -> None:
    """There the first segment alone decides."""
    words = (Word(" one", 1, 2, 1),)
    transcript = transcript_of(segment("", words=()), segment(" one", 1.0, words))
    options = SubtitleOptions(highlight_words=True)
    assert "<u>one</u>" in FORMATS["vtt"](transcript, options)


def test_a_time_before_the_beginning_is_the_beginning() -> None:
    """There it is an assertion."""
    assert timecode(-0.02) == "00:00:00.000"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0005, "00:00:00.000"), (59.9996, "00:01:00.000"), (3600, "01:00:00.000")],
)
def test_timecode_rounds_as_openai_whisper(seconds: float, expected: str) -> None:
    assert timecode(seconds) == expected
    assert timecode(seconds, hours=False) == expected.removeprefix("00:")


# options and files


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_line_width": 0},
        {"max_line_count": 2},
        {"max_line_width": 9, "max_words_per_line": 2},
        {"max_cue_duration": 0.5},
        {"subtitle_style": "netflix"},
        {"subtitle_style": "broadcast", "highlight_words": True},
        {"max_cue_duration": 5.0, "max_words_per_line": 2},
    ],
)
def test_contradictory_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        SubtitleOptions(**wrong)


def test_names_of_formats() -> None:
    assert formats("srt, vtt,srt") == ("srt", "vtt")
    assert formats("all") == tuple(FORMATS)


def test_files_are_written_whole(tmp_path: Path) -> None:
    transcript = transcript_of(segment(" Grüße 七"))
    paths = write_all(transcript, tmp_path / "new", "talk.v2", ["txt", "srt"])
    assert [path.name for path in paths] == ["talk.v2.txt", "talk.v2.srt"]
    assert paths[0].read_bytes() == "Grüße 七\n".encode()
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["talk.v2.srt", "talk.v2.txt"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError):
        write(tmp_path / "file" / "below.txt", "text")
    assert (tmp_path / "file").read_text() == "here"


def test_an_emulated_device_is_named_where_there_is_a_place() -> None:
    real = Transcript("", (), "en", None, 1.0, "npu fp16 (rk3588)")
    emulated = replace(real, device="npu fp16 (emulated rk3588)", origin="emulated")
    changed = {
        name
        for name, write in FORMATS.items()
        if write(real, SubtitleOptions()) != write(emulated, SubtitleOptions())
    }
    assert changed == {"json", "html", "vtt", "lrc"}
    assert all(
        "(emulated rk3588)" in FORMATS[name](emulated, SubtitleOptions()) for name in changed
    )
    assert "rk3588" not in FORMATS["json"](real, SubtitleOptions())
