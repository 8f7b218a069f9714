"""What a survey of a board found -> a page for people."""

from __future__ import annotations

from typing import Any

from whisper_npu.pages import render


def board_page(found: dict[str, Any]) -> str:
    """HTML of a survey (`doctor.survey`), which may come from a stranger: one file, no network."""
    machine = _part(found, "machine")
    return render(
        "board",
        title=f"{found.get('model')} on {machine.get('name') or 'an unknown machine'}",
        emulated=found.get("origin") == "emulated",
        version=found.get("whisper_npu"),
        machine=machine,
        rows={name: _rows(found, name) for name in ("findings", "devices", "shapes")},
        parts={name: _part(found, name) for name in ("trial", "layers", "load")},
        problems={
            name: part["problem"]
            for name, part in found.items()
            if isinstance(part, dict) and "problem" in part
        },
    )


def _part(found: dict[str, Any], name: str) -> dict[str, Any]:
    part = found.get(name)
    return part if isinstance(part, dict) and "problem" not in part else {}


def _rows(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    part = found.get(name)
    return part if isinstance(part, list) else []
