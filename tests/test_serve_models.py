"""The models of a server: by name, loaded once, given back, and anew after a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from whisper_npu.errors import DeviceFault, ModelError
from whisper_npu.options import DeviceOptions
from whisper_npu.serve.models import Models
from whisper_npu.serve.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def models(random_model: Callable[[str], Path]) -> Iterator[Models]:
    names = [str(random_model("micro")), str(random_model("micro.en"))]
    opened = Models(names, DeviceOptions("cpu"))
    yield opened
    opened.close()
    assert opened.loaded == []


def test_names_are_those_of_folders_and_the_first_is_the_default(models: Models) -> None:
    assert models.names == ["micro", "micro.en"]
    assert [models.named(name) for name in (None, "", "whisper-1")] == ["micro"] * 3
    assert models.named("micro.en") == "micro.en"
    for name in ("large", "../micro", "/etc/passwd", "MICRO"):
        with pytest.raises(Refusal, match=r"only micro, micro\.en") as refused:
            models.named(name)
        assert refused.value.status == 404


def test_a_model_is_loaded_once_and_unloaded_when_nobody_uses_it(models: Models) -> None:
    assert models.loaded == []
    with models.using("micro") as first, models.using("micro") as second:
        assert first is second
        models.unload_idle(0)
        assert models.loaded == ["micro"]
    models.unload_idle(100)
    assert models.loaded == ["micro"]
    models.unload_idle(0)
    assert models.loaded == []


def test_after_a_fault_it_is_loaded_anew_when_nobody_uses_it_any_more(models: Models) -> None:
    with models.using("micro") as first:
        with pytest.raises(DeviceFault), models.using("micro"):
            raise DeviceFault("the NPU has fallen over")
        assert models.loaded == ["micro"]  # somebody still uses it
    assert models.loaded == []
    with models.using("micro") as second:
        assert second is not first
    models.unload_idle(100)
    assert models.loaded == ["micro"]


def test_a_model_that_is_not_there_is_found_out_at_the_start() -> None:
    with pytest.raises(ModelError, match="no model folder"):
        Models(["/nowhere"], DeviceOptions("cpu"))
