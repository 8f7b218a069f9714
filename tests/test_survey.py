"""The report a stranger sends: all that can be told, nothing of the person; what becomes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import board_table
import boards
import pytest
from typer.testing import CliRunner

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.cli import app
from whisper_npu.comparison import GREEDY
from whisper_npu.doctor import diagnose, survey
from whisper_npu.doctor.survey import Subject, survey_files, without_person
from whisper_npu.errors import DeviceFault
from whisper_npu.reports.board import board_page
from whisper_npu.sample_recordings import RECORDINGS, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from browser import Reader

BRIEF = replace(GREEDY, sample_len=3)  # random weights talk without end
SCRIPT = Path(board_table.__file__)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(survey, "RECORDINGS", ("sentence.flac",))
    monkeypatch.setattr(survey, "REPEATS", 1)
    monkeypatch.setattr(survey, "GREEDY", BRIEF)


@pytest.fixture(scope="module")
def micro(random_model: Callable[[str], Path]) -> Path:
    return random_model("micro")


def found_by(tmp_path: Path, micro: Path, board: Any = boards.pc) -> dict[str, Any]:
    machine = board(tmp_path / "board")
    subject = Subject(machine, Checkpoint(micro), load_seconds=0)
    diagnosis = diagnose(machine, device="npu", model=str(micro))
    found = survey.survey(subject, diagnosis, tmp_path / "x.json", lambda _: None)
    assert json.loads((tmp_path / "x.json").read_text()) == found
    return found


def test_without_an_npu_it_tells_all_it_can(tmp_path: Path, micro: Path) -> None:
    found = found_by(tmp_path, micro)
    assert found["machine"]["chip"] is None
    assert (found["trial"], found["layers"], found["shapes"]) == ({}, {}, [])
    assert [each["device"] for each in found["devices"]] == ["cpu f32", "cpu int8"]
    assert all(each["window_ms"] > 0 for each in found["devices"])
    assert found["load"]["looks"][0]["windows"] == 1
    page = board_page(found)
    assert "cpu f32" in page
    assert "none with an NPU" in page
    assert not any(heading in page for heading in ("Time of each shape", "Trial", "None", "{}"))


def test_the_command_without_an_npu_writes_both_files_and_fails(
    tmp_path: Path, micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whisper_npu.machine.Machine", lambda: boards.pc(tmp_path / "pc"))
    report = tmp_path / "my-board"
    options = ["--device", "npu", "--model", str(micro), "--load-seconds", "0"]
    done = CliRunner().invoke(app, ["doctor", "--report", str(report), *options])
    assert done.exit_code == 6, done.output
    assert f"wrote {report}.json and {report}.html" in done.stderr
    assert done.stdout.splitlines()[-1].endswith("NPU: not ready, 1 to mend.")
    found = json.loads(report.with_suffix(".json").read_text())
    assert {"fail"} == {each["status"] for each in found["findings"] if each["about"] == "npu"}
    assert [each["device"] for each in found["devices"]] == ["cpu f32", "cpu int8"]
    assert all(each["transcripts"] for each in found["devices"])
    assert "no Rockchip chip" in report.with_suffix(".html").read_text()


def test_an_npu_that_cannot_be_opened_is_told_in_each_part(tmp_path: Path, micro: Path) -> None:
    found = found_by(tmp_path, micro, boards.orange_pi_5)
    assert found["machine"]["chip"] == "rk3588"
    assert found["machine"]["driver"] == "RKNPU driver: v0.9.8"
    assert found["machine"]["library"] == "2.3.2"
    assert found["machine"]["clocks_mhz"] == {"NPU": 1000, "memory": 2112}
    assert "problem" in found["layers"]
    problems = {each["device"]: "problem" in each for each in found["devices"]}
    assert problems == {
        "cpu f32": False, "cpu int8": False, "npu fp16": True, "npu int8": True, "npu graph": True,
    }  # fmt: skip
    assert "What could not be looked at" in board_page(found)


def test_what_came_before_a_crash_is_kept(
    tmp_path: Path, micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "_load", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found_by(tmp_path, micro)
    kept = json.loads((tmp_path / "x.json").read_text())
    assert "devices" in kept
    assert "load" not in kept


def test_a_fault_in_a_part_is_told_there(
    tmp_path: Path, micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Subject) -> None:
        raise DeviceFault("npu: <b>layer</b> died")

    monkeypatch.setattr(survey, "_load", fail)
    found = found_by(tmp_path, micro)
    assert found["load"] == {"problem": "npu: <b>layer</b> died"}
    assert "&lt;b&gt;layer&lt;/b&gt; died" in board_page(found)


def test_nothing_of_the_person_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = boards.orange_pi_5(tmp_path)
    (tmp_path / "proc/device-tree/serial-number").write_bytes(b"8d1bf0c6ad4e2f\0")
    monkeypatch.setenv("USER", "petra")
    monkeypatch.setenv("HOME", "/home/petra")
    text = (
        "/home/petra/secret folder/model.bin, /srv/petra-data/x/librknnrt.so; petra "
        "/usr/lib/librknnrt.so /dev/dri/card1 8d1bf0c6ad4e2f https://example.org/a/b"
    )
    said = without_person(text, machine)
    for hidden in ("petra", "8d1bf0c6ad4e2f", "/srv", "/home"):
        assert hidden not in said
    for kept in ("/usr/lib/librknnrt.so", "/dev/dri/card1", "librknnrt.so;", "example.org/a/b"):
        assert kept in said


def test_the_two_files() -> None:
    expected = Path("a/my.board.json"), Path("a/my.board.html")
    for given in ("a/my.board.json", "a/my.board.html"):
        assert survey_files(Path(given)) == expected
    assert survey_files(Path("board")) == (Path("board.json"), Path("board.html"))


# From the command line, with the emulated NPU


@pytest.fixture(scope="module")
def emulated(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("emulated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPER_NPU_CACHE", str(folder / "cache"))
        patch.setattr(survey, "RECORDINGS", ("sentence.flac",))
        patch.setattr(survey, "REPEATS", 1)
        patch.setattr(survey, "GREEDY", BRIEF)
        options = ["--emulate", "rk3566", "--model", str(micro), "--load-seconds", "0"]
        done = CliRunner().invoke(app, ["doctor", "--report", str(folder / "b.html"), *options])
    assert done.exit_code == 0, done.output
    assert "the NPU is emulated" in (folder / "b.html").read_text()
    found: dict[str, Any] = json.loads((folder / "b.json").read_text())
    return found


def test_all_parts_of_an_emulated_board(emulated: dict[str, Any], micro: Path) -> None:
    assert emulated["origin"] == "emulated"
    assert set(emulated["trial"]) == {"core 0"}
    assert set(emulated["trial"]["core 0"].values()) == {"works"}
    assert [each["device"] for each in emulated["devices"]] == [
        "cpu f32", "cpu int8", "npu fp16", "npu int8",
    ]  # fmt: skip
    heard = [each["transcripts"] for each in emulated["devices"]]
    assert heard[2] == heard[0]  # float16 hears what float32 hears
    worst = {p: max(e["relative"] for e in emulated["layers"][p]) for p in ("fp16", "int8")}
    assert 0 < worst["fp16"] < 5e-3 < worst["int8"] < 5e-2
    assert all(each["npu_ms"] is None for each in emulated["shapes"])
    assert all(0 < each["modelled_ms"][0] < each["modelled_ms"][1] for each in emulated["shapes"])
    assert str(micro.parent) not in json.dumps(emulated)


def test_the_page_opens(emulated: dict[str, Any], reader: Reader) -> None:
    page = reader.open(board_page(emulated))
    assert "m" in page.title()
    assert page.get_by_text("npu int8 (emulated rk3566)").first.is_visible()
    assert page.get_by_text("says anything of a board").first.is_visible()
    assert page.get_by_text("GB").first.is_visible()
    page.get_by_text("core 0: ").click()
    assert page.get_by_text("softmax normalised").first.is_visible()
    phone = reader.open(board_page(emulated), width=390)
    for header in phone.locator("thead th").all():
        size = header.evaluate("e => [e.scrollWidth - e.clientWidth, e.clientHeight]")
        assert size[0] <= 0  # words are whole: a wide table scrolls by itself
        assert size[1] < 90
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert reader.troubles == reader.requests == []


def test_hostile_reports_stay_text(emulated: dict[str, Any], reader: Reader) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    spoilt = json.loads(json.dumps(emulated).replace("rk3566", evil.replace('"', "'")))
    page = reader.open(board_page(spoilt))
    assert page.get_by_text("<script>alert(1)").first.is_visible()
    assert reader.troubles == reader.requests == []
    for damaged in ({}, {"machine": 3, "devices": {}, "trial": []}, {"layers": {"problem": "x"}}):
        assert "<h1>" in board_page(damaged)


# What the maintainers make of them


def measured(emulated: dict[str, Any]) -> dict[str, Any]:
    machine = emulated["machine"] | {"name": "Some | <b>board</b>", "library": "2.3.2"}
    return emulated | {"origin": "measured", "machine": machine}


def test_the_table_of_boards(
    emulated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "one.json"
    file.write_text(json.dumps(measured(emulated)))
    text = board_table.table([board_table.read(file)])
    assert "| Some / &lt;b>board&lt;/b> |" in text
    assert "| npu fp16 |" in text
    assert "Nobody has sent one yet" in board_table.table([])
    assert board_table.table([]) == board_table.PAGE.read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"origin": "emulated"}, "is emulated: only boards belong here"),
        ({"origin": None}, "only boards belong here"),
        ({"format": 2}, "is no report of whisper-npu doctor"),
        ({"machine": {"chip": None}}, "is of a machine without an NPU"),
    ],
)
def test_reports_that_are_refused(
    emulated: dict[str, Any], tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    file = tmp_path / "one.json"
    file.write_text(json.dumps(measured(emulated) | change))
    before = board_table.PAGE.read_text("utf-8")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert reason in done.stderr
    assert board_table.PAGE.read_text("utf-8") == before


def test_subjects_differ_by_emulation(micro: Path, tmp_path: Path) -> None:
    subject = Subject(boards.pc(tmp_path), Checkpoint(micro))
    assert subject.soc is None
    emulated = replace(subject, emulate="rk3588")
    assert emulated.soc is not None
    assert emulated.npu("int8").emulate == "rk3588"
    assert set(emulated.devices) == {"cpu f32", "cpu int8", "npu fp16", "npu int8"}


def test_the_samples_are_there() -> None:
    assert [name for name in RECORDINGS if not (SAMPLES / name).is_file()] == []
