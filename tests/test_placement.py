"""The vendor's table of operators -> one line for people."""

from __future__ import annotations

from whisper_npu.graphs.placement import read_placement

HEAD = "D RKNN: [18:08:54.928]        Network Layer Information Table\n"


def table(*rows: str) -> str:
    lines = (
        f"D RKNN: [18:08:54.928] {i}    {row}  (1,2)  (3)  0/0/0\n" for i, row in enumerate(rows)
    )
    return HEAD + "".join(lines)


ENDS = ("InputOperator FLOAT16 CPU", "OutputOperator FLOAT16 CPU")
BELOW = "D RKNN: [18:08:54.928] 3  Conv  mel_rs  FLOAT16   NC1HWC2  (1,80) | 0x0\n"


def test_all_on_the_npu() -> None:
    found = read_placement(table(*ENDS, "ConvExGelu FLOAT16 NPU", "exNorm FLOAT16 NPU") + BELOW)
    assert found is not None
    assert (found.npu, dict(found.elsewhere)) == (2, {})
    assert str(found) == "100 % of layers on the NPU"


def test_some_left_to_the_cpu() -> None:
    softmax = ("exSoftmax13 FLOAT16 CPU",) * 2
    found = read_placement(table("Conv INT8 NPU", "Reshape INT8 CPU", *softmax))
    assert str(found) == "25 % of layers on the NPU; on the CPU: 2 softmax, 1 reshape"


def test_a_share_is_never_rounded_up_to_all() -> None:
    found = read_placement(table(*["Conv FLOAT16 NPU"] * 300, "exNorm FLOAT16 CPU"))
    assert str(found) == "99 % of layers on the NPU; on the CPU: 1 layer norm"


def test_the_last_table_counts() -> None:
    found = read_placement(table("Conv FLOAT16 CPU") + table("Conv FLOAT16 NPU"))
    assert str(found) == "100 % of layers on the NPU"


def test_a_log_without_a_table() -> None:
    assert read_placement("I rknn building done") is None
    assert read_placement(HEAD) is None
