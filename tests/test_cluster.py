"""A batch on a Dask cluster of processes, of which one is killed."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import soundfile
from fake_speech import Watcher
from typer.testing import CliRunner

from whisper_npu.batch import Batch, cluster
from whisper_npu.batch.journal import FOLDER
from whisper_npu.batch.recordings import Recording, find
from whisper_npu.batch.workers import Opening
from whisper_npu.cli import app
from whisper_npu.errors import DeviceError, DiskError, ModelError
from whisper_npu.events import WindowDone
from whisper_npu.options import BatchOptions, DeviceOptions, TranscribeOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisper_npu.batch.report import Result
    from whisper_npu.events import Event
    from whisper_npu.transcript import Transcript

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # Dask's own

N_RECORDINGS = 12
OPTIONS = TranscribeOptions(
    temperature=(0.0,),
    temperature_increment_on_fallback=None,
    without_timestamps=True,
    sample_len=3,
)


@pytest.fixture(scope="module")
def boards() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=3,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        resources={"NPU": 1},
    ) as local:
        yield local


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(N_RECORDINGS):
        soundfile.write(folder / f"r{i:02}.wav", 0.1 * rng.standard_normal(8000), 16000)
    return folder


@dataclass
class Killer(Watcher):
    """Kills a board after a few recordings."""

    boards: Any = None
    after: int = 2
    n_finished: int = 0
    n_heard: dict[str, int] = field(default_factory=dict)

    def finished(self, recording: Recording, result: Result, transcript: Transcript | None) -> None:
        super().finished(recording, result, transcript)
        self.n_heard[recording.output] = self.n_heard.get(recording.output, 0) + 1
        self.n_finished += 1
        if self.n_finished == self.after:
            victim = random.choice(list(self.boards.workers.values()))
            os.kill(victim.pid, signal.SIGKILL)


def _batch(
    folder: Path, out: Path, model: str, watcher: Watcher
) -> tuple[Batch, cluster.Assignment]:
    opening = Opening(model, "cpu", OPTIONS)
    options = BatchOptions(out, ("txt", "json"))
    batch = Batch(find([folder]), options, {"model": opening.fingerprint}, None, watcher)
    return batch, cluster.Assignment(model, DeviceOptions("cpu"), OPTIONS, opening.fingerprint)


@pytest.mark.parametrize("shared", [False, True])
def test_a_lost_board_loses_nothing(
    boards: Any, recordings: Path, tmp_path: Path, model: str, *, shared: bool
) -> None:
    (recordings / "r05.wav").write_bytes(b"no recording")
    out = tmp_path / "out"
    watcher = Killer(boards=boards)
    batch, task = _batch(recordings, out, model, watcher)
    cluster.run(batch, boards.scheduler_address, task, shared=shared)
    expected = {f"r{i:02}": "done" for i in range(N_RECORDINGS)} | {"r05": "failed"}
    assert watcher.statuses() == expected
    assert set(watcher.n_heard.values()) == {1}
    assert batch.report.exit_code == 3
    lines = (out / FOLDER / "journal.jsonl").read_text().splitlines()
    done = [record["recording"] for record in map(json.loads, lines) if "recording" in record]
    assert sorted(done) == sorted(expected)
    assert len(list(out.glob("*.txt"))) == N_RECORDINGS - 1
    assert list((out / FOLDER).iterdir()) == [out / FOLDER / "journal.jsonl"]


@pytest.mark.parametrize(("device", "resources"), [("npu", {"NPU": 1}), ("auto", None)])
def test_the_npu_is_asked_for(
    recordings: Path, tmp_path: Path, model: str, device: str, resources: object
) -> None:
    from unittest.mock import Mock

    batch, task = _batch(recordings / "r00.wav", tmp_path / "out", model, Watcher())
    client = Mock()
    dispatch = cluster._Dispatch(
        batch, client, replace(task, device=DeviceOptions(device)), shared=False
    )
    job = batch.next_job()
    assert job is not None
    dispatch._send(job)
    assert client.submit.call_args.kwargs["resources"] == resources
    dispatch.abandon()


def test_other_weights_are_refused(
    boards: Any, recordings: Path, tmp_path: Path, model: str
) -> None:
    watcher = Watcher()
    batch, task = _batch(recordings, tmp_path / "out", model, watcher)
    other = replace(task, weights="0" * 64)
    with pytest.raises(ModelError, match="not the one"):
        cluster.run(batch, boards.scheduler_address, other)
    assert "done" not in watcher.statuses().values()


def test_a_full_disk_ends_the_batch(
    boards: Any, recordings: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, watcher = tmp_path / "out", Watcher()
    batch, task = _batch(recordings, out, model, watcher)
    written = iter(range(5))

    def fsync(_: int) -> None:
        if next(written, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(DiskError, match="no space is left on the disk"):
            cluster.run(batch, boards.scheduler_address, task)
    assert set(watcher.statuses().values()) <= {"done", "interrupted"}
    again = Watcher()
    batch, task = _batch(recordings, out, model, again)
    cluster.run(batch, boards.scheduler_address, task)
    assert batch.report.exit_code == 0
    assert len(list(out.glob("*.txt"))) == N_RECORDINGS


def test_stopping_gives_the_claims_back(
    boards: Any, recordings: Path, tmp_path: Path, model: str
) -> None:
    out = tmp_path / "out"

    class Stopper(Watcher):
        def finished(self, recording: Recording, result: Result, *_: object) -> None:
            self.results[recording.output] = result
            batch.stop()

    watcher = Stopper()
    batch, task = _batch(recordings, out, model, watcher)
    cluster.run(batch, boards.scheduler_address, task)
    assert "interrupted" in watcher.statuses().values()
    again = Watcher()
    batch, task = _batch(recordings, out, model, again)
    cluster.run(batch, boards.scheduler_address, task)
    assert set(again.statuses().values()) <= {"done", "skipped"}
    assert len(list(out.glob("*.txt"))) == N_RECORDINGS


def test_windows_are_kept_as_boards_finish_them(boards: Any, tmp_path: Path, model: str) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 300, np.int16), 16000)
    out = tmp_path / "out"

    class Stopper(Watcher):
        windows: ClassVar[list[float]] = []

        def heard(self, _recording: Recording, event: Event) -> None:
            if isinstance(event, WindowDone):
                self.windows.append(event.seconds)
                batch.stop()

    batch, task = _batch(tmp_path / "long.wav", out, model, Stopper())
    cluster.run(batch, boards.scheduler_address, task)
    before = Stopper.windows[-1]
    if batch.report.results[0].status == "done":
        pytest.skip("the board was too quick to be stopped")
    again = Watcher()
    batch, task = _batch(tmp_path / "long.wav", out, model, again)
    cluster.run(batch, boards.scheduler_address, task)
    (result,) = batch.report.results
    assert (result.status, result.seconds) == ("done", 300 - before)
    assert batch.report.stages["encoder"] > 0
    whole = json.loads((out / "long.json").read_text())
    batch, task = _batch(tmp_path / "long.wav", tmp_path / "fresh", model, again)
    cluster.run(batch, boards.scheduler_address, task)
    assert whole == json.loads((tmp_path / "fresh" / "long.json").read_text())


def test_nobody_at_the_address(recordings: Path, tmp_path: Path, model: str) -> None:
    batch, task = _batch(recordings, tmp_path / "out", model, Watcher())
    with pytest.raises(DeviceError, match="no Dask scheduler"):
        cluster.run(batch, "tcp://127.0.0.1:9", task)


def test_the_command(boards: Any, recordings: Path, tmp_path: Path, model: str) -> None:
    (recordings / "r05.wav").write_bytes(b"no recording")
    arguments = ["transcribe", str(recordings), "-m", model, "-o", str(tmp_path / "out")]
    arguments += ["--device", "cpu", "--without-timestamps", "--sample-len", "3"]
    arguments += ["--cluster", boards.scheduler_address, "--report", str(tmp_path / "report")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3, result.output
    summary = json.loads((tmp_path / "report").read_text())["summary"]
    assert (summary["done"], summary["failed"]) == (N_RECORDINGS - 1, 1)
    assert "cpu" in summary["device"]
