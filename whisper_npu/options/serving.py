"""How a server listens, and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass

from whisper_npu.errors import OptionError
from whisper_npu.options.option import check, n_bytes, number_or_none, option

SERVER, BOUNDS = "Server", "Bounds"


def port_or_none(text: str) -> int | None:
    """A port, or "none" for no port. Raises ValueError that says what is wrong."""
    if text.strip().lower() == "none":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither a port nor none") from error


@dataclass(frozen=True)
class ServeOptions:
    """Where a server listens, and what it refuses. Raises OptionError."""

    host: str = option(
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 is all of this machine's addresses.",
        SERVER,
        metavar="ADDRESS",
    )
    port: int = option(8000, "Port for HTTP and WebSocket.", SERVER, least=0, most=65535)
    wyoming_port: int | None = option(
        10300,
        "Port for the Wyoming protocol, which Home Assistant speaks; none: do not speak it.",
        SERVER,
        read=port_or_none,
        metavar="PORT|none",
        least=0,
        most=65535,
    )
    wyoming_host: str | None = option(
        None,
        "Address to listen on for Wyoming, whose clients cannot send a token; without this option, "
        "that of --host, or 127.0.0.1 if there is a --token.",
        SERVER,
        metavar="ADDRESS",
    )
    token: str | None = option(
        None,
        "Answer only clients that know this secret: as bearer token (the API key of OpenAI's "
        "clients) or as password. Better set as WHISPER_NPU_TOKEN, which no list of processes "
        "shows.",
        SERVER,
    )
    idle: float | None = option(
        None,
        "Unload a model that nobody has used for this many seconds; none: keep it.",
        SERVER,
        read=number_or_none,
        metavar="NUMBER|none",
        least=0,
    )
    queue: int = option(
        64,
        "Number of requests that may wait or be in work; further ones are refused. A single "
        "client may hold half of them.",
        BOUNDS,
        least=1,
    )
    max_upload: int = option(
        500_000_000, "Largest upload, such as 500M.", BOUNDS, read=n_bytes, metavar="SIZE", least=1
    )
    max_audio: float = option(
        4 * 3600.0, "Longest recording, in seconds.", BOUNDS, least=1, metavar="SECONDS"
    )
    timeout: float = option(
        3600.0,
        "Longest time, in seconds, that a request may take with all its waiting.",
        BOUNDS,
        least=1,
        metavar="SECONDS",
    )

    def __post_init__(self) -> None:
        check(self)
        if self.token is not None and not self.token.strip():
            raise OptionError("token must not be empty", "token")
        if self.token is not None and not self.token.isascii():
            raise OptionError("token: only ASCII characters can be sent in a header", "token")
