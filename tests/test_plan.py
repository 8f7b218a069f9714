"""Which layer runs where: modelled on an emulated chip, measured and kept on a board."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices import plan as plans
from whisper_npu.devices.npu.weights import Image
from whisper_npu.devices.plan import Step, measured, modelled
from whisper_npu.model import Whisper
from whisper_npu.rknpu import emulator
from whisper_npu.rknpu.cores import Cores
from whisper_npu.rknpu.librknnrt import Library
from whisper_npu.rknpu.soc import SOCS, Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def modelled_for(checkpoint: Checkpoint, chip: str, precision: Precision) -> plans.Plan:
    return modelled(Image(Whisper(checkpoint), SOCS[chip], precision), checkpoint.dims)


@pytest.mark.parametrize(
    ("name", "chip", "precision", "best", "worst"),
    [
        ("tiny", "rk3588", "fp16", 0.080, 0.190),
        ("base", "rk3588", "fp16", 0.160, 0.380),
        ("base", "rk3566", "int8", 0.200, 4.0),
    ],
)
def test_modelled_windows(
    random_model: Callable[[str], Path],
    name: str,
    chip: str,
    precision: Precision,
    best: float,
    worst: float,
) -> None:
    """The model of the chip says so, within what others expect of measured constants."""
    plan = modelled_for(Checkpoint(random_model(name)), chip, precision)
    found = plan.window_seconds
    assert best < found[0] < found[1] < worst
    assert plan.cpu_seconds == 0
    assert "modelled" in plan.title
    assert "emulated" in plan.title


def test_int8_is_modelled_faster_than_float16(random_model: Callable[[str], Path]) -> None:
    checkpoint = Checkpoint(random_model("tiny"))
    times = [modelled_for(checkpoint, "rk3566", p).npu_seconds for p in ("fp16", "int8")]
    assert times[1] < 0.8 * times[0]


def test_each_layer_goes_where_it_is_faster(checkpoint: Checkpoint) -> None:
    assert Step("a", 1, 1.0, 2.0).on_npu
    assert not Step("a", 1, 2.0, 1.0).on_npu
    plan = modelled_for(checkpoint, "rk3588", "fp16")
    lines = plan.lines()
    assert len(lines) == len(plan.steps) + 3
    for step, line in zip(plan.steps, lines[2:], strict=False):
        assert line.startswith(step.name)
        assert line.endswith("NPU" if step.on_npu else "CPU")
    assert "modelled" in lines[-1]


def test_measured_once_and_kept(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(emulator.library("rk3588"))
    image = Image(Whisper(checkpoint), SOCS["rk3588"], "fp16")
    cores = Cores(library, SOCS["rk3588"], 2)
    first = measured(image, checkpoint.dims, cores)
    assert "measured with librknnrt 2.3.2" in first.title
    assert all(step.npu_seconds > 0 and step.cpu_seconds > 0 for step in first.steps)
    (kept,) = tmp_path.glob("plan-rk3588-*.json")
    monkeypatch.setattr(plans, "_seconds", lambda *_: pytest.fail("measured again"))
    assert measured(image, checkpoint.dims, cores) == first
    monkeypatch.undo()
    kept.write_text("damaged")
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path))
    assert measured(image, checkpoint.dims, cores).title == first.title
    cores.close()
    assert library.emulator_get("contexts") == 0
