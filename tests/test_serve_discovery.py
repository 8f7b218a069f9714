"""What Home Assistant is told of us, with a stand-in for the package zeroconf."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from serving import finished

from whisper_npu.serve import discovery


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the network hears."""
    heard: list[Any] = []

    class AsyncServiceInfo:
        def __init__(self, kind: str, name: str, **more: Any) -> None:
            self.told = (kind, name, more["port"], more["parsed_addresses"])

    class AsyncZeroconf:
        async def async_register_service(self, info: AsyncServiceInfo) -> None:
            if info.told[2] == 1:
                raise OSError("no multicast")
            heard.append(info.told)

        async def async_unregister_all_services(self) -> None:
            heard.append("unregistered")

        async def async_close(self) -> None:
            heard.append("closed")

    module = ModuleType("zeroconf.asyncio")
    vars(module).update(AsyncServiceInfo=AsyncServiceInfo, AsyncZeroconf=AsyncZeroconf)
    monkeypatch.setitem(sys.modules, "zeroconf", ModuleType("zeroconf"))
    monkeypatch.setitem(sys.modules, "zeroconf.asyncio", module)
    monkeypatch.setattr(discovery, "find_spec", lambda _: True)
    monkeypatch.setattr(discovery, "_outward_address", lambda: "192.0.2.7")
    monkeypatch.setattr("socket.gethostname", lambda: "board.home")
    return heard


async def announce(host: str, port: int) -> None:
    async with discovery.announced(host, port):
        pass


def test_the_network_is_told_and_told_again_at_the_end(told: list[Any]) -> None:
    finished(announce("0.0.0.0", 10300))  # noqa: S104  not opened
    kind = "_wyoming._tcp.local."
    name = f"whisper-npu on board.{kind}"
    assert told == [(kind, name, 10300, ["192.0.2.7"]), "unregistered", "closed"]


def test_this_machine_alone_is_nobody_elses_business(told: list[Any]) -> None:
    finished(announce("127.0.0.1", 10300))
    assert told == []


def test_a_network_without_multicast_is_only_a_warning(
    told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    finished(announce("192.0.2.7", 1))
    assert told == ["unregistered", "closed"]
    assert "will not find us by itself: no multicast" in caplog.text
