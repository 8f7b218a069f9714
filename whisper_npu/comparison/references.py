"""What is really said in recordings: a text file, a folder of them, or a list in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_npu.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence


def references(source: Path, recordings: Sequence[str]) -> dict[str, str]:
    """Recording -> text, for those that have one.

    source  a .txt for a single recording; a folder with stem.txt for each; or a .jsonl of
            objects with "file" (or "audio") and "text", or the same as a list in a .json

    Raises OptionError when it cannot be read, or knows none of the recordings.
    """
    try:
        if source.is_dir():
            found = {name: source / f"{Path(name).stem}.txt" for name in recordings}
            texts = {n: path.read_text("utf-8") for n, path in found.items() if path.is_file()}
        elif source.suffix in (".jsonl", ".json"):
            texts = _listed(source, recordings)
        elif len(recordings) == 1:
            texts = {recordings[0]: source.read_text("utf-8")}
        else:
            raise OptionError(
                f"{source} is one text for {len(recordings)} recordings: use a folder"
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"the references in {source} cannot be read: {error}") from error
    if not texts:
        raise OptionError(f"{source} has no text for any of the recordings")
    return texts


def _listed(source: Path, recordings: Sequence[str]) -> dict[str, str]:
    text, known = source.read_text("utf-8"), {}
    lines = [line for line in text.splitlines() if line.strip()]
    for entry in json.loads(text) if source.suffix == ".json" else map(json.loads, lines):
        known[Path(entry.get("file") or entry["audio"]).name] = str(entry["text"])
    return {name: known[Path(name).name] for name in recordings if Path(name).name in known}
