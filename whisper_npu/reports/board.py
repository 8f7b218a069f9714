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
        machine=_facts(machine),
        rows={name: _rows(found, name) for name in ("findings", "devices", "shapes")},
        parts={name: _part(found, name) for name in ("trial", "layers", "load")},
        problems={
            name: part["problem"]
            for name, part in found.items()
            if isinstance(part, dict) and "problem" in part
        },
    )


def _facts(machine: dict[str, Any]) -> dict[str, str]:
    """For people; what nobody knows is left out."""
    memory, clocks = machine.get("memory_bytes"), machine.get("clocks_mhz")
    celsius, chip = machine.get("celsius"), machine.get("chip")
    facts = {
        "machine": machine.get("name"),
        "chip": chip or (machine and "none with an NPU"),
        "kernel": machine.get("kernel"),
        "driver": machine.get("driver"),
        "librknnrt": machine.get("library"),
        "memory": f"{memory / 1e9:.1f} GB" if isinstance(memory, int) else "",
        "clocks": ", ".join(f"{name} {clock} MHz" for name, clock in clocks.items())
        if isinstance(clocks, dict)
        else "",
        "temperature": "" if celsius is None else f"{celsius} °C",
        "container": "yes" if machine.get("container") else "",
    }
    return {name: str(fact) for name, fact in facts.items() if fact}


def _part(found: dict[str, Any], name: str) -> dict[str, Any]:
    part = found.get(name)
    return part if isinstance(part, dict) and "problem" not in part else {}


def _rows(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    part = found.get(name)
    return part if isinstance(part, list) else []
