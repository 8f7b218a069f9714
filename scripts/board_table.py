"""Reports of boards that people sent -> docs/boards.md. Emulated ones are refused.

whisper-npu doctor --report board        # on a board, by anybody
scripts/board_table.py reports/*.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "boards.md"
HEAD = """# Boards

Measured by those who own them, with `whisper-npu doctor --report`: [first-board.md](first-board.md)
says how. A window of 30 s, the best of three, in ms; the largest error of a layer against float32.

"""
COLUMNS = ("cpu f32", "cpu int8", "npu fp16", "npu int8", "npu graph")


def read(path: Path) -> dict[str, Any]:
    """One report. Raises ValueError for one that was not measured on a board."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("format") != 1:
        raise ValueError(f"{path} is no report of whisper-npu doctor")
    if found.get("origin") != "measured":
        raise ValueError(f"{path} is {found.get('origin')}: only boards belong here")
    machine = found.get("machine")
    if not isinstance(machine, dict) or not machine.get("chip"):
        raise ValueError(f"{path} is of a machine without an NPU")
    return found


def table(reports: list[dict[str, Any]]) -> str:
    """All reports, one a line, what is the same in the same place."""
    if not reports:
        return HEAD + "Nobody has sent one yet.\n"
    lines = [
        f"| board | kernel | librknnrt | model | {' | '.join(COLUMNS)} | error fp16 | error int8 |",
        "|---" * (6 + len(COLUMNS)) + "|",
    ]
    lines += sorted(_row(found) for found in reports)
    return HEAD + "\n".join(lines) + "\n"


def _row(found: dict[str, Any]) -> str:
    machine = found["machine"]
    cells = [machine.get("name"), machine.get("kernel"), machine.get("library"), found.get("model")]
    devices = {each.get("device"): each for each in found.get("devices") or []}
    for name in COLUMNS:
        window = devices.get(name, {}).get("window_ms")
        cells.append(f"{window:.0f}" if isinstance(window, (int, float)) else "")
    layers = found.get("layers") if isinstance(found.get("layers"), dict) else {}
    for precision in ("fp16", "int8"):
        errors = [
            each["relative"] for each in (layers or {}).get(precision, []) if each["relative"]
        ]
        cells.append(f"{max(errors):.1e}" if errors else "")
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: object) -> str:
    """What a stranger wrote stays in its cell."""
    return " ".join(str(value or "").split()).replace("|", "/").replace("<", "&lt;")[:80]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("reports", nargs="*", type=Path)
    try:
        reports = [read(path) for path in parser.parse_args().reports]
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    PAGE.write_text(table(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
