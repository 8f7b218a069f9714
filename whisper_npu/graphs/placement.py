"""The vendor's build log -> which operators run on the NPU, and which the compiler left to the CPU.

It counts operators and says nothing of time: the log's cycle counts are 0 for attention and norms.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_TITLE = "Network Layer Information Table"
# D RKNN: [18:08:54.928] 14   exSDPAttention     FLOAT16  NPU    (4,32,1,1500) ...
_ROW = re.compile(r"RKNN: \[[\d:.]+\] \d+ +(\w+) +(\w+) +(NPU|CPU|GPU) ", re.MULTILINE)
_INTERFACE = ("InputOperator", "OutputOperator")  # always on the CPU: copies in and out
_PLAIN = {"exSoftmax13": "softmax", "exSDPAttention": "attention", "exNorm": "layer norm"}


@dataclass(frozen=True)
class Placement:
    """Operators of a graph, without its inputs and outputs."""

    npu: int
    elsewhere: Mapping[str, int]  # name -> count, the most frequent first

    def __str__(self) -> str:
        """What stands after the chip's name: "100 % of layers on the NPU"."""
        left = sum(self.elsewhere.values())
        share = 100 * self.npu // max(1, self.npu + left)
        text = f"{share} % of layers on the NPU"
        if not left:
            return text
        names = ", ".join(f"{count} {name}" for name, count in self.elsewhere.items())
        return f"{text}; on the CPU: {names}"


def read_placement(log: str) -> Placement | None:
    """The last table of a log, or None where there is none."""
    _, title, table = log.rpartition(_TITLE)
    rows = [(kind, where) for kind, _, where in _ROW.findall(table) if kind not in _INTERFACE]
    if not title or not rows:
        return None
    names = (_PLAIN.get(kind, kind.lower()) for kind, where in rows if where != "NPU")
    return Placement(
        npu=sum(where == "NPU" for _, where in rows), elsewhere=dict(Counter(names).most_common())
    )
