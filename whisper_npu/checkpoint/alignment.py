"""The cross-attention heads of OpenAI's models that follow time, for files that do not name them.

OpenAI found them by looking at each model; source: the masks in openai/whisper `__init__.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisper_npu.checkpoint.contents import Dimensions, Heads

# model: width, decoder layers and tokens; then layer:head,head...
_KNOWN = {
    "tiny.en": ((384, 4, 51864), "1:0 2:0,5 3:0,1,2,3,4"),
    "tiny": ((384, 4, 51865), "2:2 3:0,2,3,4,5"),
    "base.en": ((512, 6, 51864), "3:3 4:7 5:1,5,7"),
    "base": ((512, 6, 51865), "3:1 4:2,3,7 5:1,2,4,6"),
    "small.en": (
        (768, 12, 51864),
        "6:6 7:0,3,8 8:2,5,7 9:0,4,8,10 10:0,1,2,3,6,11 11:2,4",
    ),
    "small": ((768, 12, 51865), "5:3,9 8:0,4,7,8 9:0,7,9 10:5"),
    "medium.en": (
        (1024, 24, 51864),
        "11:4 14:1,12,14 15:4 16:0,4,9 17:12,14 18:7,10,15 20:0,3,9,14 21:12",
    ),
    "medium": ((1024, 24, 51865), "13:15 15:4,15 16:1 20:0 23:4"),
    # of the same sizes; more people have the second, which is therefore what `published` finds
    "large-v1": ((1280, 32, 51865), "9:19 11:2,4,17 22:7,11,17 23:2,15"),
    "large-v2": (
        (1280, 32, 51865),
        "10:12 13:17 16:11,12,13 17:15,16 18:4,11,19 19:11 "  # noqa: ISC004  one text
        "21:2,3 22:3,9,12 23:5,7,13 25:5 26:1,12 27:15",
    ),
    "large-v3": ((1280, 32, 51866), "7:0 10:17 12:18 13:12 16:1 17:14 19:11 21:4 24:1 25:6"),
    "large-v3-turbo": ((1280, 4, 51866), "2:4,11 3:3,6,11,14"),
}


def _pairs(text: str) -> Heads:
    layers = (layer.split(":") for layer in text.split())
    return tuple((int(layer), int(head)) for layer, heads in layers for head in heads.split(","))


def _sizes(dims: Dimensions) -> tuple[int, int, int]:
    return dims.n_text_state, dims.n_text_layer, dims.n_vocab


def published(dims: Dimensions) -> Heads | None:
    """The heads of OpenAI's model of these sizes; None for other models."""
    return {sizes: _pairs(heads) for sizes, heads in _KNOWN.values()}.get(_sizes(dims))


def foreign(heads: Heads, dims: Dimensions) -> str | None:
    """Name of the OpenAI model of another width or depth whose heads these are."""
    for name, (sizes, known) in _KNOWN.items():
        if sorted(heads) == list(_pairs(known)) and sizes[:2] != _sizes(dims)[:2]:
            return name
    return None
