"""A byte-level vocabulary that a file holds as a list of tokens -> the content of a tokenizer.json.

GPT-2's vocabulary, and each made after it, lists single bytes first and then what each merge gave,
in the order of the merges: which two parts a token was merged from follows from the ranks of the
others. Source of the names of bytes: openai/gpt-2 encoder.py.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from whisper_npu.languages import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisper_npu.held import HeldFile

END = "<|endoftext|>"
N_TIMESTAMPS = 1501  # 0 to 30 s in steps of 20 ms
TASKS = "translate transcribe startoflm startofprev nospeech notimestamps".split()


def special_tokens(n_languages: int) -> list[str]:
    """Whisper's special tokens in the order of their ids, from the end of text on."""
    return [
        END,
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in list(LANGUAGES)[:n_languages]),
        *(f"<|{task}|>" for task in TASKS),
        *(f"<|{i * 0.02:.2f}|>" for i in range(N_TIMESTAMPS)),
    ]


def tokenizer_json(texts: Sequence[bytes], specials: Sequence[str]) -> str:
    """A byte-level BPE.

    texts     what each token of text stands for, by id
    specials  names of the tokens behind them
    """
    names = [*map(name_of, texts), *specials]
    model = {
        "type": "BPE",
        "vocab": {name: token for token, name in enumerate(names)},
        "merges": merges(texts),
    }
    added = [
        {"id": len(texts) + i, "content": name, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, name in enumerate(specials)
    ]
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return json.dumps(
        {"version": "1.0", "model": model, "added_tokens": added}
        | {"pre_tokenizer": bytewise, "decoder": bytewise}
    )


def from_file(file: HeldFile) -> str:
    """A tokenizer.json, with the merges of all its tokens.

    Converters have lost the first one of the multilingual vocabulary, a space before a "t": with
    such a file, as faster-whisper's models have it, prompts are cut as no model has learnt them.
    """
    content = file.text()
    tokenizer = json.loads(content)
    try:
        model = tokenizer["model"]
        eot = next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == END)
        names = {token: name for name, token in model["vocab"].items() if token < eot}
        texts = [bytes_of(names[token]) for token in sorted(names)]
        if sum(len(text) > 1 for text in texts) <= len(model["merges"]):
            return content
    except (KeyError, TypeError, StopIteration):  # not such a vocabulary: left to the library
        return content
    model["merges"] = merges(texts)
    return json.dumps(tokenizer)


def merges(texts: Sequence[bytes]) -> list[str]:
    """Pairs of names that become one token, in the order of the ranks.

    As OpenAI's encoder does it: any two tokens become the one that they spell.
    """
    known = set(texts)
    return [
        f"{name_of(text[:i])} {name_of(text[i:])}"
        for text in texts
        for i in range(1, len(text))
        if text[:i] in known and text[i:] in known
    ]


def name_of(text: bytes) -> str:
    """A token's bytes as byte-level vocabularies write them: a character for each."""
    return text.decode("latin-1").translate(_NAMES)


def bytes_of(name: str) -> bytes:
    """What a token of a byte-level vocabulary stands for."""
    try:
        return bytes(map(_BYTES.__getitem__, name))
    except KeyError:
        return name.encode()


def _byte_names() -> dict[int, str]:
    """Printable characters stand for themselves, other bytes for those from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


_NAMES = _byte_names()
_BYTES = {name: byte for byte, name in _NAMES.items()}
