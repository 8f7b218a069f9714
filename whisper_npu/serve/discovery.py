"""Home Assistant finds the server by itself: mDNS, where the package zeroconf is installed."""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_log = logging.getLogger(__name__)

KIND = "_wyoming._tcp.local."
_OUTWARD = ("224.0.0.251", 5353)  # where mDNS is spoken; nothing is sent to find our address


@asynccontextmanager
async def announced(host: str, port: int) -> AsyncIterator[None]:
    """Tell the network where Wyoming is spoken, for as long as the block runs.

    host  that we listen on; one of this machine alone is not told
    """
    address = ip_address(host)
    if find_spec("zeroconf") is None or address.is_loopback:
        yield
        return
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

    network = None
    try:
        told = _outward_address() if address.is_unspecified else host
        name = f"whisper-npu on {socket.gethostname().partition('.')[0]}"
        info = AsyncServiceInfo(KIND, f"{name}.{KIND}", port=port, parsed_addresses=[told])
        network = AsyncZeroconf()
        await network.async_register_service(info)
    except Exception as error:  # noqa: BLE001  a network without multicast is no reason to end
        _log.warning("Home Assistant will not find us by itself: %s", error)
    try:
        yield
    finally:
        if network:
            await network.async_unregister_all_services()
            await network.async_close()


def _outward_address() -> str:
    """The address by which others of the network know this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_OUTWARD)
        return str(probe.getsockname()[0])
