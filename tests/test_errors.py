"""What errors say."""

from __future__ import annotations

import os

from whisper_npu.messages import printable


def test_printable() -> None:
    assert printable(os.fsdecode(b"a\xff\n\x1b[2Jb")) == r"a\xff\n\x1b[2Jb"
