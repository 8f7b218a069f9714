"""The Python interface: the examples of docs/python.md run, and what is exported is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import whisper_npu
from whisper_npu import sources

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_documentation_runs(number: int) -> None:
    try:
        sources.find("tiny.en", offline=True)
    except whisper_npu.ModelError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "decide what it means" in done.stdout


@pytest.mark.parametrize("name", whisper_npu.__all__)
def test_what_is_exported_is_there(name: str) -> None:
    assert getattr(whisper_npu, name).__name__ == name


def test_what_is_not_exported_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        _ = whisper_npu.load
    assert (ROOT / "whisper_npu" / "py.typed").exists()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, whisper_npu; print({'numpy', 'tokenizers', 'soundfile'} & sys.modules.keys())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
