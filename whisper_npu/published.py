"""The published Whisper models: short name -> repository, pinned revision, checksum. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from whisper_npu.errors import ModelError


@dataclass(frozen=True)
class Model:
    """A model by name, pinned to a revision so that the same name stays the same weights."""

    name: str
    repo: str
    revision: str  # a commit for known models; what the user wrote, else "main"
    sha256: str | None = None  # of model.safetensors
    size: int | None = None  # bytes of model.safetensors
    licence: str | None = None


# name, revision, then bytes and sha256 of model.safetensors at that revision
_OPENAI = """
tiny 169d4a4341b33bc18d8881c4b69c2e104e1cc0af 151061672
    7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395
tiny.en 87c7102498dcde7456f24cfd30239ca606ed9063 151060136
    db59695928ded6043adaef491a53ef4e12da9611184d77c53baa691a60b958ad
base e37978b90ca9030d5170a5c07aadb050351a65bb 290403936
    07cadb9f25677c8d50df603e66a98fbd842cce45047139baeb16e6219a1e807b
base.en 911407f4214e0e1d82085af863093ec0b66f9cd6 290401888
    d4dd5542fd6a1d35639e21384238f3bfe6c557c849d392b5905d33ee29e71db5
small 973afd24965f72e36ca33b3055d56a652f456b4d 966995080
    1d7734884874f1a1513ed9aa760a4f8e97aaa02fd6d93a3a85d27b2ae9ca596b
small.en e8727524f962ee844a7319d92be39ac1bd25655a 966992008
    6014ac49b506df900f66f4aca6b0801eed7245594ace97bcaf73e0ae5b863066
medium abdf7c39ab9d0397620ccaea8974cc764cd0953e 3055544304
    62f73550fa6db24b0c6f6c5962bd0dae80fa644e93cde9cd9c3792971b47fd28
medium.en 2e98eb6279edf5095af0c8dedb36bdec0acd172b 3055540208
    8f731340f569588236c21f794c33e83b7cc5a297511d2bdc30117ea969004311
large-v1 4ef9b41f0d4fe232daafdb5f76bb1dd8b23e01d7 6173370152
    27d753181b54178da228555dbc57fe639f6624ca470d83d35e500b22df0ab7e6
large-v2 ae4642769ce2ad8fc292556ccea8e901f1530655 6173370152
    57a1ba2a82c093cabff2541409ae778c97145378b9ddfa722763cb1cb8f9020b
large-v3 06f233fe06e710322aca913c1bc4249a0d71fce1 3087130976
    a8e94b85976e5864ba3e9525c7e6c83b2a1eca42d4b797a0c7c24d778e40fd95
large-v3-turbo 41f01f3fe87f28c78e2fbf8b568835947dd65ed9 1617824864
    542566a422ae4f3fd23f1ba11add198fca01bbf82e66e6a2857b3f608b1eb9d1
"""
_DISTIL = """
distil-small.en 9e4a67ca4569c30be43a3fe7fba1621e504f0093
distil-medium.en 6e61418885eaf4d5cc9f64e508e80ac5b4c052b7
distil-large-v2 97d2c8f9cae1b0f6c8fc2e173495ee4cedc05843
distil-large-v3 8031d2e6ce6631b7fc45629dddfc00271116d981
distil-large-v3.5 728a7691f3ff1d3d971528d3203a6e9559165d41
"""
_ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}


def _known() -> dict[str, Model]:
    models = {}
    fields = _OPENAI.split()
    for name, revision, size, sha256 in zip(*(fields[i::4] for i in range(4)), strict=True):
        repo = "openai/whisper-" + ("large" if name == "large-v1" else name)
        licence = "mit" if name == "large-v3-turbo" else "apache-2.0"
        models[name] = Model(name, repo, revision, sha256, int(size), licence)
    fields = _DISTIL.split()
    for name, revision in zip(fields[::2], fields[1::2], strict=True):
        models[name] = Model(name, f"distil-whisper/{name}", revision, licence="mit")
    return models


KNOWN = _known()


def _instead(name: str) -> str:
    alike = get_close_matches(name.lower(), KNOWN, n=2)
    if alike:
        return f"did you mean {' or '.join(alike)}?"
    return "use a folder, owner/name, or a name that `whisper-npu models list` shows"


def resolve(name: str) -> Model:
    """A short name (base), or owner/name with an optional @revision. Raises ModelError."""
    short = _ALIASES.get(name, name)
    if short in KNOWN:
        return KNOWN[short]
    match = re.fullmatch(r"([\w][\w.-]*/[\w][\w.-]*)(?:@([\w][\w./-]*))?", name, re.ASCII)
    if not match or ".." in name:
        raise ModelError(f"there is no model {name!r}, here or by name: {_instead(name)}")
    pinned = {model.repo: model for model in KNOWN.values()}.get(match[1])
    if pinned and match[2] in (None, pinned.revision):
        return pinned
    return Model(name, match[1], match[2] or "main")
