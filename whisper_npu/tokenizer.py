"""tokens <-> text, and the ids of the special tokens, from a model's vocabulary.

The byte-level BPE itself is the `tokenizers` library, which is only asked to cut text: reading a
published vocabulary takes a tenth of a second and 40 MB. What a transcript needs of it, the
bytes of each token, is kept in the cache. Nothing here assumes Whisper's vocabulary sizes: special
tokens are found by name. Source of the rules: openai/whisper tokenizer.py.
"""

from __future__ import annotations

import re
import zlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from whisper_npu import cache
from whisper_npu.checkpoint.vocabulary import N_TIMESTAMPS, bytes_of
from whisper_npu.errors import ModelError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from whisper_npu.checkpoint import Checkpoint

TIME_PRECISION = 0.02  # seconds between two timestamp tokens
_LAYOUT = 2  # of what is kept in the cache


class Tokenizer:
    """One model's vocabulary. Raises ModelError naming its file when it is unusable.

    Order of ids in every Whisper vocabulary: text < eot < sot < languages < tasks < ... <
    no_timestamps < timestamps.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._vocabulary = checkpoint.vocabulary
        held = self._vocabulary.file
        self._path = held.path
        self._n_vocab = checkpoint.dims.n_vocab
        file = f"{held.path.resolve()} {held.inode} {held.size} {held.mtime_ns} {_LAYOUT}"
        kept = cache.folder() / "vocabularies" / f"{zlib.crc32(file.encode()):08x}.json"
        self._table = cache.remembered(kept)
        if self._table.get("file") != file:
            self._table = {"file": file} | self._describe()
            cache.remember(kept, self._table)
        self.multilingual = checkpoint.is_multilingual
        self.eot = self._special("<|endoftext|>")
        self.sot = self._special("<|startoftranscript|>")
        self.translate = self._special("<|translate|>")
        self.transcribe = self._special("<|transcribe|>")
        self.sot_lm = self._special("<|startoflm|>")
        self.sot_prev = self._special("<|startofprev|>")
        self.no_speech = self._special("<|nospeech|>", "<|nocaptions|>")
        self.no_timestamps = self._special("<|notimestamps|>")
        self.timestamp_begin = self.no_timestamps + 1
        self._check(checkpoint)

    def _check(self, checkpoint: Checkpoint) -> None:
        """Whether this is the vocabulary of that model, as far as numbers tell."""
        n_vocab = self._n_vocab
        n_named = self.eot + len(self._table["names"])
        # some name the timestamps, some do not
        n_tokens = (
            n_named if n_named > self.timestamp_begin else self.timestamp_begin + N_TIMESTAMPS
        )
        if n_vocab not in (n_named, n_tokens):
            raise self._of_another_model(n_tokens)
        for name, token in checkpoint.special_tokens.items():
            if name in self._table["names"] and self._special(name) != token:
                raise ModelError(
                    f"{self._path} has {name} as token {self._special(name)}, the configuration "
                    f"as {token}: they belong to different models"
                )

    def _of_another_model(self, n_tokens: int) -> ModelError:
        return ModelError(
            f"{self._path} has {n_tokens} tokens and the model {self._n_vocab}: "
            "they belong to different models"
        )

    @cached_property
    def _bpe(self) -> Any:
        import tokenizers

        try:
            bpe = tokenizers.Tokenizer.from_str(self._vocabulary.read())
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{self._path} is damaged: {error}") from error
        bpe.encode_special_tokens = True  # "<|en|>" in a prompt is text, not a token
        return bpe

    def _describe(self) -> dict[str, Any]:
        """What is kept: each text token's bytes, as Latin-1; eot and the names from it on; bans."""
        names = {token: name for name, token in self._bpe.get_vocab().items()}
        eot = self._bpe.token_to_id("<|endoftext|>")
        if eot is None:
            raise ModelError(f"{self._path} has no token <|endoftext|>: not a Whisper tokenizer")
        if max(names) >= self._n_vocab:  # before a list of them all is made: it may be 2^32
            raise self._of_another_model(max(names) + 1)
        texts = [bytes_of(names.get(token, "")) for token in range(eot)]
        simple = b"".join(texts).decode(errors="replace") == self._join(range(eot))
        return {
            "texts": [text.decode("latin-1") for text in texts] if simple else None,
            "eot": eot,
            "names": [names.get(token, "") for token in range(eot, max(names) + 1)],
            "blank": self.encode(" "),
            "non_speech": self._non_speech(),
        }

    def _special(self, *names: str) -> int:
        for name in names:
            if name in self._table["names"]:
                return int(self._table["eot"] + self._table["names"].index(name))
        raise ModelError(f"{self._path} has no token {names[0]}: not a Whisper tokenizer")

    def _name(self, token: int) -> str:
        """The text of eot or of a token behind it; "" where the vocabulary has none."""
        names: list[str] = self._table["names"]
        return names[token - self.eot] if token - self.eot < len(names) else ""

    @cached_property
    def language_tokens(self) -> dict[str, int]:
        """Language code -> token, for the languages this vocabulary has."""
        found = {}
        for token in range(self.sot + 1, self.translate):
            match = re.fullmatch(r"<\|([a-z]+)\|>", self._name(token))
            if match:
                found[match[1]] = token
        return found

    def sot_sequence(self, language: str | None, task: str) -> tuple[int, ...]:
        """What every transcript begins with. English-only models know no language or task.

        Raises OptionError when the model does not know the language.
        """
        if not self.multilingual:
            return (self.sot,)
        code = language or "en"
        if code not in self.language_tokens:
            raise OptionError(f"this model does not know the language {code!r}")
        task_token = {"transcribe": self.transcribe, "translate": self.translate}[task]
        return (self.sot, self.language_tokens[code], task_token)

    def encode(self, text: str) -> list[int]:
        """Text to tokens; special tokens are never made from text."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens to text without special and timestamp tokens; broken UTF-8 shows as U+FFFD."""
        text = [token for token in tokens if token < self.eot]
        if self._table["texts"] is None:
            return self._join(text)
        found = "".join(map(self._table["texts"].__getitem__, text))
        return found.encode("latin-1").decode(errors="replace")

    def _join(self, tokens: Iterable[int]) -> str:
        decoded: str = self._bpe.decode(list(tokens), skip_special_tokens=False)
        return decoded

    def mark(self, token: int) -> str:
        """Name of a special token, such as <|en|>."""
        return self._name(token) or f"<|{token}|>"

    def timestamp(self, token: int) -> float:
        """Seconds from the beginning of the window."""
        return (token - self.timestamp_begin) * TIME_PRECISION

    @cached_property
    def blank(self) -> tuple[int, ...]:
        """What must not come first: a lone space, or the end."""
        return (*self._table["blank"], self.eot)

    @property
    def non_speech(self) -> tuple[int, ...]:
        """Tokens that annotate instead of transcribing: brackets, speaker dashes, musical notes."""
        return tuple(self._table["non_speech"])

    def _non_speech(self) -> list[int]:
        symbols = list('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
        symbols += "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split()
        notes = set("♩♪♫♬♭♮♯")
        # a dash or an apostrophe inside a word is speech; at its start it is not
        found = {*self.encode(" -")[:1], *self.encode(" '")[:1]}
        for symbol in [*symbols, *notes]:
            for tokens in (self.encode(symbol), self.encode(f" {symbol}")):
                if len(tokens) == 1 or symbol in notes:
                    found.update(tokens[:1])  # none: the vocabulary cannot say it
        return sorted(found)

    def suppressed(self, choice: Sequence[int]) -> tuple[int, ...]:
        """Ids never to be sampled; -1 in `choice` stands for all of `non_speech`."""
        chosen = {token for token in choice if token >= 0}
        if unknown := [token for token in chosen if token >= self._n_vocab]:
            raise OptionError(
                f"suppress_tokens: {min(unknown)} is no token of this model, which has "
                f"{self._n_vocab}",
                "suppress_tokens",
            )
        if -1 in choice:
            chosen.update(self.non_speech)
        chosen.update(
            (self.transcribe, self.translate, self.sot, self.sot_prev, self.sot_lm, self.no_speech)
        )
        return tuple(sorted(chosen))
