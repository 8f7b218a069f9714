"""Language names."""

import pytest

from whisper_npu.errors import OptionError
from whisper_npu.tokenizer import language_code


@pytest.mark.parametrize(
    ("name", "code"), [("fr", "fr"), ("French", "fr"), ("flemish", "nl"), (" YUE ", "yue")]
)
def test_language_names(name: str, code: str) -> None:
    assert language_code(name) == code


def test_an_unknown_language_is_a_usage_error() -> None:
    with pytest.raises(OptionError, match="klingon"):
        language_code("klingon")
