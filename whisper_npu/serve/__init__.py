"""One process that transcribes for others: OpenAI's clients, Home Assistant, Bazarr, a browser."""

from __future__ import annotations

from importlib.util import find_spec

from whisper_npu.errors import OptionError

NEEDED = ("starlette", "uvicorn", "python_multipart", "websockets", "wyoming", "prometheus_client")


def require_packages() -> None:
    """Raise OptionError where the packages of the extra are missing."""
    missing = [name.replace("_", "-") for name in NEEDED if find_spec(name) is None]
    if missing:
        raise OptionError(f"a server needs {', '.join(missing)}: pip install 'whisper-npu[serve]'")
